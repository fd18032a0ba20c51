"""Whom a presence diff goes to, also while it is not known whether a transaction will be committed."""

import pytest

from channels_sqlite.counters import Counters
from channels_sqlite.delivery import diffs
from channels_sqlite.delivery.audience import Audience
from channels_sqlite.delivery.entries import diff_entry
from channels_sqlite.delivery.mailboxes import Mailboxes
from channels_sqlite.delivery.members import Members
from channels_sqlite.delivery.own_changes import OwnChanges
from channels_sqlite.options import Options
from channels_sqlite.storage.presences import PresenceRow

pytestmark = pytest.mark.leaks_allowed(reason="values in, values out")

CHANNEL = "specific.abc!one"


def row(heard_id: int, key: str = "ann") -> PresenceRow:
    return PresenceRow(key, 1, 0.0, heard_id, None, b"\x80")


@pytest.fixture
def boxes() -> Mailboxes:
    """With room for three messages each."""
    return Mailboxes(Options.from_config({"capacity": 3}), Counters())


@pytest.fixture
def audience(boxes: Mailboxes) -> Audience:
    changes = OwnChanges()
    return Audience(boxes, Members(boxes, changes), changes)


def heard(audience: Audience, up_to: int = 20) -> list[int]:
    """The ids of the diffs that the channel would hear."""
    ids = range(1, up_to + 1)
    found = [number for number in ids if audience.of("room", number)]
    assert found == [number for number in ids if audience.hears("room", CHANNEL, number)]
    return found


def enter(audience: Audience, heard_id: int, newest_before: int) -> None:
    _, settle = audience.enter("room", CHANNEL, row(heard_id), newest_before)
    settle()


def test_a_newcomer_hears_what_comes_after_its_list(audience: Audience) -> None:
    assert heard(audience) == []
    undo, settle = audience.enter("room", CHANNEL, row(10), 8)
    assert heard(audience) == list(range(11, 21))
    settle()
    assert heard(audience) == list(range(11, 21))
    undo()
    assert audience.attends(CHANNEL) is False
    assert heard(audience) == []


def test_one_that_joins_anew_hears_what_comes_before_and_after_until_it_is_certain(audience: Audience) -> None:
    enter(audience, 5, 5)
    undo, settle = audience.enter("room", CHANNEL, row(12), 10)
    assert heard(audience) == [6, 7, 8, 9, 10, *range(13, 21)]
    settle()
    assert heard(audience) == list(range(13, 21))
    undo()  # of no effect any more
    assert heard(audience) == list(range(13, 21))


def test_a_transaction_that_fails_leaves_everything_as_it_was(audience: Audience) -> None:
    enter(audience, 5, 5)
    undos = []
    undo, _ = audience.enter("room", CHANNEL, row(12, "bob"), 10)
    undos.append(undo)
    undos.append(audience.update("room", CHANNEL, b"\x81", None))
    left = audience.leave("room", CHANNEL, 12)
    assert left is not None
    undos.append(left[0])
    assert heard(audience) == [6, 7, 8, 9, 10]
    for undo in reversed(undos):
        undo()
    assert heard(audience) == list(range(6, 21))
    assert audience.all() == [("room", CHANNEL, row(5))]


def test_one_that_leaves_hears_nothing_of_what_follows(audience: Audience) -> None:
    assert audience.leave("room", CHANNEL, 3) is None
    enter(audience, 5, 5)
    left = audience.leave("room", CHANNEL, 10)
    assert left is not None
    assert heard(audience) == [6, 7, 8, 9, 10]
    left[1]()
    assert heard(audience) == []
    assert audience.all() == []


