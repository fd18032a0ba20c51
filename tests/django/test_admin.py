"""The admin: what it shows, that nothing can be changed there, and that a list never looks at a whole table."""

import asyncio
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from html import unescape
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgpack
import pytest
import pytest_django
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import connections
from django.test import Client, override_settings

from channels_sqlite.admin import filters, pages, payloads, presence
from channels_sqlite.codec import Codec
from channels_sqlite.delivery.diffs import packed
from channels_sqlite.kinds import Kind, State
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.models import Membership, Message, Presence, Process, Scheduled
from tests.support import inside
from tests.support.databases import ChannelDatabase, channel_database, registered

MESSAGES = "/admin/channels_sqlite/message/"
SCHEDULED = "/admin/channels_sqlite/scheduled/"
MEMBERSHIPS = "/admin/channels_sqlite/membership/"
PRESENCES = "/admin/channels_sqlite/presence/"
KEY = "a key of the layer"
MANY_ROWS = 100_000


@pytest.fixture(scope="module")
def accounts_database(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: pytest_django.DjangoDbBlocker
) -> ChannelDatabase:
    """A migrated `default`. Django's own for tests would come with a guard on all aliases, and ours come and go."""
    database = ChannelDatabase(alias="default", path=tmp_path_factory.mktemp("accounts") / "db.sqlite3", options={})
    with django_db_blocker.unblock(), registered(database):
        call_command("migrate", verbosity=0)
    return database


@pytest.fixture
def accounts(
    no_leaks: None, accounts_database: ChannelDatabase, django_db_blocker: pytest_django.DjangoDbBlocker
) -> Iterator[type[User]]:
    """Users and sessions, gone in the end."""
    with django_db_blocker.unblock(), registered(accounts_database):
        yield User
        User.objects.all().delete()
        Session.objects.all().delete()


@pytest.fixture
def administrator(accounts: type[User]) -> Client:
    """A browser in which an administrator is logged in."""
    client = Client()
    client.force_login(accounts.objects.create(username="ann", is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def visitor(administrator: Client, database: ChannelDatabase) -> Client:
    """The same, beside a fresh channels database."""
    return administrator


def add(alias: str = "channels", **values: Any) -> Message:
    """A message row, by default one that waits on the normal channel `jobs`."""
    now = time.time()
    defaults = {
        "prefix": "asgi",
        "kind": Kind.NORMAL,
        "state": State.WAITING,
        "queue": "jobs",
        "created_at": now,
        "expires_at": now + 3600,
        "payload": msgpack.packb({"type": "job.do"}),
    }
    return Message.objects.using(alias).create(**{**defaults, **values})


def add_member(**values: Any) -> Membership:
    defaults = {"prefix": "asgi", "group_name": "room", "client": "", "channel": "jobs", "joined_id": 0}
    return Membership.objects.using("channels").create(**{**defaults, **values})


def add_presence(**values: Any) -> Presence:
    defaults = {
        "prefix": "asgi",
        "group_name": "room",
        "client": "",
        "channel": "jobs",
        "key": "ann",
        "turn": 1,
        "since": time.time(),
        "heard_id": 0,
        "info": msgpack.packb({"name": "Ann"}),
    }
    return Presence.objects.using("channels").create(**{**defaults, **values})


def add_process(client: str, *, cursor: int) -> None:
    Process.objects.using("channels").create(
        client=client, prefix="asgi", pid=4711, cursor=cursor, held="{}", channels=0, started_at=0
    )


def layers(*configs: dict[str, Any]) -> override_settings:
    """CHANNEL_LAYERS with one layer of ours for each CONFIG."""
    backend = "channels_sqlite.layers.SqliteChannelLayer"
    entries = {str(number): {"BACKEND": backend, "CONFIG": config} for number, config in enumerate(configs)}
    return override_settings(CHANNEL_LAYERS=entries)


def text_of(client: Client, url: str) -> str:
    """What a page says, without its markup."""
    return without_markup(page_of(client, url))


def rows_of(client: Client, url: str) -> list[str]:
    """The rows of a list, each as its text."""
    body = re.search(r"<tbody>(.*)</tbody>", page_of(client, url), re.DOTALL)
    return [without_markup(row) for row in re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL)] if body else []


def page_of(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, (url, response.status_code)
    return response.content.decode()


def without_markup(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page.replace("<wbr>", ""))).split())


