"""What a test must not leave behind: threads, file descriptors, child processes, open SQLite connections."""

import gc
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from asgiref.sync import SyncToAsync
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

CLEAN_UP_DEADLINE_S = 5.0
POLL_INTERVAL_S = 0.02

_DESCRIPTORS = Path("/proc/self/fd")


@dataclass(frozen=True)
class Belongings:
    """What this process has at one moment, each thing by a key that is never used again, with a text about it."""

    things: dict[tuple[object, ...], str]

    def since(self, before: "Belongings") -> list[str]:
        """What is here and was not there `before`, sorted."""
        return sorted(text for key, text in self.things.items() if key not in before.things)


def belongings() -> Belongings:
    """What this process has now, without what Django, asgiref and multiprocessing keep for good."""
    handles, wrappers = _sqlite_objects()
    things: dict[tuple[object, ...], str] = {}
    things.update(_threads())
    things.update(_descriptors(wrappers))
    things.update(_processes())
    things.update(_sqlite_connections(handles, wrappers))
    return Belongings(things)


def leftovers(before: Belongings, deadline_s: float = CLEAN_UP_DEADLINE_S) -> list[str]:
    """What has come since `before` and does not go within the deadline; empty when nothing leaks."""
    found = belongings().since(before)
    if not found:
        return []
    # Objects in reference cycles keep their files until the collector comes by. That alone is no leak.
    gc.collect()
    end = time.monotonic() + deadline_s
    while found := belongings().since(before):
        if time.monotonic() >= end:
            return found
        time.sleep(POLL_INTERVAL_S)
    return []


def _threads() -> Iterator[tuple[tuple[object, ...], str]]:
    # sync_to_async keeps one thread for code without an event loop of its own.
    kept: set[threading.Thread] = getattr(SyncToAsync.single_thread_executor, "_threads", set())
    for thread in threading.enumerate():
        if thread not in kept:
            yield ("thread", thread.ident, id(thread)), f"thread {thread.name!r}"


def _descriptors(wrappers: list[BaseDatabaseWrapper]) -> Iterator[tuple[tuple[object, ...], str]]:
    kept = _django_files(wrappers)
    for entry in _DESCRIPTORS.iterdir() if _DESCRIPTORS.is_dir() else ():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            # The one that this listing itself used.
            continue
        if target.startswith(("/dev/shm/", "/dev/null")) or any(target.startswith(file) for file in kept):
            continue
        yield ("descriptor", int(entry.name), target), f"file descriptor {entry.name}: {target}"


def _processes() -> Iterator[tuple[tuple[object, ...], str]]:
    for child in psutil.Process().children(recursive=True):
        try:
            command = " ".join(child.cmdline())
            started = child.create_time()
        except psutil.NoSuchProcess:
            continue
        # multiprocessing starts these helpers once and keeps them.
        if "multiprocessing.resource_tracker" in command or "multiprocessing.forkserver" in command:
            continue
        yield ("process", child.pid, started), f"child process {child.pid}: {command or child.status()}"


def _sqlite_connections(
    handles: list[sqlite3.Connection], wrappers: list[BaseDatabaseWrapper]
) -> Iterator[tuple[tuple[object, ...], str]]:
    kept = {id(wrapper.connection) for wrapper in wrappers}
    for handle in handles:
        if id(handle) not in kept and _is_open(handle):
            yield ("sqlite", id(handle)), f"open SQLite connection {handle!r}"


def _sqlite_objects() -> tuple[list[sqlite3.Connection], list[BaseDatabaseWrapper]]:
    """All SQLite handles, and the Django connections that may keep theirs: this thread's, and `default` in any thread.

    This looks at every object there is, twice a test: comparing types takes 20 ms, isinstance() would take 100.
    """
    handle_types, wrapper_types = _family(sqlite3.Connection), _family(BaseDatabaseWrapper)
    wanted = handle_types | wrapper_types
    found = [thing for thing in gc.get_objects() if type(thing) in wanted]
    handles: list[sqlite3.Connection] = [thing for thing in found if type(thing) in handle_types]
    mine = connections.all(initialized_only=True)
    wrappers: list[BaseDatabaseWrapper] = [thing for thing in found if type(thing) in wrapper_types]
    return handles, [one for one in wrappers if one.connection and (one in mine or one.alias == DEFAULT_DB_ALIAS)]


def _family(kind: type) -> set[type]:
    """A class and all that are derived from it."""
    derived: list[type] = kind.__subclasses__()
    return {kind}.union(*map(_family, derived))


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        # Needs no lock, and is checked first for being closed, then for its thread.
        connection.total_changes  # noqa: B018
    except sqlite3.ProgrammingError as error:
        return "closed" not in str(error)
    return True


def _django_files(wrappers: list[BaseDatabaseWrapper]) -> list[str]:
    names = (str(wrapper.settings_dict["NAME"]) for wrapper in wrappers)
    return [os.path.realpath(name) for name in names if name and "memory" not in name]