def test_in_one_transaction_the_last_word_counts(audience: Audience) -> None:
    enter(audience, 5, 5)
    settles = []
    left = audience.leave("room", CHANNEL, 10)
    assert left is not None
    settles.append(left[1])
    settles.append(audience.enter("room", CHANNEL, row(14), 12)[1])
    audience.update("room", CHANNEL, b"\x81", 7.0)
    assert heard(audience) == [6, 7, 8, 9, 10, *range(15, 21)]
    settles[0]()  # while another thread reads
    assert heard(audience) == [6, 7, 8, 9, 10, *range(15, 21)]
    settles[1]()
    assert heard(audience) == list(range(15, 21))
    [(_, _, now)] = audience.all()
    assert (now.info, now.expires_at, now.heard_id) == (b"\x81", 7.0, 14)


def test_two_joins_and_a_leave_in_one_transaction(audience: Audience) -> None:
    first = audience.enter("room", CHANNEL, row(6), 5)[1]
    second = audience.enter("room", CHANNEL, row(9, "bob"), 8)[1]
    left = audience.leave("room", CHANNEL, 10)
    assert left is not None
    for settle in (first, second):
        settle()
        assert 11 not in heard(audience)
    left[1]()
    assert not audience.attends(CHANNEL)


def test_what_is_read_is_noted(audience: Audience) -> None:
    assert audience.learn("room", CHANNEL, row(3))
    assert heard(audience, 5) == [4, 5]
    assert audience.learn("room", CHANNEL, None)
    assert not audience.attends(CHANNEL)


def test_a_flush_drops_whose_list_is_older(audience: Audience) -> None:
    enter(audience, 5, 5)
    audience.drop_older(5)
    assert audience.attends(CHANNEL)
    _, settle = audience.enter("room", CHANNEL, row(12), 10)  # in the transaction of the flush, after it
    audience.drop_older(10)
    settle()
    assert heard(audience) == list(range(13, 21))
    audience.drop_older(13)
    assert not audience.attends(CHANNEL)


def test_ids_that_begin_anew(audience: Audience) -> None:
    enter(audience, 500, 500)
    undo = audience.begin_anew(0)
    assert heard(audience, 3) == [1, 2, 3]
    undo()
    assert heard(audience, 3) == []


def test_where_channels_are(audience: Audience) -> None:
    enter(audience, 5, 5)
    audience.enter("other", CHANNEL, row(5), 5)
    audience.enter("other", "specific.abc!two", row(5, ""), 5)
    assert sorted(audience.attended_by({CHANNEL})) == [("other", CHANNEL), ("room", CHANNEL)]
    assert audience.is_anywhere("specific.abc!two")
    assert not audience.is_anywhere("specific.abc!three")


@pytest.mark.parametrize("moment", ["before the commit", "before what is done after it", "in the middle of that"])
def test_what_a_new_list_has_taken_in_is_not_put_together_with_what_follows(
    boxes: Mailboxes, audience: Audience, moment: str
) -> None:
    """The former is withdrawn after the commit; the latter may have been read by another thread before that."""

    def put(number: int, before: bytes | None, after: bytes | None) -> None:
        [payload] = diffs.packed("room", {f"key-{number}": (before, after)}, 10_000)
        boxes.put_diff([CHANNEL], diff_entry(number, "room", payload), audience)

    def told() -> list[tuple[list[str], list[str]]]:
        box = boxes.find(CHANNEL)
        assert box is not None
        messages = [diffs.message_of(entry.payload, lambda *_: {}) for entry in box.entries]
        return [(sorted(message["joins"]), sorted(message["leaves"])) for message in messages if message]

    enter(audience, 5, 5)
    for number in (6, 7, 8):
        put(number, None, b"\x80")
    undo, settle = audience.enter("room", CHANNEL, row(12), 10)
    for number in (13, 14):  # more than there is room for
        put(number, b"\x80", None)
        if moment == "in the middle of that":
            settle()
    if moment == "before the commit":  # which fails
        undo()
        put(9, None, b"\x80")
        assert told() == [(["key-6", "key-7", "key-8", "key-9"], ["key-13", "key-14"])]
        return
    settle()
    boxes.withdraw(CHANNEL, "room", 12)
    assert told() == [([], ["key-13", "key-14"])]