# What is shown


def test_what_layers_of_several_prefixes_sent_is_shown_newest_first(visitor: Client) -> None:
    async def use() -> None:
        layer, other = SqliteChannelLayer(), SqliteChannelLayer(prefix="other")
        await layer.send("jobs", {"type": "job.do", "id": 7})
        await layer.receive("jobs")
        await layer.group_add("room", await layer.new_channel())
        await layer.group_add("room", "jobs")
        await layer.group_send("room", {"type": "to.all"})
        await other.send("elsewhere", {"type": "of.another.prefix"})
        await other.close()
        await layer.close()

    asyncio.run(use())
    newest, to_channel, to_group, oldest = rows_of(visitor, MESSAGES)
    assert re.fullmatch(r"4 elsewhere normal channel waiting [\d.]+ s {'type': 'of.another.prefix'} other", newest)
    assert re.fullmatch(r"3 jobs normal channel waiting [\d.]+ s {'type': 'to.all'} asgi", to_channel)
    assert re.fullmatch(r"2 room group sent [\d.]+ s {'type': 'to.all'} asgi", to_group)
    assert re.fullmatch(r"1 jobs normal channel read [\d.]+ s {'type': 'job.do', 'id': 7} asgi", oldest)
    (member,) = rows_of(visitor, MEMBERSHIPS)
    assert re.fullmatch(r"jobs room normal channel any in 24.0 h asgi", member)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, "waiting"),
        ({"expires_at": 1.0}, "expired"),
        ({"state": State.DONE}, "read"),
        ({"state": State.DONE, "expires_at": 1.0}, "read or expired"),
        ({"kind": Kind.GROUP, "state": State.LOGGED}, "sent"),
        ({"kind": Kind.SPECIFIC, "state": State.LOGGED, "client": "here"}, "sent"),
        ({"kind": Kind.SPECIFIC, "state": State.LOGGED, "client": "here", "expires_at": 1.0}, "sent, read or expired"),
        ({"kind": Kind.SPECIFIC, "state": State.LOGGED, "client": "further"}, "reached its process"),
        ({"kind": Kind.SPECIFIC, "state": State.LOGGED, "client": "nobody"}, "its process is gone"),
        ({"kind": Kind.MEMBERSHIP, "state": State.LOGGED, "client": "here", "payload": b"jobs"}, "sent"),
    ],
    ids=str,
)
def test_the_state_says_no_more_than_the_row_and_the_cursor_tell(
    visitor: Client, row: dict[str, Any], expected: str
) -> None:
    add_process("here", cursor=0)
    add_process("further", cursor=1000)
    message = add(**row)
    assert f" State: {expected} Sent: " in text_of(visitor, f"{MESSAGES}{message.pk}/change/")
    kind = Kind(row.get("kind", Kind.NORMAL)).label
    assert re.search(rf" {kind} {expected} [\d.]+ s ", rows_of(visitor, MESSAGES)[0])


def test_a_message_is_shown_in_full_on_its_own_page(visitor: Client) -> None:
    content = {"type": "job.do", "text": "<b>&", "data": b"\x00", "list": list(range(40)), "nested": {"none": None}}
    local = add(queue="specific.abc!", local="xyz", kind=Kind.SPECIFIC, client="abc", payload=msgpack.packb(content))
    page = text_of(visitor, f"{MESSAGES}{local.pk}/change/")
    assert "specific.abc!xyz" in page
    assert "'text': '<b>&'" in page
    assert "'data': b'\\x00'" in page
    assert "39]" in page
    assert "'nested': {'none': None}}" in page
    assert "<b>&" not in page_of(visitor, f"{MESSAGES}{local.pk}/change/")


def test_a_large_message_is_cut(visitor: Client) -> None:
    content = {"text": "x" * 3_000_000, "list": ["y" * 1000] * 10_000, "after": 1}
    message = add(payload=msgpack.packb(content))
    assert "12.4\xa0MB, shown on its own page" in page_of(visitor, MESSAGES)
    page = page_of(visitor, f"{MESSAGES}{message.pk}/change/")
    assert len(page) < 60_000
    assert "(3000000 in all)" in unescape(page)
    assert "(cut here)" in page


