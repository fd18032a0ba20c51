"""What is in a layer's database just now, as plain data: for `manage.py channels_status`, and for monitoring."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import asdict, dataclass

from channels_sqlite import names
from channels_sqlite.ages import age_s
from channels_sqlite.channel_layers import LayerEntry
from channels_sqlite.counters import Counters, total
from channels_sqlite.options import Options
from channels_sqlite.processes.liveness import is_dead
from channels_sqlite.processes.meeting_place import MeetingPlace, existing_folders
from channels_sqlite.processes.notes import Note, living_notes
from channels_sqlite.processes.sharing import share_wal
from channels_sqlite.storage.database import Database
from channels_sqlite.storage.errors import explain
from channels_sqlite.storage.readers import ProcessRow
from channels_sqlite.storage.store import Store

__all__ = ["ChannelStatus", "GroupStatus", "LayerStatus", "PresenceStatus", "ProcessStatus", "look_at"]


@dataclass(frozen=True)
class ChannelStatus:
    """A channel on which messages wait: a normal one, or all of a process's with one prefix (up to the `!`)."""

    name: str
    waiting: int
    oldest_age_s: float


@dataclass(frozen=True)
class GroupStatus:
    """A group that has members, or of which something is kept."""

    name: str
    members: int
    kept: int  # messages of its history


@dataclass(frozen=True)
class PresenceStatus:
    """A group in which somebody is present, or that somebody watches."""

    name: str
    present: int  # keys
    watching: int  # channels that watch without being present


@dataclass(frozen=True)
class ProcessStatus:
    """A live process: one that receives, or one that only sends."""

    client: str
    pid: int  # in the process's own namespace of pids
    channels: int  # process-specific ones with a receive() waiting
    held: int  # messages that it has read and handed to nobody yet
    listening: tuple[str, ...]  # normal channels that it waits on
    uptime_s: float
    counters: Counters | None  # of the last second or older; None where it cannot write them down


@dataclass(frozen=True)
class QueueStatus:
    """One queue of tasks."""

    name: str
    backend: str  # alias in TASKS
    ready: int
    delayed: int
    running: int
    failed: int
    oldest_due_age_s: float | None  # of the task that waits longest, though it is due


@dataclass(frozen=True)
class WorkerStatus:
    """A process that runs tasks."""

    pid: int  # in the process's own namespace of pids
    queues: tuple[str, ...]
    running: int


