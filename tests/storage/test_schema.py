"""The schema of the migrations and the statements of the store: each is what the other expects."""

import inspect
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import call_command

from channels_sqlite.storage import (
    groups,
    history,
    messages,
    overview,
    presences,
    readers,
    scheduled,
    store,
    task_schedules,
    tasks,
)
from channels_sqlite.storage.store import Store
from tests.support import inside
from tests.support.databases import fresh_file

OURS = (
    "message",
    "membership",
    "process",
    "listener",
    "scheduled",
    "lastid",
    "historyepoch",
    "historyfloor",
    "presence",
    "queuedtask",
    "taskschedule",
)

WAITING = "channels_sqlite_waiting"
ADDRESSED = "channels_sqlite_addressed"
MEMBER = "sqlite_autoindex_channels_sqlite_membership_1"  # of the unique constraint
LISTENER = "sqlite_autoindex_channels_sqlite_listener_1"
TASK = "channels_sqlite_queuedtask"
TASK_KEY = "sqlite_autoindex_channels_sqlite_queuedtask_1"  # of the unique constraint
READY, DELAYED, RUNNING = (f"channels_sqlite_task_{state}" for state in ("ready", "delayed", "running"))
PRESENCE = "channels_sqlite_presence"
ATTENDEE = "sqlite_autoindex_channels_sqlite_presence_1"  # of the unique constraint
ATTENDANCE = "channels_sqlite_attendance"
WHEREABOUTS = "channels_sqlite_whereabouts"
PRESENCE_ENDS = "channels_sqlite_presence_ends"
ONE_ATTENDEE = r"\(client=\? AND prefix=\? AND group_name=\? AND channel=\?\)"
DUE = "channels_sqlite_due"
HELD_UP = "channels_sqlite_held_up"
KEPT = "channels_sqlite_kept"
FLOOR_OF = "sqlite_autoindex_channels_sqlite_historyfloor_1"  # of the unique constraint
BY_ROWID = "USING INTEGER PRIMARY KEY"

LARGEST_ID = [
    "SCAN CONSTANT ROW",
    "SEARCH channels_sqlite_message$",  # max() of the primary key: its end
    "SCAN channels_sqlite_lastid",  # one row
]