def test_many_and_deep_values_are_cut() -> None:
    deep: object = 0
    for _ in range(200):
        deep = {"in": [deep]}
    text = payloads.pretty(Kind.NORMAL, msgpack.packb({"many": list(range(5000)), "deep": deep}))
    assert "… 4" in text
    assert "998" not in text
    text = payloads.pretty(Kind.NORMAL, msgpack.packb({"deep": deep}))
    assert "… (1 more)" in text


def test_a_message_too_large_to_decode_shows_its_size(visitor: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LARGEST_BYTES", 5000)
    message = add(payload=msgpack.packb({"text": "x" * 6000}))
    page = text_of(visitor, f"{MESSAGES}{message.pk}/change/")
    assert "xxx" not in page
    assert "Message: 5.9 KB; messages up to 4.9 KB are shown" in page


def test_an_encrypted_message_is_readable_with_a_configured_key_only(visitor: Client) -> None:
    message = add(payload=Codec(max_message_size=1000, keys=[KEY.encode()]).encode({"text": "secret"}))
    pages = (MESSAGES, f"{MESSAGES}{message.pk}/change/")
    for page in pages:
        assert "encrypted, and no layer in CHANNEL_LAYERS has the key" in text_of(visitor, page)
    configs: list[dict[str, Any]] = [
        {"capacity": 0},
        {"symmetric_encryption_keys": ["another"]},
        {"symmetric_encryption_keys": ["new", KEY]},
    ]
    with layers(*configs):
        for page in pages:
            assert "'text': 'secret'" in text_of(visitor, page)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"payload": b"\xc1"}, "cannot be decoded: not a msgpack message"),
        ({"payload": b""}, "cannot be decoded: not a msgpack message"),
        ({"payload": msgpack.packb([1])}, "cannot be decoded: holds a list instead of a map"),
        ({"kind": Kind.MEMBERSHIP, "payload": b"jobs"}, "the membership of jobs has changed"),
        ({"kind": Kind.FLUSH, "payload": b""}, "everything older was deleted"),
    ],
    ids=str,
)
def test_what_is_no_message_is_told_in_words(visitor: Client, values: dict[str, Any], expected: str) -> None:
    message = add(**values)
    for page in (MESSAGES, f"{MESSAGES}{message.pk}/change/"):
        assert expected in text_of(visitor, page)


def test_text_that_another_program_put_there_is_told_in_words(visitor: Client) -> None:
    message = add()
    with connections["channels"].cursor() as cursor:
        cursor.execute("UPDATE channels_sqlite_message SET payload = 'text', kind = 9")
    for page in (MESSAGES, f"{MESSAGES}{message.pk}/change/"):
        assert "cannot be decoded" in text_of(visitor, page)


def test_memberships_tell_their_process_and_their_end(visitor: Client) -> None:
    add_process("here", cursor=0)
    add_member(client="here", channel="specific.here!a", expires_at=time.time() + 9000)
    add_member(client="gone", channel="specific.gone!b", expires_at=time.time() - 300)
    gone, here = rows_of(visitor, MEMBERSHIPS)
    assert re.fullmatch(r"specific.here!a room process-specific channel pid 4711 in 2.5 h asgi", here)
    assert re.fullmatch(r"specific.gone!b room process-specific channel gone 5.0 min ago asgi", gone)
    add_member(channel="mails")
    assert re.fullmatch(r"mails room normal channel any when discarded asgi", rows_of(visitor, MEMBERSHIPS)[0])
    member = Membership.objects.using("channels").get(channel="mails")
    assert "mails in room" in text_of(visitor, f"{MEMBERSHIPS}{member.pk}/change/")


