"""What tests look at, or do, inside the package and other libraries: all that has an underscore goes through here."""

import asyncio
import math
import sqlite3
import threading
import time
from argparse import Action, ArgumentParser, _SubParsersAction
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from django.db.models import Manager, Model
from django.db.models.options import Options

from channels_sqlite import channel_layers, consumers
from channels_sqlite.concurrency import forks
from channels_sqlite.concurrency.background import BackgroundThread
from channels_sqlite.delivery.abandoned import Abandoned
from channels_sqlite.delivery.inbox import Inbox
from channels_sqlite.delivery.mailbox import Box
from channels_sqlite.engine.due_messages import DueMessages
from channels_sqlite.engine.engine import Engine
from channels_sqlite.engine.housekeeping import Housekeeping
from channels_sqlite.engine.seat import Seat
from channels_sqlite.engine.trimming import Trimming
from channels_sqlite.layers import SqliteChannelLayer, close_layer
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import Transaction, Write
from channels_sqlite.waking.thread_watch import ThreadWatch
from channels_sqlite.waking.wake_socket import WakeSocket

if TYPE_CHECKING:
    from channels_sqlite.tasks.worker import Worker

# Engines


def made(layer: SqliteChannelLayer) -> Engine | None:
    """What a layer has in this process, if it was used."""
    return layer._engine


def closed(engine: Engine) -> bool:
    return engine._closed


def background(engine: Engine) -> BackgroundThread:
    return engine._background


def thread_of(engine: Engine) -> threading.Thread | None:
    """The background thread, if it was started."""
    return engine._background._thread


def ticks(engine: Engine) -> bool:
    """Whether the background thread wakes up every second."""
    return engine._background._stirred.locked()


def tick(engine: Engine) -> None:
    """What the background thread does then; to be called there."""
    engine._tick_in_thread()


def end_threads(engine: Engine) -> None:
    """Have no thread started any more, as at the interpreter's end."""
    engine._background._ended = True


def housekeeping(engine: Engine) -> Housekeeping:
    """That of the file which is open."""
    assert engine._housekeeping is not None, "nothing was opened"
    return engine._housekeeping


def look_for_orphans(engine: Engine) -> None:
    """Have the next round look, which it does every few seconds otherwise."""
    housekeeping(engine)._orphans_at = 0.0


def due_messages(engine: Engine) -> DueMessages:
    return engine._due_messages


def look_no_more(engine: Engine) -> None:
    """Leave what is due to others, from now on."""
    engine._due_messages.look = _nothing  # type: ignore[method-assign]
    engine._background.on_alarm = _nothing


def _nothing() -> None:
    pass


def alarm_in_s(engine: Engine) -> float | None:
    """For when the alarm is set."""
    alarm_at = engine._background._alarm_at
    return None if alarm_at is None else alarm_at - time.monotonic()


def look_from_start(trimming: Trimming) -> None:
    """Have the next look for rows that may go begin with the first."""
    trimming._from_start_at = 0.0


def seat(engine: Engine) -> Seat:
    return engine._seat


def path_of(wake: WakeSocket) -> str:
    return wake._path


async def tell_of_socket(engine: Engine) -> None:
    """Register with the wake-up socket that there is now."""
    await engine._background.acall(engine._registration._tell_of_socket)


def connected(engine: Engine) -> int:
    """To how many readers a socket of its own is connected."""
    assert engine.wakeups._sender is not None
    return len(engine.wakeups._sender._connected)


# Delivery


def kept_for_channels(inbox: Inbox) -> list[int]:
    """How many mailboxes, channels that watch for gaps, absent consumers, channels that leave, and memberships."""
    boxes = inbox.boxes
    things = (boxes._boxes, boxes._gaps._missed, boxes._absent, inbox.leavers._leaving, inbox.members.all())
    return [len(thing) for thing in things]


def published_channels(engine: Engine) -> int:
    """With how many receivers senders multiply the capacity."""
    return engine.inbox.progress._published.channels


def box(inbox: Inbox, channel: str) -> Box:
    """That of a channel, made if need be."""
    return inbox.lines_of(channel)._box_of(channel)


