"""The tasks of one TASKS entry in the database of one layer: what each operation writes, and telling of it.

Every operation is a function of the engine and then of a transaction, so that the caller chooses how it runs: in a
thread, on an event loop, or inside the transaction that a thread has open on the layer's own database.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Any, NamedTuple, TypeVar

from django.tasks import TaskResultStatus
from django.utils.crypto import get_random_string

from channels_sqlite.codec import UndecodableError
from channels_sqlite.engine.engine import Engine
from channels_sqlite.kinds import TaskState
from channels_sqlite.layers import SqliteChannelLayer, codec_of, engine_of
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.tasks import NewTask, Outcome, TaskRow
from channels_sqlite.storage.transactions import Transaction
from channels_sqlite.sync.own import SqliteBlocking
from channels_sqlite.tasks import payloads
from channels_sqlite.tasks.context import Progress
from channels_sqlite.tasks.options import TaskOptions
from channels_sqlite.tasks.results import AnyTask, status_of

__all__ = ["Looked", "TaskQueue", "group_of"]

T = TypeVar("T")

Operation = Callable[[Engine], Callable[[Transaction], T]]
"""What is written, as a function of the engine and then of a transaction."""

ALL_GROUPS = ("task.", "task/")  # those of all tasks are in this range
PROMOTED_AT_ONCE = 500  # delayed tasks made ready in one transaction: 5 ms


class Looked(NamedTuple):
    """What a worker saw without a lock."""

    ready: bool  # something that it might claim, or make ready first
    waiting: bool  # something is due, be it for a worker that has room
    untold: bool  # somebody must be told of tasks that were taken from dead workers
    next_due: float | None  # seconds since 1970


def group_of(key: str) -> str:
    """Return the group that is told of a task's changes."""
    return f"task.{key}"