def test_presences_tell_who_is_there_and_what_they_tell(visitor: Client) -> None:
    add_process("here", cursor=0)
    add_presence(client="here", channel="specific.here!a", expires_at=time.time() + 9000, since=time.time() - 300)
    add_presence(client="gone", channel="specific.gone!b", key="", info=b"")
    watcher, ann = rows_of(visitor, PRESENCES)
    assert re.fullmatch(r"ann room specific.here!a pid 4711 .*, 5.0 min ago in 2.5 h \{'name': 'Ann'\} asgi", ann)
    assert re.fullmatch(r"\(watches\) room specific.gone!b gone when it leaves asgi", watcher)
    row = Presence.objects.using("channels").get(key="ann")
    assert "{'name': 'Ann'}" in text_of(visitor, f"{PRESENCES}{row.pk}/change/")
    assert str(row) == "ann in room"
    add_presence(key="bob", info=Codec(max_message_size=1000, keys=[KEY.encode()]).encode({"name": "secret"}))
    assert "encrypted, and no layer in CHANNEL_LAYERS has the key" in rows_of(visitor, PRESENCES)[0]
    assert len(rows_of(visitor, f"{PRESENCES}?q=room")) == 3
    for term in ("bob", "jobs"):
        assert [row.split()[0] for row in rows_of(visitor, f"{PRESENCES}?q={term}")] == ["bob"]
    for term in ("here", "specific.here!a", "specific.here!"):
        assert [row.split()[0] for row in rows_of(visitor, f"{PRESENCES}?q={term}")] == ["ann"]
    assert rows_of(visitor, f"{PRESENCES}?q=nobody") == []
    assert len(rows_of(visitor, f"{PRESENCES}?group_name=room")) == 3


def test_what_is_told_of_presences_is_shown(visitor: Client) -> None:
    (payload,) = packed("room", {"ann": (None, msgpack.packb({"name": "Ann"})), "bob": (b"\xc1", None)}, 1000)
    logged = add(kind=Kind.PRESENCE, state=State.LOGGED, queue="room", payload=payload)
    waiting = add(queue="jobs", local="room", expires_at=math.inf, payload=payload)
    for row in (logged, waiting):
        for page in (MESSAGES, f"{MESSAGES}{row.pk}/change/"):
            assert "'joins': {'ann': {'name': 'Ann'}}" in text_of(visitor, page)
    assert "cannot be decoded" in text_of(visitor, f"{MESSAGES}{logged.pk}/change/")
    lines = rows_of(visitor, MESSAGES)
    assert "jobs normal channel waiting" in lines[0]
    assert "room presence change sent" in lines[1]
    assert "never" in text_of(visitor, f"{MESSAGES}{waiting.pk}/change/")
    infos = (msgpack.packb({"a": 1, "b": 2}), msgpack.packb({"b": 2, "a": 1}))
    (same,) = packed("room", {"ann": infos}, 1000)
    add(kind=Kind.PRESENCE, payload=same)
    assert "nothing that can be seen has changed" in rows_of(visitor, MESSAGES)[0]


# Nothing can be changed