def lock_of_mailboxes(inbox: Inbox) -> threading.Lock:
    return inbox.boxes._lock


def ids_to_take_in(inbox: Inbox) -> list[int]:
    """Of rows of this process's own, that wait for who holds the turn at reading."""
    return [row.id for own in inbox.log._own for row in own.rows]


def is_spreading(inbox: Inbox) -> bool:
    """Whether a broadcast has not reached all members here."""
    return inbox.log._broadcast is not None


def consumers_kept(inbox: Inbox) -> int:
    """Of how many channels without a mailbox it is known who received there."""
    return len(inbox.boxes._absent)


def kept(inbox: Inbox) -> tuple[object, ...]:
    """All that an inbox keeps for channels."""
    boxes, members = inbox.boxes, inbox.members
    return (
        dict(boxes._boxes),
        dict(boxes._queues._queues),
        dict(boxes._absent),
        set(boxes._lapsed),
        dict(members._groups),
        dict(members._counts),
    )


def sizes_of_batches(patch: Callable[[object, str, object], None]) -> list[int]:
    """How many memberships are ended at a time, from now on; `patch` is `monkeypatch.setattr`."""
    sizes: list[int] = []
    leave = Abandoned._leave

    def counted(abandoned: Abandoned, batch: Any) -> Any:  # as they are
        sizes.append(len(batch))
        return leave(abandoned, batch)

    patch(Abandoned, "_leave", counted)
    return sizes


# Storage and threads


def connection_of(store: Store) -> sqlite3.Connection:
    return store._connection


def is_offloaded(outbox: Outbox) -> bool:
    """Whether the background thread works on the queue."""
    return outbox._offloaded


def is_waiting_for_the_lock(outbox: Outbox) -> bool:
    """Whether the background thread has all that is queued in hand."""
    return outbox._offloaded and not outbox._queue


def attempt(engine: Engine, apply: Callable[[Transaction], object]) -> None:
    """Run one transaction in this thread; what it raises comes here, Ctrl-C included."""
    connections = engine.database.connections
    assert connections is not None, "nothing was opened"
    with engine.database.writing:
        engine.outbox._commits.attempt(connections.inline, connections, [Write(apply)], set())


def sleepers(watch: ThreadWatch) -> int:
    """How many threads wait."""
    return len(watch._sleepers)


def is_watched(watch: ThreadWatch) -> bool:
    """Whether one of them watches."""
    return watch._watching.locked()


def before_fork() -> None:
    forks._before()


def after_fork_in_parent() -> None:
    forks._in_parent()


def making_of_layers() -> threading.Lock:
    """The lock under which layers are made."""
    return channel_layers._making.lock


def close_connections_at_once(patch: Callable[[object, str, object], None]) -> None:
    """Have the next message to a consumer close old database connections."""
    patch(consumers._Closing, "due", -math.inf)


def renew_lock_of_making_layers() -> None:
    channel_layers._making._after_fork_in_child()


# Other libraries


def subparsers(parser: ArgumentParser) -> list[ArgumentParser]:
    found = [action for action in parser._actions if isinstance(action, _SubParsersAction)]
    return [one for action in found for one in action.choices.values()]


def actions(parser: ArgumentParser) -> list[Action]:
    return parser._actions


def manager_of(row: Model) -> Manager[Any]:
    return type(row)._default_manager


def meta_of(model: type[Model]) -> "Options[Any]":
    return model._meta


def threads_of(executor: ThreadPoolExecutor) -> set[threading.Thread]:
    return set(executor._threads)


def say_nothing_when_destroyed(task: "asyncio.Task[Any]") -> None:
    """A task that is destroyed while it waits logs that; there is no public way to have it be silent."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # as above


# Annotated by name alone: with Django 5.2 the class cannot be imported.


def fill_worker(worker: "Worker", running: int = 100) -> None:
    """As if so many tasks of each kind ran."""
    worker._crew._inside = running
    worker._on_loop = set(range(-running, 0))


def turn_of(worker: "Worker") -> float | None:
    return worker._look()


def end_worker(worker: "Worker") -> None:
    worker._crew.close()
    worker._loop.close()
    close_layer(worker._layer)