class TaskQueue:
    """The tasks of TASKS[alias]."""

    def __init__(self, layer: SqliteChannelLayer, alias: str, options: TaskOptions) -> None:
        self.layer = layer
        self.alias = alias
        self.options = options
        self.codec = codec_of(layer)
        self._blocking = SqliteBlocking(layer)

    # How operations run

    def write(self, operation: Operation[T]) -> T:
        """Write, in a thread; in its open transaction on the layer's own database, with that."""
        return self._blocking.write(operation)

    async def awrite(self, operation: Operation[T]) -> T:
        """Write, on an event loop."""
        engine = engine_of(self.layer)
        return await engine.outbox.write(operation(engine))

    def read(self, query: Callable[[Store], T]) -> T:
        """Return what `query` reads, which is never None, in a thread."""
        return self._blocking.read(query)

    async def aread(self, query: Callable[[Store], T]) -> T:
        """Likewise, on an event loop."""
        engine = engine_of(self.layer)
        await engine.ready()
        return await engine.inbox.reader.aread(query)

    # Enqueueing

    def prepare(self, task: AnyTask, args: Sequence[object], kwargs: Mapping[str, object]) -> NewTask:
        """Make a row of a task; errors as `payloads.encode`."""
        return NewTask(
            key=get_random_string(32),
            backend=self.alias,
            queue=task.queue_name,
            is_async=iscoroutinefunction(task.func),
            priority=int(task.priority),
            path=task.module_path,
            payload=payloads.encode(self.codec, payloads.arguments(args, kwargs)),
            unique_key=getattr(task, "unique", None),
            run_after=None if task.run_after is None else task.run_after.timestamp(),
            failure_retention=self.options.failure_retention,
            max_crashes=self.options.crash_attempts,
        )

    def enqueue(self, new: Sequence[NewTask]) -> Operation[list[tuple[TaskRow, bool]]]:
        """Enqueue in one transaction; each with whether it is new, for of a unique one there may be another."""

        def operation(_: Engine) -> Callable[[Transaction], list[tuple[TaskRow, bool]]]:
            return lambda transaction: [self._enqueue_one(transaction, one) for one in new]

        return operation

    def _enqueue_one(self, transaction: Transaction, new: NewTask) -> tuple[TaskRow, bool]:
        store = transaction.store
        if new.unique_key is not None:
            waiting = store.waiting_with(self.alias, new.unique_key)
            if waiting is not None:
                return waiting, False
        store.insert_task(new, transaction.now)
        transaction.wake.update(store.workers_of(self.alias, new.queue))
        row = store.task(self.alias, new.key)
        if row is None:
            raise LookupError(f"task {new.key!r} is not where it was just written")
        return row, True

    # What a worker does

    def look(self, queues: Sequence[str], kinds: Sequence[bool]) -> Callable[[Store], Looked]:
        """Look for what a worker may do; `kinds`: whether coroutine tasks (True), others (False), or both."""

        def query(store: Store) -> Looked:
            now = time.time()
            next_due = store.next_delayed(self.alias)
            due = next_due is not None and next_due <= now
            there = {
                is_async: any(store.first_ready(self.alias, queue, is_async=is_async, limit=1) for queue in queues)
                for is_async in (False, True)
            }
            return Looked(
                due or any(there[kind] for kind in kinds),
                due or any(there.values()),
                store.any_untold(self.alias),
                next_due,
            )

        return query

    def claim(
        self, queues: Sequence[str], room: Mapping[bool, int], most: int | None = None
    ) -> Operation[list[TaskRow] | None]:
        """Claim what comes first, as much as there is room for: `{is_async: how many}`, and not more than `most`.

        None: look again. More is due than one transaction makes ready, so that nobody knows yet what comes first; or
        somebody must be told first of tasks that were taken from dead workers.
        """

        def operation(engine: Engine) -> Callable[[Transaction], list[TaskRow] | None]:
            def apply(transaction: Transaction) -> list[TaskRow] | None:
                store = transaction.store
                if (
                    store.any_untold(self.alias)
                    or store.promote(self.alias, transaction.now, PROMOTED_AT_ONCE) == PROMOTED_AT_ONCE
                ):
                    return None
                chosen = self._choose(store, queues, room)
                rows = store.claim_tasks(chosen[:most], engine.client, transaction.now)
                self._tell_statuses(engine, transaction, rows)
                return rows

            return apply

        return operation

    def _choose(self, store: Store, queues: Sequence[str], room: Mapping[bool, int]) -> list[int]:
        left = dict(room)
        candidates: list[tuple[int, float, int, str, bool]] = []
        allowed: dict[str, int] = {}
        for queue in queues:
            limit = self.options.limits.get(queue)
            if limit is not None:
                allowed[queue] = limit - store.count_running(self.alias, queue)
            for is_async, count in room.items():
                most = min(count, allowed.get(queue, count))
                if most > 0:
                    candidates.extend(
                        (-priority, due_at, row_id, queue, is_async)
                        for priority, due_at, row_id in store.first_ready(
                            self.alias, queue, is_async=is_async, limit=most
                        )
                    )
        chosen = []
        for _, _, row_id, queue, is_async in sorted(candidates):
            if left[is_async] > 0 and allowed.get(queue, 1) > 0:
                left[is_async] -= 1
                if queue in allowed:
                    allowed[queue] -= 1
                chosen.append(row_id)
        return chosen

    def finish(self, row: TaskRow, outcome: Outcome) -> Operation[TaskRow | None]:
        """Write what became of an attempt; None: it was taken from this worker, and nothing is written."""

        def operation(engine: Engine) -> Callable[[Transaction], TaskRow | None]:
            def apply(transaction: Transaction) -> TaskRow | None:
                finished = self._finish_one(transaction, row, outcome)
                if finished is not None:
                    self._tell_status(engine, transaction, finished)
                return finished

            return apply

        return operation

    def _finish_one(self, transaction: Transaction, row: TaskRow, outcome: Outcome) -> TaskRow | None:
        finished = transaction.store.finish_task(row, outcome, transaction.now)
        if finished is not None and (row.queue in self.options.limits or outcome.due_at is not None):
            transaction.wake.update(transaction.store.workers_of(self.alias, row.queue))
        return finished

    def finish_and_claim(
        self,
        ends: Sequence[tuple[TaskRow, Outcome]],
        queues: Sequence[str],
        room: Mapping[bool, int],
        most: int | None = None,
    ) -> Operation[tuple[list[TaskRow | None], list[TaskRow] | None]]:
        """Write what became of several attempts, and claim what comes next in their place, in one transaction."""
        claim = self.claim(queues, room, most)

        def operation(engine: Engine) -> Callable[[Transaction], tuple[list[TaskRow | None], list[TaskRow] | None]]:
            def apply(transaction: Transaction) -> tuple[list[TaskRow | None], list[TaskRow] | None]:
                finished = [self._finish_one(transaction, row, outcome) for row, outcome in ends]
                self._tell_statuses(engine, transaction, [row for row in finished if row is not None])
                return finished, claim(engine)(transaction) if any(room.values()) else []

            return apply

        return operation

    def take_untold(self) -> Operation[list[TaskRow]]:
        """Tell of what was taken from dead workers; returns the rows."""

        def operation(engine: Engine) -> Callable[[Transaction], list[TaskRow]]:
            def apply(transaction: Transaction) -> list[TaskRow]:
                rows = transaction.store.take_untold(self.alias)
                for row in rows:
                    self._tell_status(engine, transaction, row)
                return rows

            return apply

        return operation

    # Progress

    def set_progress(self, row: TaskRow, progress: Progress) -> Operation[None]:
        """Store how far an attempt has come, and tell of it."""
        data = payloads.encode(self.codec, [progress.done, progress.total, progress.note])

        def operation(engine: Engine) -> Callable[[Transaction], None]:
            def apply(transaction: Transaction) -> None:
                if transaction.store.set_progress(row, data):
                    self._tell(
                        engine,
                        transaction,
                        row.key,
                        {
                            "type": "task.progress",
                            "id": row.key,
                            "done": progress.done,
                            "total": progress.total,
                            "note": progress.note,
                        },
                    )

            return apply

        return operation

    def progress(self, row: TaskRow) -> Progress | None:
        """Return what was stored."""
        if row.progress is None:
            return None
        try:
            done, total, note = payloads.decode(self.codec, row.progress)
        except UndecodableError:
            return None
        return Progress(done, total, note)

    # By hand

    def cancel(self, key: str) -> Operation[TaskRow | None]:
        """Fail a task that has not started; None where it has, or there is none."""
        return self._change(lambda store, now: store.cancel_task(self.alias, key, now))

    def retry(self, key: str) -> Operation[TaskRow | None]:
        """Have a failed task start once more; None where it has not failed, or there is none."""
        return self._change(lambda store, now: store.retry_task(self.alias, key, now))

    def _change(self, change: Callable[[Store, float], TaskRow | None]) -> Operation[TaskRow | None]:
        def operation(engine: Engine) -> Callable[[Transaction], TaskRow | None]:
            def apply(transaction: Transaction) -> TaskRow | None:
                row = change(transaction.store, transaction.now)
                if row is not None:
                    self._tell_status(engine, transaction, row)
                    transaction.wake.update(transaction.store.workers_of(self.alias, row.queue))
                return row

            return apply

        return operation

    # Telling

    def _tell_status(self, engine: Engine, transaction: Transaction, row: TaskRow) -> None:
        status: TaskResultStatus = status_of(row)
        self._tell(engine, transaction, row.key, {"type": "task.status", "id": row.key, "status": status.value})

    def _tell_statuses(self, engine: Engine, transaction: Transaction, rows: Sequence[TaskRow]) -> None:
        if rows and transaction.store.any_group(*ALL_GROUPS):
            for row in rows:
                self._tell_status(engine, transaction, row)

    def _tell(self, engine: Engine, transaction: Transaction, key: str, message: Mapping[str, object]) -> None:
        group = group_of(key)
        if transaction.store.group_channels(group, transaction.now):  # mostly nobody listens
            engine.operations.group_send(group, (self.codec.encode(message),))(transaction)

    # What becomes of a start

    def succeeded(self, value: Any, row: TaskRow) -> Outcome:  # Any: what a task returns
        """Return the outcome of a start that returned; errors as `payloads.encode`."""
        outcome = payloads.encode(self.codec, value)
        kept_until = time.time() + self.options.success_retention
        return Outcome(state=TaskState.SUCCESSFUL, errors=row.errors, outcome=outcome, kept_until=kept_until)

    def failed(self, error: BaseException, traceback: str, row: TaskRow, task: AnyTask | None) -> Outcome:
        """Return the outcome of a start that raised: another start later, or the end."""
        try:
            errors = payloads.decode_errors(self.codec, row.errors)
        except UndecodableError:
            errors = []
        errors.append(payloads.error_of(error, traceback))
        data = payloads.encode_errors(self.codec, errors)
        now = time.time()
        attempts = _own(task, "max_attempts", self.options.max_attempts)
        retry_on: tuple[type[BaseException], ...] = getattr(task, "retry_on", (Exception,))
        if isinstance(error, retry_on) and not row.last_start and row.failures + 1 < attempts:
            backoff = _own(task, "backoff", self.options.backoff) * 2.0 ** min(row.failures, 60)
            return Outcome(
                state=TaskState.DELAYED, errors=data, due_at=now + min(backoff, LONGEST_BACKOFF_S), failed=True
            )
        kept_until = now + self.options.failure_retention
        return Outcome(state=TaskState.FAILED, errors=data, kept_until=kept_until, failed=True)


LONGEST_BACKOFF_S = 3600.0


def _own(task: AnyTask | None, name: str, default: float) -> float:
    value: float | None = getattr(task, name, None)
    return default if value is None or not math.isfinite(value) else value
