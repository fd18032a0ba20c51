"""Channel and group names: what is valid, and what their parts are."""

import pytest

from channels_sqlite.names import client_of, queue_of, require_channel_name, require_group_name, split

# Nothing is opened here, and looking for leaks takes longer than these tests.
pytestmark = pytest.mark.leaks_allowed(reason="values in, values out")

LONGEST = "a" * 99

GOOD_NORMAL = ["a", "Z9", "chat", "chat.room-1_x", "-", ".", "_", "0", LONGEST]
GOOD_SPECIFIC = ["specific.abc!def", "a!b", "a.b!", "specific.abc!d.e-f_g", "a!" + "b" * 97]
BAD_ANYWHERE = [
    "",
    "a" * 100,
    "a b",
    "a\n",
    "\na",
    "a\x00b",
    "a/b",
    "a:b",
    "a*b",
    "a@b",
    "ü",
    "a\u0660",  # a digit, but not ASCII
    "\uff41",  # a letter, but not ASCII
    "a\u212a",  # the Kelvin sign, which lower() makes a k
    None,
    5,
    b"chat",
    True,
    ["chat"],
    ("chat",),
]


@pytest.mark.parametrize("name", [*GOOD_NORMAL, *GOOD_SPECIFIC])
def test_valid_channel_names_are_returned(name: str) -> None:
    assert require_channel_name(name) == name


@pytest.mark.parametrize("name", [*BAD_ANYWHERE, "!", "!a", "a!b!c", "a!!", "a!b c", "a!b\n", "a!" + "b" * 98])
def test_bad_channel_names_raise_type_error(name: object) -> None:
    with pytest.raises(TypeError, match="Channel name must be a string of 1 to 99"):
        require_channel_name(name)


@pytest.mark.parametrize("name", GOOD_NORMAL)
def test_valid_group_names_are_returned(name: str) -> None:
    assert require_group_name(name) == name


@pytest.mark.parametrize("name", [*BAD_ANYWHERE, *GOOD_SPECIFIC])
def test_bad_group_names_raise_type_error(name: object) -> None:
    with pytest.raises(TypeError, match="Group name must be a string of 1 to 99"):
        require_group_name(name)


def test_a_subclass_of_str_is_a_name() -> None:
    class Name(str):
        __slots__ = ()

    assert require_channel_name(Name("chat")) == "chat"


def test_the_complaint_shows_the_name_and_its_length() -> None:
    with pytest.raises(TypeError, match=r"'chat room' \(9 characters\)"):
        require_channel_name("chat room")
    with pytest.raises(TypeError, match=r"5 \(int\)"):
        require_group_name(5)


def test_the_complaint_about_an_endless_name_is_short() -> None:
    with pytest.raises(TypeError) as raised:
        require_channel_name("x" * 1_000_000)
    assert len(str(raised.value)) < 500
    assert "1000000 characters" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "queue", "local", "client"),
    [
        ("chat", "chat", None, ""),
        ("chat.room", "chat.room", None, ""),
        ("specific.abc!def", "specific.abc!", "def", "abc"),
        ("specific.abc!", "specific.abc!", "", "abc"),
        ("web.socket.abc!d.e", "web.socket.abc!", "d.e", "abc"),
        ("abc!def", "abc!", "def", "abc"),
    ],
)
def test_the_parts_of_a_name(name: str, queue: str, local: str | None, client: str) -> None:
    assert split(name) == (queue, local)
    assert queue_of(name) == queue
    assert client_of(name) == client