@pytest.mark.parametrize("model", ["message", "membership", "presence"])
def test_nothing_can_be_added_changed_or_deleted(visitor: Client, model: str) -> None:
    rows: dict[str, Callable[[], Message | Membership | Presence]] = {
        "message": add,
        "membership": add_member,
        "presence": add_presence,
    }
    row = rows[model]()
    folder = f"/admin/channels_sqlite/{model}/"
    for page in (f"{folder}add/", f"{folder}{row.pk}/delete/"):
        assert visitor.get(page).status_code == 403
        assert visitor.post(page, {"post": "yes"}).status_code == 403
    assert visitor.post(f"{folder}{row.pk}/change/", {"prefix": "changed"}).status_code == 403
    visitor.post(folder, {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    assert inside.manager_of(row).using("channels").get(pk=row.pk).prefix == "asgi"
    page = page_of(visitor, folder) + page_of(visitor, f"{folder}{row.pk}/change/")
    assert f"{folder}add/" not in page
    assert "/delete/" not in page
    assert "_save" not in page


def test_it_takes_the_permission_to_view(accounts: type[User], database: ChannelDatabase) -> None:
    client = Client()
    client.force_login(accounts.objects.create(username="ben", is_staff=True))
    assert client.get(MESSAGES).status_code == 403
    assert client.get(f"{MESSAGES}{add().pk}/change/").status_code == 403


# Finding


def test_filters_find_by_state_kind_channel_prefix_and_time(visitor: Client) -> None:
    now = time.time()
    add(queue="waits", created_at=now - 7000)
    add(queue="expired", expires_at=1.0, created_at=now - 100)
    add(queue="done", state=State.DONE, expires_at=1.0)
    add(queue="read", state=State.DONE)
    add(queue="room", kind=Kind.GROUP, state=State.LOGGED, prefix="other")

    def found(query: str) -> list[str]:
        return [row.split()[1] for row in rows_of(visitor, f"{MESSAGES}?{query}")]

    assert found("state=waiting") == ["waits"]
    assert found("state=expired") == ["expired"]
    assert found("state=done") == ["done"]
    assert found("state=read") == ["read"]
    assert found("state=sent") == ["room"]
    assert found("kind__exact=2") == ["room"]
    assert found("queue=read") == ["read"]
    assert found("queue=unknown") == []
    assert found("prefix=other") == ["room"]
    assert found("sent=60") == ["expired", "waits"]
    assert found("sent=3600") == ["waits"]
    assert found("sent=21600") == []
    assert found("sent=nonsense&state=nonsense") == ["room", "read", "done", "expired", "waits"]
    assert offered(visitor, "queue") == ["done", "expired", "read", "room", "waits"]
    assert offered(visitor, "prefix") == ["asgi", "other"]


def offered(client: Client, parameter: str) -> list[str]:
    """What the list of messages offers to filter by."""
    return re.findall(rf'<a href="\?{parameter}=([^"]*)"', page_of(client, MESSAGES))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 30])
def test_the_newest_message_before_a_moment_is_found_by_halving(
    accounts: type[User], database: ChannelDatabase, count: int
) -> None:
    rows = Message.objects.using("channels")
    rows.bulk_create(
        Message(
            id=number * number + 5, prefix="", kind=0, state=0, queue="", created_at=number, expires_at=0, payload=b""
        )
        for number in range(count)
    )
    for moment in range(-1, count + 2):
        expected = [number * number + 5 for number in range(count) if number < moment]
        found = filters.bisect_newest_id_before(rows.all(), moment)
        assert list(rows.filter(id__lte=found).order_by("id").values_list("id", flat=True)) == expected


def test_search_finds_parts_of_names_of_messages(visitor: Client) -> None:
    add(queue="Thumbnails")
    add(queue="specific.abc!", local="xyz", kind=Kind.SPECIFIC, state=State.LOGGED, client="abc")
    add(queue="specific.abc!", local="other", kind=Kind.SPECIFIC, state=State.LOGGED, client="abc")
    assert len(rows_of(visitor, f"{MESSAGES}?q=thumb")) == 1
    assert len(rows_of(visitor, f"{MESSAGES}?q=abc")) == 2
    assert len(rows_of(visitor, f"{MESSAGES}?q=specific.abc!")) == 2
    assert len(rows_of(visitor, f"{MESSAGES}?q=specific.abc!xyz")) == 1
    assert rows_of(visitor, f"{MESSAGES}?q=nothing") == []


def test_search_finds_memberships_by_group_channel_and_client(visitor: Client) -> None:
    add_member()
    add_member(prefix="another", client="abc", channel="specific.abc!xyz")
    add_member(group_name="hall", client="abc", channel="specific.abc!other")
    assert len(rows_of(visitor, f"{MEMBERSHIPS}?q=room")) == 2
    assert len(rows_of(visitor, f"{MEMBERSHIPS}?q=jobs")) == 1
    assert len(rows_of(visitor, f"{MEMBERSHIPS}?q=abc")) == 2
    assert len(rows_of(visitor, f"{MEMBERSHIPS}?q=specific.abc!")) == 2
    assert len(rows_of(visitor, f"{MEMBERSHIPS}?q=specific.abc!xyz")) == 1
    assert len(rows_of(visitor, f"{MEMBERSHIPS}?group_name=hall")) == 1
    assert len(rows_of(visitor, f"{MEMBERSHIPS}?prefix=another")) == 1
    assert rows_of(visitor, f"{MEMBERSHIPS}?q=roo") == []