PLANS: dict[str, list[str]] = {
    "NEWEST_ID": LARGEST_ID,
    "SKIP_IDS": LARGEST_ID,
    "SKIP_TO": LARGEST_ID,
    "INSERT_MESSAGE": LARGEST_ID[1:],
    "COUNT_WAITING": [
        rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {WAITING} \(prefix=\? AND queue=\?\)",
    ],
    "COUNT_ADDRESSED": [
        rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {ADDRESSED} \(prefix=\? AND queue=\? AND id>\?\)",
    ],
    "CHANNELS_WITH_WAITING": [
        "SCAN json_each VIRTUAL TABLE",
        rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {WAITING} \(prefix=\? AND queue=\?\)",
    ],
    "OLDEST_WAITING": [rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {WAITING} \(prefix=\? AND queue=\?\)"],
    "CLAIM": [rf"SEARCH channels_sqlite_message {BY_ROWID}"],
    "CLAIM_AND_DELETE": [rf"SEARCH channels_sqlite_message {BY_ROWID}"],
    "UNCLAIM": [rf"SEARCH channels_sqlite_message {BY_ROWID}"],
    "NEWEST_ID_AND_REGISTERED": [
        *LARGEST_ID,
        r"SEARCH channels_sqlite_process USING (COVERING )?INDEX \w+ \(client=\?\)",
    ],
    "OLDEST_UP_TO": [rf"SEARCH channels_sqlite_message {BY_ROWID} \(rowid<\?\)"],
    "ANY_REGISTERED": ["SCAN CONSTANT ROW", "SCAN channels_sqlite_process"],  # one row for each process
    "UNREGISTERED": [
        "SCAN json_each VIRTUAL TABLE",
        r"SEARCH channels_sqlite_process USING (COVERING )?INDEX \w+ \(client=\?\)",
    ],
    "READ_LOG": [
        *LARGEST_ID,
        r"SEARCH channels_sqlite_process USING (COVERING )?INDEX \w+ \(client=\?\)",
        rf"SEARCH message {BY_ROWID} \(rowid>\? AND rowid<\?\)",
        rf"SEARCH membership USING COVERING INDEX {MEMBER} \(prefix=\? AND group_name=\? AND client=\?\)",
        rf"SEARCH presence USING COVERING INDEX {ATTENDEE} \(client=\? AND prefix=\? AND group_name=\?\)",
    ],
    "NEWEST_ID_BEFORE": ["SCAN channels_sqlite_message$"],  # from the end, where it finds the row at once
    "LEAVE": [rf"SEARCH channels_sqlite_membership USING (COVERING )?INDEX {MEMBER}"],
    "MEMBERS": [
        rf"SEARCH channels_sqlite_membership USING INDEX {MEMBER} \(prefix=\? AND group_name=\? AND client=\?\)"
    ],
    "CLIENTS_OF_GROUP": [
        "SCAN process",  # one row for each process
        rf"SEARCH membership USING COVERING INDEX {MEMBER} \(prefix=\? AND group_name=\? AND client=\?\)",
    ],
    "MEMBER": [rf"SEARCH channels_sqlite_membership USING INDEX {MEMBER}"],
    "GROUP_CHANNELS": [
        rf"SEARCH channels_sqlite_membership USING INDEX {MEMBER} \(prefix=\? AND group_name=\?\)",
        "USE TEMP B-TREE FOR ORDER BY",
    ],
    "ANY_GROUP": [
        "SCAN CONSTANT ROW",
        rf"SEARCH channels_sqlite_membership USING COVERING INDEX {MEMBER} \(prefix=\? AND group_name>\? AND",
    ],
    "LISTENERS": [rf"SEARCH channels_sqlite_listener USING COVERING INDEX {LISTENER} \(prefix=\? AND channel=\?\)"],
    "LISTENERS_OF_EMPTY": [
        rf"SEARCH listener USING COVERING INDEX {LISTENER} \(prefix=\? AND channel=\?\)",
        rf"SEARCH message USING (COVERING )?INDEX {WAITING} \(prefix=\? AND queue=\?\)",
    ],
    "UNLISTEN": [rf"SEARCH channels_sqlite_listener USING (COVERING )?INDEX {LISTENER}"],
    "PUBLISH": [r"SEARCH channels_sqlite_process USING INDEX \w+ \(client=\?\)"],
    "PROCESS": [r"SEARCH channels_sqlite_process USING INDEX \w+ \(client=\?\)"],
    "OLDEST": [rf"SEARCH channels_sqlite_message {BY_ROWID} \(rowid>\?\)"],
    "DELETE_MESSAGE": [rf"SEARCH channels_sqlite_message {BY_ROWID}"],
    "EXPIRED_WAITING": [rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {WAITING} \(prefix=\?\)"],
    "RETIRE": [rf"SEARCH channels_sqlite_message {BY_ROWID}"],
    "DELETE_MEMBERSHIP": [
        rf"SEARCH channels_sqlite_membership {BY_ROWID}",
        rf"SEARCH presence USING INDEX {ATTENDEE} {ONE_ATTENDEE}",
    ],
    "FORGET_UNREAD": [rf"SEARCH channels_sqlite_message {BY_ROWID} \(rowid>\?\)"],
    "FORGET[0]": ["SEARCH channels_sqlite_membership USING (COVERING )?INDEX channels_sqlite_membership_of"],
    "FORGET[1]": [rf"SEARCH {PRESENCE} USING (COVERING )?INDEX {ATTENDEE} \(client=\?\)"],
    "FORGET[2]": ["SCAN channels_sqlite_listener"],  # once for a dead process; few rows
    "FORGET[3]": [r"SEARCH channels_sqlite_process USING INDEX \w+ \(client=\?\)"],
    "ELDEST": ["SCAN channels_sqlite_process", "USE TEMP B-TREE FOR ORDER BY"],  # one row for each process
    "CANCEL": [rf"SEARCH channels_sqlite_scheduled {BY_ROWID}"],
    "NEXT_DUE": [rf"SEARCH channels_sqlite_scheduled USING (COVERING )?INDEX {DUE} \(prefix=\?\)"],
    "AGENDA": [
        "SCAN CONSTANT ROW",
        rf"SEARCH channels_sqlite_scheduled USING (COVERING )?INDEX {DUE} \(prefix=\?\)",
        rf"SEARCH channels_sqlite_scheduled USING (COVERING )?INDEX {HELD_UP} \(prefix=\?\)",
    ],
    "DUE": [rf"SEARCH channels_sqlite_scheduled USING INDEX {DUE} \(prefix=\? AND due_at<\?\)"],
    "IS_HELD_UP": [
        "SCAN CONSTANT ROW",
        rf"SEARCH channels_sqlite_scheduled USING (COVERING )?INDEX {HELD_UP} \(prefix=\? AND name=\?\)",
    ],
    "NEXT_HELD_UP": [rf"SEARCH channels_sqlite_scheduled USING (COVERING )?INDEX {HELD_UP} \(prefix=\? AND name>\?\)"],
    "HELD_UP": [rf"SEARCH channels_sqlite_scheduled USING INDEX {HELD_UP} \(prefix=\? AND name=\?\)"],
    "TRIED": [rf"SEARCH channels_sqlite_scheduled {BY_ROWID}"],
    "TAKE": [rf"SEARCH channels_sqlite_scheduled {BY_ROWID}"],
    "EPOCH": [r"SEARCH channels_sqlite_historyepoch USING INDEX \w+ \(prefix=\?\)"],
    "FORGET_FLOORS": [r"SEARCH channels_sqlite_historyfloor USING (COVERING )?INDEX \w+ \(prefix=\?\)"],
    "NEWEST_KEPT": [rf"SEARCH channels_sqlite_message USING INDEX {KEPT} \(prefix=\? AND queue=\? AND id>\?\)"],
    "FLOOR": [rf"SEARCH channels_sqlite_historyfloor USING INDEX {FLOOR_OF} \(prefix=\? AND group_name=\?\)"],
    "NEWEST_BEYOND": [rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {KEPT} \(prefix=\? AND queue=\?\)"],
    "OLDEST_KEPT": [rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {KEPT} \(prefix=\? AND queue=\?\)"],
    "DELETE_KEPT": [rf"SEARCH channels_sqlite_message {BY_ROWID}"],
    "KEEP_NO_LONGER": [rf"SEARCH channels_sqlite_message {BY_ROWID}"],
    "GROUPS_OF_NEW": [
        rf"SEARCH channels_sqlite_message {BY_ROWID} \(rowid>\? AND rowid<\?\)",
        "USE TEMP B-TREE FOR GROUP BY",
    ],
    "NEXT_GROUPS": [
        "SCAN CONSTANT ROW",
        "SCAN found",  # each row makes the next one
        "SCAN found",
        rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {KEPT} \(prefix=\? AND queue>\?\)",
        rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {KEPT} \(prefix=\? AND queue>\?\)",
        rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {KEPT} \(prefix=\? AND queue=\?\)",
    ],
    "KEPT_COUNTS": [rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {KEPT} \(prefix=\?\)"],
    "COUNT_FLOORS": [r"SEARCH channels_sqlite_historyfloor USING (COVERING )?INDEX \w+ \(prefix=\?\)"],
    "NEXT_FLOOR": [r"SEARCH channels_sqlite_historyfloor USING (COVERING )?INDEX channels_sqlite_floors \(prefix=\?\)"],
    "DROP_FLOORS": [
        r"SEARCH channels_sqlite_historyfloor USING (COVERING )?INDEX channels_sqlite_floors \(prefix=\? AND floor<\?\)"
    ],
    "RAISE_FIRST": [r"SEARCH channels_sqlite_historyepoch USING INDEX \w+ \(prefix=\?\)"],
    "WAITING_CHANNELS": [
        rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {WAITING} \(prefix=\?\)",
        rf"SEARCH channels_sqlite_message {BY_ROWID}",
    ],
    "UNREAD_QUEUES": [
        "SCAN process",  # one row for each process
        rf"SEARCH message {BY_ROWID} \(rowid>\?\)",
        "USE TEMP B-TREE FOR GROUP BY",
    ],
    "GROUP_SIZES": [rf"SEARCH channels_sqlite_membership USING INDEX {MEMBER} \(prefix=\?\)"],
    "LISTENING": [
        rf"SEARCH channels_sqlite_listener USING COVERING INDEX {LISTENER} \(prefix=\?\)",
        "USE TEMP B-TREE FOR ORDER BY",
    ],
    "UNIQUE": [
        rf"SEARCH {TASK} USING INDEX channels_sqlite_task_unique \(prefix=\? AND backend=\? AND unique_key=\?\)",
    ],
    "BY_KEY": [rf"SEARCH {TASK} USING INDEX {TASK_KEY} \(key=\?\)"],
    "PROMOTE": [
        rf"SEARCH {TASK} {BY_ROWID}",
        rf"SEARCH {TASK} USING (COVERING )?INDEX {DELAYED} \(prefix=\? AND backend=\? AND due_at<\?\)",
    ],
    "NEXT_DELAYED": [rf"SEARCH {TASK} USING (COVERING )?INDEX {DELAYED} \(prefix=\? AND backend=\?\)"],
    # In the order of the index: nothing is sorted.
    "FIRST_READY": [
        rf"SEARCH {TASK} USING (COVERING )?INDEX {READY} \(prefix=\? AND backend=\? AND queue=\? AND is_async=\?\)"
    ],
    "COUNT_RUNNING": [rf"SEARCH {TASK} USING (COVERING )?INDEX {RUNNING} \(prefix=\? AND backend=\? AND queue=\?\)"],
    "COUNT_DUE": [
        "SCAN CONSTANT ROW",
        rf"SEARCH {TASK} USING (COVERING )?INDEX {READY} \(prefix=\? AND backend=\? AND queue=\?\)",
        rf"SEARCH {TASK} USING (COVERING )?INDEX {DELAYED} \(prefix=\? AND backend=\? AND due_at<\?\)",
    ],
    "CLAIM_TASKS": [rf"SEARCH {TASK} {BY_ROWID}", "SCAN json_each VIRTUAL TABLE"],
    "FINISH": [rf"SEARCH {TASK} {BY_ROWID}"],
    "RELEASE": [rf"SEARCH {TASK} {BY_ROWID}", rf"SCAN {TASK} USING (COVERING )?INDEX {RUNNING}"],  # what runs: few rows
    "WORKERS_OF": [rf"SEARCH channels_sqlite_listener USING COVERING INDEX {LISTENER} \(prefix=\? AND channel=\?\)"],
    "ANY_UNTOLD": [
        "SCAN CONSTANT ROW",
        rf"SEARCH {TASK} USING (COVERING )?INDEX channels_sqlite_task_untold \(prefix=\? AND backend=\?\)",
    ],
    "TAKE_UNTOLD": [
        rf"SEARCH {TASK} {BY_ROWID}",
        rf"SEARCH {TASK} USING (COVERING )?INDEX channels_sqlite_task_untold \(prefix=\? AND backend=\?\)",
    ],
    "PROGRESS": [rf"SEARCH {TASK} {BY_ROWID}"],
    "CANCEL_TASK": [rf"SEARCH {TASK} USING INDEX {TASK_KEY} \(key=\?\)"],
    "RETRY": [rf"SEARCH {TASK} USING INDEX {TASK_KEY} \(key=\?\)"],
    "FINISHED": [rf"SEARCH {TASK} USING (COVERING )?INDEX channels_sqlite_task_finished \(kept_until"],
    "DELETE_FINISHED": [rf"SEARCH {TASK} {BY_ROWID}", "SCAN json_each VIRTUAL TABLE"],
    "RUNNING_OF": [rf"SEARCH {TASK} USING (COVERING )?INDEX {RUNNING} \(prefix=\?\)", "USE TEMP B-TREE FOR GROUP BY"],
    "PRESENCE": [rf"SEARCH {PRESENCE} USING INDEX {ATTENDEE} {ONE_ATTENDEE}"],
    "ATTEND": [rf"SEARCH {PRESENCE} USING INDEX ({ATTENDANCE}|{WHEREABOUTS}) \(prefix=\? AND \w+=\? AND \w+=\?\)"],
    "UPDATE_PRESENCE": [rf"SEARCH {PRESENCE} USING INDEX {ATTENDEE} {ONE_ATTENDEE}"],
    "HEARD": [rf"SEARCH {PRESENCE} USING INDEX {ATTENDEE} {ONE_ATTENDEE}"],
    "PROLONG": [rf"SEARCH {PRESENCE} USING INDEX {ATTENDEE} {ONE_ATTENDEE}"],
    "DEPART": [rf"SEARCH {PRESENCE} USING (COVERING )?INDEX {ATTENDEE} {ONE_ATTENDEE}"],
    "INFO_OF": [rf"SEARCH {PRESENCE} USING INDEX {ATTENDANCE} \(prefix=\? AND group_name=\? AND key=\?\)"],
    "WHO": [rf"SEARCH {PRESENCE} USING INDEX {ATTENDANCE} \(prefix=\? AND group_name=\? AND key>\?\)"],
    "COUNT_PRESENT": [
        rf"SEARCH {PRESENCE} USING COVERING INDEX {ATTENDANCE} \(prefix=\? AND group_name=\? AND key>\?\)"
    ],
    "WHEREABOUTS": [rf"SEARCH {PRESENCE} USING COVERING INDEX {WHEREABOUTS} \(prefix=\? AND key=\?\)"],
    "CLIENTS_THAT_HEAR": [
        "SCAN process",  # one row for each process
        rf"SEARCH presence USING COVERING INDEX {ATTENDEE} \(client=\? AND prefix=\? AND group_name=\?\)",
    ],
    "NORMAL_THAT_HEAR": [
        rf"SEARCH {PRESENCE} USING COVERING INDEX {ATTENDEE} \(client=\? AND prefix=\? AND group_name=\?\)"
    ],
    "ALL_NORMAL_THAT_HEAR": [rf"SEARCH {PRESENCE} USING COVERING INDEX {ATTENDEE} \(client=\? AND prefix=\?\)"],
    "GROUPS_ATTENDED": [rf"SEARCH {PRESENCE} USING COVERING INDEX {ATTENDEE} \(client=\?\)"],
    "ATTENDEES_OF": [rf"SEARCH {PRESENCE} USING INDEX {ATTENDEE} \(client=\? AND prefix=\? AND group_name=\?\)"],
    "EXPIRED_PRESENCES": [rf"SEARCH {PRESENCE} USING INDEX {PRESENCE_ENDS} \(prefix=\? AND expires_at<\?\)"],
    "NEXT_PRESENCE_ENDS": [rf"SEARCH {PRESENCE} USING COVERING INDEX {PRESENCE_ENDS} \(prefix=\?"],
    "COUNT_TOLD": [rf"SEARCH channels_sqlite_message USING (COVERING )?INDEX {WAITING} \(prefix=\? AND queue=\?\)"],
    "TOLD": [rf"SEARCH channels_sqlite_message USING INDEX {WAITING} \(prefix=\? AND queue=\?\)"],
    "WITHDRAW": [rf"SEARCH channels_sqlite_message USING INDEX {WAITING} \(prefix=\? AND queue=\?\)"],
    "WITHDRAW_ONE": [rf"SEARCH channels_sqlite_message {BY_ROWID}"],
    "TASK_SCHEDULE": [r"SEARCH channels_sqlite_taskschedule USING INDEX \w+ \(prefix=\? AND backend=\? AND name=\?\)"],
}
"""What SQLite's planner says of each statement that runs while messages flow, each line as a regular expression."""

NOT_PLANNED = {
    "BEGIN",
    "LOCK",
    "DATA_VERSION",
    "REINSERT",
    "JOIN",
    "LISTEN",
    "REGISTER",
    "PROCESSES",
    "STRANGERS",
    "EXPIRED_MEMBERSHIPS",
    "FLUSH[0]",
    "FLUSH[1]",
    "LOWEST_CURSOR",
    "TOUCH_LAST",
    "COUNT_ROWS",
    "STARTED",
    "FREE_SPACE",
    "VACUUM_STEP",
    "INCREMENTAL_FROM_NOW_ON",
    "SPARE_MEMORY",
    "VACUUM",
    "PROBES[0]",
    "PROBES[1]",
    "PROBES[2]",
    "PROBES[3]",
    "PROBES[4]",
    "PROBES[5]",
    "PROBES[6]",
    "PROBES[7]",
    "PROBES[8]",
    "PROBES[9]",
    "PROBES[10]",
    "WATCH",
    "RESTORE",
    "ALL_PRESENT",
    "ATTENDANCES",
    "BEGIN_EPOCH",
    "FORGET_EPOCHS[0]",
    "FORGET_EPOCHS[1]",
    "RAISE_FLOOR",
    "FILE",
    "INSERT",
    "SET_TASK_SCHEDULE",
    "FLUSH_TASKS",
    "QUEUES",
    "LIST",
    "FLUSH[2]",
    "FLUSH[3]",
    "FLUSH[4]",
    "SCHEDULE",
    "COUNT_SCHEDULED",
}
"""Statements that search nothing, or are meant to look at everything."""


def all_statements() -> dict[str, str]:
    """Every statement of the store by its name, those of a tuple with their index."""
    found: dict[str, str] = {}
    modules = (messages, groups, history, presences, readers, scheduled, overview, tasks, task_schedules, store)
    for name, value in [item for module in modules for item in vars(module).items()]:
        if not name.isupper() or name.startswith("_"):
            continue
        if isinstance(value, str):
            found[name] = value
        elif isinstance(value, tuple) and all(isinstance(item, str) for item in value):
            found.update({f"{name}[{index}]": item for index, item in enumerate(value)})
    return found


@pytest.fixture
def connection(no_leaks: None, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(fresh_file(tmp_path), isolation_level=None)) as connection:
        yield connection


def fill(connection: sqlite3.Connection) -> None:
    """What a busy day leaves: messages of all kinds, most of them read, members, processes. The planner knows it."""
    connection.executescript(
        """
        BEGIN;
        INSERT INTO channels_sqlite_message
            (prefix, kind, state, queue, local, client, created_at, expires_at, payload)
        WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < 20000)
        SELECT 'asgi', n % 3, CASE WHEN n % 3 = 0 AND n > 19000 THEN 0 ELSE 2 END, 'queue' || (n % 50),
            CASE n % 3 WHEN 1 THEN 'local' END, CASE n % 3 WHEN 1 THEN 'client' || (n % 4) END, n, n + 60, x'80'
        FROM counter;
        UPDATE channels_sqlite_message SET kind = 6 WHERE kind = 2 AND id % 2;
        INSERT INTO channels_sqlite_historyfloor (prefix, group_name, floor)
        SELECT DISTINCT 'asgi', queue, 1 FROM channels_sqlite_message;
        INSERT INTO channels_sqlite_membership (prefix, group_name, client, channel, joined_id, expires_at)
        WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < 5000)
        SELECT 'asgi', 'queue' || (n % 50), 'client' || (n % 4), 'channel' || n, 0, n + 86400 FROM counter;
        INSERT INTO channels_sqlite_process
            (client, prefix, pid, machine, address, cursor, held, channels, started_at)
        WITH RECURSIVE counter(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counter WHERE n < 3)
        SELECT 'client' || n, 'asgi', n, '', '', 0, '{}', 0, 0 FROM counter;
        INSERT INTO channels_sqlite_listener (prefix, channel, client)
        SELECT DISTINCT 'asgi', queue, 'client1' FROM channels_sqlite_message WHERE kind = 0;
        INSERT INTO channels_sqlite_queuedtask
            (key, prefix, backend, queue, is_async, state, priority, due_at, path, payload, unique_key, enqueued_at,
             failure_retention, kept_until, worker, worker_ids, attempts, failures, crashes, max_crashes, last_start,
             ended, untold)
        WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < 20000)
        SELECT 'key' || n, 'asgi', 'default', 'queue' || (n % 5), n % 2,
            CASE WHEN n < 10 THEN 2 WHEN n % 4 = 2 THEN 4 ELSE n % 4 END, n % 3, n, 'a.b', x'80',
            CASE n % 7 WHEN 1 THEN 'unique' || n END, n, 9, CASE WHEN n % 4 > 1 THEN n END,
            CASE WHEN n < 10 THEN 'client1' END, '[]', 0, 0, 0, 3, 0, 0, 0
        FROM counter;
        INSERT INTO channels_sqlite_scheduled
            (prefix, kind, name, excluded, token, created_at, due_at, expiry_s, tries, tried_at, payload)
        WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < 5000)
        SELECT 'asgi', 0, 'queue' || (n % 50), '', '', 0, n, 60, n < 500, 0, x'80' FROM counter;
        INSERT INTO channels_sqlite_presence
            (prefix, group_name, client, channel, key, turn, since, heard_id, expires_at, info)
        WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < 5000)
        SELECT 'asgi', 'queue' || (n % 50), 'client' || (n % 4), 'channel' || n,
            CASE WHEN n % 10 THEN 'key' || (n / 2) ELSE '' END, 1, 0, 0, n + 86400, x'80'
        FROM counter;
        COMMIT;
        ANALYZE;
        """
    )


def parameters_for(statement: str) -> list[str]:
    """As many values as the statement wants."""
    return ["1"] * statement.count("?")


def plan(connection: sqlite3.Connection, statement: str) -> list[str]:
    """What the planner will do, one line a step; a join for EXISTS (SQLite 3.51) reads like the subquery it was."""
    steps = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters_for(statement))
    return [row[3].replace(" EXISTS USING ", " USING ") for row in steps]


@pytest.mark.parametrize("filled", [False, True], ids=["in an empty file", "in a full file"])
def test_every_statement_uses_its_index(connection: sqlite3.Connection, filled: bool) -> None:
    if filled:
        fill(connection)
    known = all_statements()
    wrong: dict[str, list[str]] = {}
    for name, expected in PLANS.items():
        steps = plan(connection, known[name])
        looking = [step for step in steps if re.match(r"SCAN (?!\(subquery)|SEARCH|USE TEMP", step)]
        if len(looking) != len(expected) or not all(
            any(re.match(pattern, step) for step in looking) for pattern in expected
        ):
            wrong[name] = steps
    assert not wrong


@pytest.mark.parametrize(
    "name", ["COUNT_WAITING", "COUNT_ADDRESSED", "CHANNELS_WITH_WAITING", "EXPIRED_WAITING", "COUNT_TOLD"]
)
def test_counting_and_looking_read_no_rows(connection: sqlite3.Connection, name: str) -> None:
    statement = all_statements()[name]
    root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'channels_sqlite_message'").fetchone()
    # https://www.sqlite.org/opcode.html: OpenRead P1 is a cursor on the root page P2, Column P1 reads from one.
    steps = connection.execute(f"EXPLAIN {statement}", parameters_for(statement)).fetchall()
    rows = {p1 for _, opcode, p1, p2, *_ in steps if opcode == "OpenRead" and p2 == root[0]}
    assert not [step for step in steps if step[1] == "Column" and step[2] in rows]


def test_placeholders_are_plain() -> None:
    """sqlite3 of Python 3.12.0 to 3.12.3 takes `?1` with a sequence for a named one, and warns at every statement."""
    assert [name for name, sql in all_statements().items() if re.search(r"\?\d|[:@$]\w", sql)] == []


def test_every_statement_is_judged_here() -> None:
    assert set(all_statements()) == set(PLANS) | NOT_PLANNED


def test_every_statement_is_used_by_the_store() -> None:
    source = "".join(inspect.getsource(one) for one in Store.__mro__ if one is not object)
    unused = {name.partition("[")[0] for name in all_statements()} - set(re.findall(r"\b[A-Z][A-Z_]+\b", source))
    assert unused == set()


def test_every_index_is_used_by_a_statement(connection: sqlite3.Connection) -> None:
    indexes = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name LIKE 'channels_sqlite_%'"
    ).fetchall()
    steps = " ".join(step for statement in all_statements().values() for step in plan(connection, statement))
    # The primary key of processes is text, and has an index for it; some backends add one for LIKE.
    unused = {name for (name,) in indexes if name not in steps and not name.startswith("sqlite_autoindex_")}
    assert unused == set()


@pytest.mark.parametrize("table", OURS)
def test_the_store_knows_exactly_the_columns_of_the_migrations(connection: sqlite3.Connection, table: str) -> None:
    columns = {row[1] for row in connection.execute(f"PRAGMA table_info(channels_sqlite_{table})")}
    probes = [" ".join(probe.split()) for probe in store.PROBES]
    probe = next(probe for probe in probes if f"FROM channels_sqlite_{table} " in probe)
    assert set(probe.removeprefix("SELECT ").partition(" FROM ")[0].split(", ")) == columns
    model = apps.get_model("channels_sqlite", table)
    assert {field.column for field in inside.meta_of(model).concrete_fields} == columns


def test_ids_of_what_is_scheduled_are_never_used_twice(connection: sqlite3.Connection) -> None:
    (definition,) = connection.execute(
        "SELECT sql FROM sqlite_master WHERE name = 'channels_sqlite_scheduled'"
    ).fetchone()
    assert "AUTOINCREMENT" in definition


def test_the_payload_is_the_last_column(connection: sqlite3.Connection) -> None:
    # What stands before it is read without the overflow pages of a large message; the id is not part of the row
    # (https://www.sqlite.org/lang_createtable.html#rowid).
    columns = [row[1] for row in connection.execute("PRAGMA table_info(channels_sqlite_message)") if row[1] != "id"]
    assert columns[-1] == "payload"


def test_the_id_of_a_message_is_its_place_in_the_table(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO channels_sqlite_message (id, prefix, kind, state, queue, created_at, expires_at, payload)"
        " VALUES (7, '', 0, 0, '', 0, 0, x'')"
    )
    assert connection.execute("SELECT rowid FROM channels_sqlite_message").fetchall() == [(7,)]


@pytest.mark.django_db(databases=["default", "channels"])
def test_the_migrations_are_those_of_the_models() -> None:
    call_command("makemigrations", "channels_sqlite", check=True, dry_run=True, verbosity=0)