@dataclass(frozen=True)
class LayerStatus:
    """One layer at one moment."""

    alias: str
    database: str  # alias in DATABASES
    prefix: str
    path: str  # "" in memory
    rows: int  # messages in the table, with what was read and is kept for looking back
    scheduled: int  # messages that are to be sent later
    newest_id: int  # grows by one with every row that any layer in this database writes
    database_bytes: int
    wal_bytes: int
    channels: tuple[ChannelStatus, ...]  # the fullest first
    groups: tuple[GroupStatus, ...]  # the largest first
    processes: tuple[ProcessStatus, ...]  # the eldest first
    counters: Counters  # of all these processes together
    queues: tuple[QueueStatus, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()
    presences: tuple[PresenceStatus, ...] = ()  # the largest first

    def as_json(self) -> dict[str, object]:
        """Return it as dicts, lists, numbers and strings."""
        return asdict(self)


def look_at(entry: LayerEntry) -> LayerStatus:
    """Look into the database of a layer of ours; nothing is changed, and no lock is taken.

    Raises:
        ImproperlyConfigured: the settings of the layer or of its database have faults.
        ChannelDatabaseError: the database cannot be read; the text says what to do.
    """
    options = Options.from_config(entry.config)
    database = Database(options.database)
    with closing(database.connect()) as raw:
        try:
            raw.execute("BEGIN")  # one snapshot for all
            return _look(entry.alias, options, raw)
        except sqlite3.Error as error:
            raise explain(error, database.name, database.alias) from error


def _look(alias: str, options: Options, raw: sqlite3.Connection) -> LayerStatus:
    store = Store(raw, options.prefix)
    store.probe()
    now = time.time()
    path: str = raw.execute("PRAGMA database_list").fetchone()[2]
    share_wal(path)  # made by this look, if nobody else has the database open
    space = store.free_space()
    channels = [
        ChannelStatus(name, waiting, _age(created_at, now))
        for name, waiting, created_at in (*store.waiting_channels(now), *store.unread_queues(now))
    ]
    processes = _processes(store, options.prefix, path, now)
    members, kept = dict(store.group_sizes(now)), store.kept_counts()
    groups = [GroupStatus(name, members.get(name, 0), kept.get(name, 0)) for name in {**members, **kept}]
    presences = [PresenceStatus(*row) for row in store.attendances()]
    return LayerStatus(
        alias=alias,
        database=options.database,
        prefix=options.prefix,
        path=path,
        rows=store.count_rows(),
        scheduled=store.count_scheduled(),
        newest_id=store.newest_id(),
        database_bytes=_size(path) if path else space.pages * space.page_bytes,
        wal_bytes=_size(f"{path}-wal") if path else 0,
        channels=tuple(sorted(channels, key=lambda channel: (-channel.waiting, channel.name))),
        groups=tuple(sorted(groups, key=lambda group: (-group.members, -group.kept, group.name))),
        processes=processes,
        counters=total(process.counters for process in processes if process.counters is not None),
        queues=_queues(store, now),
        workers=_workers(store, path),
        presences=tuple(sorted(presences, key=lambda one: (-one.present, -one.watching, one.name))),
    )


def _queues(store: Store, now: float) -> tuple[QueueStatus, ...]:
    return tuple(
        QueueStatus(
            name=row.queue,
            backend=row.backend,
            ready=row.ready,
            delayed=row.delayed,
            running=row.running,
            failed=row.failed,
            oldest_due_age_s=None if row.oldest_due_at is None else _age(row.oldest_due_at, now),
        )
        for row in store.queues(now)
    )


def _workers(store: Store, path: str) -> tuple[WorkerStatus, ...]:
    served: dict[str, list[str]] = defaultdict(list)
    for client, channel in store.listening():
        if channel.startswith(names.TASKS):
            served[client].append(channel.rpartition("/")[2])
    running = store.running_of()
    rows = _living([row for row in store.processes() if row.client in served], path)
    return tuple(WorkerStatus(row.pid, tuple(served[row.client]), running.get(row.client, 0)) for row in rows)


def _processes(store: Store, prefix: str, path: str, now: float) -> tuple[ProcessStatus, ...]:
    started = store.started()
    rows = _living([row for row in store.processes() if row.client in started], path)
    listening: dict[str, list[str]] = defaultdict(list)
    for client, channel in store.listening():
        if not channel.startswith(names.TASKS):
            listening[client].append(channel)
    notes = _notes(path, prefix)
    receiving = [
        ProcessStatus(
            client=row.client,
            pid=row.pid,
            channels=row.channels,
            held=row.held_in_all,
            listening=tuple(listening[row.client]),
            uptime_s=_age(started[row.client], now),
            counters=notes[row.client].counters if row.client in notes else None,
        )
        for row in rows
    ]
    only_sending = [
        ProcessStatus(
            client=note.client,
            pid=note.pid,
            channels=0,
            held=0,
            listening=(),
            uptime_s=_age(note.started_at, now),
            counters=note.counters,
        )
        for note in notes.values()
        if note.client not in started
    ]
    return tuple(sorted([*receiving, *only_sending], key=lambda process: -process.uptime_s))


def _notes(path: str, prefix: str) -> dict[str, Note]:
    """Return by client what the living processes have written down."""
    folders = existing_folders(path) if path else []
    return {note.client: note for folder in folders for note in living_notes(folder) if note.prefix == prefix}


def _living(rows: list[ProcessRow], path: str) -> list[ProcessRow]:
    """Return those that the kernel does not show to be dead."""
    place = MeetingPlace(path, make=False)
    return [row for row in rows if not is_dead(row, place)]


def _age(moment: float, now: float) -> float:
    return round(age_s(moment, now), 3)


def _size(path: str) -> int:
    """Return the size of a file, which is never opened by hand: that would drop SQLite's locks."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