def test_layers_in_two_databases_are_looked_at_one_after_the_other(visitor: Client, tmp_path: Path) -> None:
    with layers({"database": "channels"}, {"database": "further"}), channel_database(tmp_path, alias="further"):
        add(queue="here")
        there = add("further", queue="there")
        add("further", queue="there")
        assert [row.split()[1] for row in rows_of(visitor, MESSAGES)] == ["here"]
        page = page_of(visitor, f"{MESSAGES}?database=further")
        assert "there" in page
        link = re.search(rf'href="({MESSAGES}{there.pk}/change/[^"]*)"', page)
        assert link
        assert "there" in text_of(visitor, unescape(link[1]))
        assert "here" in rows_of(visitor, f"{MESSAGES}?database=nonsense")[0]


def test_missing_tables_are_told_with_the_remedy(administrator: Client, tmp_path: Path) -> None:
    with channel_database(tmp_path, migrated=False):
        for page in (MESSAGES, MEMBERSHIPS, f"{MESSAGES}1/change/"):
            told = without_markup(administrator.get(page, follow=True).content.decode())
            assert "The channel layer's database 'channels' cannot be read: no such table" in told
            assert 'run "python manage.py migrate --database=channels"' in told


# Cost


class Watch:
    """Notes each statement on the channels database, with its plan and the number of steps that it took."""

    STEPS = 100

    def __init__(self) -> None:
        self.plans: dict[str, list[str]] = {}
        self.statements: list[str] = []
        self.steps = 0

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        connection = context["connection"].connection
        self.statements.append(sql)
        with closing(connection.cursor()) as cursor:
            cursor.execute("EXPLAIN QUERY PLAN " + sql.replace("%s", "?").replace("%%", "%"), params or ())
            self.plans[sql] = [row[3] for row in cursor.fetchall()]
        connection.set_progress_handler(self._stepped, self.STEPS)
        return execute(sql, params, many, context)

    def _stepped(self) -> int:
        self.steps += self.STEPS
        return 0


FILL = """
    INSERT INTO channels_sqlite_message
        (prefix, kind, state, queue, local, client, created_at, expires_at, payload)
    WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < {rows})
    SELECT 'asgi', n % 3, CASE n % 3 WHEN 0 THEN n % 2 ELSE 2 END, 'queue' || (n % 500), CASE n % 3 WHEN 1 THEN 'x' END,
        CASE n % 3 WHEN 1 THEN 'client' || (n % 4) END, {now} - {rows} + n, {now} + n, x'80'
    FROM counter;
"""
FILL_MEMBERS = """
    INSERT INTO channels_sqlite_membership (prefix, group_name, client, channel, joined_id, expires_at)
    WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < {rows})
    SELECT 'asgi', 'queue' || (n % 500), 'client' || (n % 499), 'channel' || n, 0, {now} + n FROM counter;
"""

FILL_PRESENCES = """
    INSERT INTO channels_sqlite_presence
        (prefix, group_name, client, channel, key, turn, since, heard_id, expires_at, info)
    WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < {rows})
    SELECT 'asgi', 'queue' || (n % 500), 'client' || (n % 499), 'channel' || n, 'key' || (n % 501), 1, {now}, 0, NULL,
        x'80'
    FROM counter;
"""

# Either bounded by ids, or by an index on what was asked for; the next prefix is one step of an index.
BOUNDED = re.compile(
    r"SEARCH channels_sqlite_message USING INTEGER PRIMARY KEY \(rowid[>=]"
    r"|SEARCH channels_sqlite_membership USING INTEGER PRIMARY KEY \(rowid[>=]"
    r"|SEARCH channels_sqlite_me(ssage|mbership)$"  # max(id)
    r"|SEARCH channels_sqlite_membership USING (COVERING )?INDEX \w+ \((prefix=\? AND group_name=\?|client=\?)"
    r"|(SCAN|SEARCH) channels_sqlite_membership USING COVERING INDEX \w+( \(prefix>\?\))?$"
    r"|SEARCH channels_sqlite_presence USING INTEGER PRIMARY KEY \(rowid[>=]"
    r"|SEARCH channels_sqlite_presence$"  # max(id)
    r"|SEARCH channels_sqlite_presence USING (COVERING )?INDEX \w+ \((prefix=\? AND (group_name|key)=\?|client=\?)"
    r"|(SCAN|SEARCH) (channels_sqlite_process|U0)"  # one row for each process
)


def test_no_page_looks_at_a_whole_table(visitor: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "WINDOW_ROWS", 500)
    monkeypatch.setattr(pages, "WINDOW_ROWS", 500)
    monkeypatch.setattr(presence, "WINDOW_ROWS", 500)
    monkeypatch.setattr(filters, "BUSY_ROWS", 500)
    with connections["channels"].cursor() as cursor:
        for statement in (FILL, FILL_MEMBERS, FILL_PRESENCES):
            cursor.execute(statement.format(rows=MANY_ROWS, now=time.time()))
    queries = ["", "p=3", "sent=3600", "state=waiting", "state=done", "kind__exact=2", "queue=queue7", "prefix=asgi"]
    queries += ["prefix=unknown", "q=queue7", "q=nothing", "q=queue!x", "_facets=True", "all=", "o=1.2"]
    urls = [f"{MESSAGES}?{query}" for query in queries] + [f"{MESSAGES}1/change/"]
    queries = [
        "",
        "p=3",
        "q=queue7",
        "q=channel7",
        "q=client1",
        "q=specific.client1!x",
        "q=nothing",
        "group_name=queue7",
    ]
    urls += [f"{MEMBERSHIPS}?{query}" for query in queries] + [f"{MEMBERSHIPS}1/change/"]
    urls += [f"{PRESENCES}?{query}" for query in [*queries, "q=key7"]] + [f"{PRESENCES}1/change/"]
    for url in urls:
        watch = Watch()
        with connections["channels"].execute_wrapper(watch):
            page = page_of(visitor, url)
        assert "queue" in page
        assert len(watch.statements) <= (12 if "sent=" not in url else 30), (url, watch.statements)
        assert watch.steps < MANY_ROWS / 2, (url, watch.steps)
        for sql, plan in watch.plans.items():
            wrong = [step for step in plan if step.startswith(("SCAN", "SEARCH")) and not BOUNDED.match(step)]
            assert not wrong, (url, sql, plan)


def test_a_list_reads_no_long_payloads(visitor: Client) -> None:
    add(payload=msgpack.packb({"text": "x" * 100_000}))
    watch = Watch()
    with connections["channels"].execute_wrapper(watch):
        page_of(visitor, MESSAGES)
    bare = [sql.replace('LENGTH("channels_sqlite_message"."payload")', "") for sql in watch.statements]
    assert not [sql for sql in bare if re.search(r'(?<!THEN )"channels_sqlite_message"."payload"', sql)]


# Without the admin


def test_neither_the_package_nor_its_app_needs_the_admin() -> None:
    script = """
        import sys
        import channels_sqlite, channels_sqlite.layers
        assert not [name for name in sys.modules if name.startswith("channels_sqlite.admin")]
        assert "channels_sqlite.models" not in sys.modules
        import django
        from django.conf import settings
        settings.configure(INSTALLED_APPS=["channels", "channels_sqlite"])
        django.setup()
        assert "django.contrib.admin" not in sys.modules
        assert not [name for name in sys.modules if name.startswith("channels_sqlite.admin")]
    """
    command = [sys.executable, "-c", dedent(script)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr


# What is to be sent later


def plan(**values: Any) -> Scheduled:
    """A message that is to be sent in an hour."""
    now = time.time()
    defaults = {
        "prefix": "asgi",
        "kind": Kind.NORMAL,
        "name": "jobs",
        "created_at": now,
        "due_at": now + 3600,
        "expiry_s": 90,
        "tries": 0,
        "tried_at": 0,
        "payload": msgpack.packb({"type": "job.do"}),
    }
    return Scheduled.objects.using("channels").create(**{**defaults, **values})


def test_what_is_to_be_sent_later_is_shown_and_decoded(visitor: Client) -> None:
    async def use() -> None:
        layer = SqliteChannelLayer(symmetric_encryption_keys=[KEY])
        await layer.group_send_later("room", {"type": "to.all"}, delay=7200, exclude="jobs", expiry=5)
        await layer.close()

    with layers({"symmetric_encryption_keys": [KEY]}):
        asyncio.run(use())
        [row] = rows_of(visitor, SCHEDULED)
        assert re.search(r"1 room group .* in 2.0.h waits for its time \{'type': 'to.all'\} asgi", row)
        page = text_of(visitor, f"{SCHEDULED}1/change/")
        assert "Without: jobs" in page
        assert "5 s" in page


def test_what_is_to_be_sent_later_is_found_by_name_and_state(visitor: Client) -> None:
    plan()
    plan(name="mails", tries=2, due_at=time.time() - 5)
    assert len(rows_of(visitor, SCHEDULED)) == 2
    [held_up] = rows_of(visitor, f"{SCHEDULED}?held_up=1")
    assert "held up: the channel is full" in held_up
    [waits] = rows_of(visitor, f"{SCHEDULED}?held_up=0")
    assert "waits for its time" in waits
    [named] = rows_of(visitor, f"{SCHEDULED}?q=mail")
    assert "mails" in named
    assert len(rows_of(visitor, f"{SCHEDULED}?name=jobs")) == 1


def test_times_that_no_calendar_has_are_shown(visitor: Client) -> None:
    row = plan(due_at=1e300, expiry_s=1e300)
    assert "after the year 9999" in text_of(visitor, f"{SCHEDULED}{row.pk}/change/")
    assert "after the year 9999" in text_of(visitor, f"{MESSAGES}{add(expires_at=1e300).pk}/change/")


def test_nothing_that_is_to_be_sent_later_can_be_changed(visitor: Client) -> None:
    row = plan()
    assert visitor.get(f"{SCHEDULED}add/").status_code == 403
    assert visitor.post(f"{SCHEDULED}{row.pk}/delete/").status_code == 403
    assert visitor.post(f"{SCHEDULED}{row.pk}/change/", {"name": "other"}).status_code == 403


def test_whom_a_broadcast_leaves_out_is_shown(visitor: Client) -> None:
    add(kind=Kind.GROUP, state=State.LOGGED, queue="room", local="a.b!c jobs")
    [row] = rows_of(visitor, MESSAGES)
    assert "room without a.b!c jobs" in row


def test_what_is_kept_of_a_group_is_shown_and_found(visitor: Client) -> None:
    add(kind=Kind.KEPT, state=State.LOGGED, queue="room.1", local="a.b!c", payload=msgpack.packb({"type": "kept"}))
    add(kind=Kind.KEPT, state=State.DONE, queue="room.1", payload=msgpack.packb({"type": "over"}))
    add(kind=Kind.NORMAL, state=State.DONE, local="@1", payload=msgpack.packb({"type": "copy"}))
    copy, over, kept = rows_of(visitor, MESSAGES)
    assert "room.1 without a.b!c group with history kept" in kept
    assert "room.1 group with history no longer kept" in over
    assert "jobs normal channel read" in copy
    for state, types in (("kept", ["kept"]), ("sent", ["over", "kept"]), ("read", ["copy"])):
        found = rows_of(visitor, f"{MESSAGES}?state={state}")
        assert [re.findall(r"'type': '(\w+)'", row) for row in found] == [[one] for one in types], state


def test_what_is_scheduled_for_a_group_says_whether_it_will_be_kept(visitor: Client) -> None:
    async def schedule() -> list[str]:
        layer = SqliteChannelLayer()
        tickets = [
            await layer.group_send_later("room", {"type": "late"}, delay=3600, history=history)
            for history in (True, False)
        ]
        tickets.append(await layer.send_later("jobs", {"type": "late"}, delay=3600))
        await layer.close()
        return [ticket.partition(".")[0] for ticket in tickets]

    shown = [page_of(visitor, f"{SCHEDULED}{number}/change/") for number in asyncio.run(schedule())]
    words = [re.findall(r'alt="(True|False|None)"', page) for page in shown]
    assert words[:2] == [["True"], ["False"]]
    assert words[2] in (["None"], [])
