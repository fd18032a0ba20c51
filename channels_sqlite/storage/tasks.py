"""Tasks, `channels_sqlite_queuedtask`: what waits, what runs, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from channels_sqlite.kinds import TaskEnd, TaskState
from channels_sqlite.names import task_channel
from channels_sqlite.storage.table import Table

__all__ = ["NewTask", "Outcome", "QueueCounts", "TaskRow", "Tasks"]

READY, DELAYED, RUNNING = TaskState.READY.value, TaskState.DELAYED.value, TaskState.RUNNING.value
FAILED, SUCCESSFUL = TaskState.FAILED.value, TaskState.SUCCESSFUL.value


class TaskRow(NamedTuple):
    """A task; see `models.QueuedTask`."""

    id: int
    key: str
    prefix: str
    backend: str
    queue: str
    is_async: bool
    state: int
    priority: int
    due_at: float
    path: str
    payload: bytes
    enqueued_at: float
    run_after: float | None
    started_at: float | None
    last_attempted_at: float | None
    finished_at: float | None
    worker: str | None
    worker_ids: str
    attempts: int
    failures: int
    crashes: int
    max_crashes: int
    last_start: bool
    ended: int
    progress: bytes | None
    outcome: bytes | None
    errors: bytes | None


class NewTask(NamedTuple):
    """A task to be enqueued."""

    key: str
    backend: str
    queue: str
    is_async: bool
    priority: int
    path: str
    payload: bytes
    unique_key: str | None
    run_after: float | None  # seconds since 1970
    failure_retention: float
    max_crashes: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What becomes of a task after one start."""

    state: TaskState
    errors: bytes | None
    outcome: bytes | None = None
    due_at: float | None = None  # of one that is DELAYED
    kept_until: float | None = None  # of one that has finished
    failed: bool = False  # this start raised


class QueueCounts(NamedTuple):
    """One queue at one moment."""

    backend: str
    queue: str
    ready: int
    delayed: int
    running: int
    failed: int
    oldest_due_at: float | None


_COLUMNS = ", ".join(TaskRow._fields)

# Parameters: key, prefix, backend, queue, is_async, state, priority, due_at, path, payload, unique_key, enqueued_at,
# run_after, failure_retention, max_crashes.
INSERT = """
    INSERT INTO channels_sqlite_queuedtask
        (key, prefix, backend, queue, is_async, state, priority, due_at, path, payload, unique_key, enqueued_at,
         run_after, failure_retention, max_crashes, worker_ids, attempts, failures, crashes, last_start, ended, untold)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '[]', 0, 0, 0, 0, 0, 0)
"""
# Parameters: prefix, backend, unique key. Index channels_sqlite_task_unique.
UNIQUE = f"""
    SELECT {_COLUMNS} FROM channels_sqlite_queuedtask INDEXED BY channels_sqlite_task_unique
    WHERE prefix = ? AND backend = ? AND unique_key = ? AND state IN ({READY}, {DELAYED}) LIMIT 1
"""
# Parameters: key, prefix, backend. Unique index of the key.
BY_KEY = f"SELECT {_COLUMNS} FROM channels_sqlite_queuedtask WHERE key = ? AND prefix = ? AND backend = ?"
# Parameters: prefix, backend, now, limit. A range of channels_sqlite_task_delayed.
PROMOTE = f"""
    UPDATE channels_sqlite_queuedtask SET state = {READY} WHERE id IN (
        SELECT id FROM channels_sqlite_queuedtask INDEXED BY channels_sqlite_task_delayed
        WHERE state = {DELAYED} AND prefix = ? AND backend = ? AND due_at <= ? ORDER BY due_at LIMIT ?
    )
"""
# Parameters: prefix, backend. The first entry of channels_sqlite_task_delayed.
NEXT_DELAYED = f"""
    SELECT min(due_at) FROM channels_sqlite_queuedtask INDEXED BY channels_sqlite_task_delayed
    WHERE state = {DELAYED} AND prefix = ? AND backend = ?
"""
# Parameters: prefix, backend, queue, is_async, limit. The first entries of channels_sqlite_task_ready, in its order.
FIRST_READY = f"""
    SELECT priority, due_at, id FROM channels_sqlite_queuedtask INDEXED BY channels_sqlite_task_ready
    WHERE state = {READY} AND prefix = ? AND backend = ? AND queue = ? AND is_async = ?
    ORDER BY priority DESC, due_at, id LIMIT ?
"""
# Parameters: prefix, backend, queue. A range of channels_sqlite_task_running, which holds what runs.
COUNT_RUNNING = f"""
    SELECT count(*) FROM channels_sqlite_queuedtask INDEXED BY channels_sqlite_task_running
    WHERE state = {RUNNING} AND prefix = ? AND backend = ? AND queue = ?
"""
# Parameters: prefix, backend, queue, prefix, backend, now, queue. Ranges of channels_sqlite_task_ready and, of what is
# due and was not made ready yet, of channels_sqlite_task_delayed.
COUNT_DUE = f"""
    SELECT (
        SELECT count(*) FROM channels_sqlite_queuedtask INDEXED BY channels_sqlite_task_ready
        WHERE state = {READY} AND prefix = ? AND backend = ? AND queue = ?
    ) + (
        SELECT count(*) FROM channels_sqlite_queuedtask INDEXED BY channels_sqlite_task_delayed
        WHERE state = {DELAYED} AND prefix = ? AND backend = ? AND due_at <= ? AND queue = ?
    )
"""
# Parameters: worker, worker, now, now, JSON array of ids. Primary key.
CLAIM_TASKS = f"""
    UPDATE channels_sqlite_queuedtask SET
        state = {RUNNING}, worker = ?, worker_ids = json_insert(worker_ids, '$[#]', ?), attempts = attempts + 1,
        started_at = coalesce(started_at, ?), last_attempted_at = ?, untold = 0, progress = NULL
    WHERE id IN (SELECT value FROM json_each(?)) RETURNING {_COLUMNS}
"""
# Parameters: state, due_at or NULL, errors, outcome, now or NULL, kept_until, failed (0 or 1), id, worker, attempts.
# An attempt that was taken from its worker changes nothing.
FINISH = f"""
    UPDATE channels_sqlite_queuedtask SET
        state = ?, due_at = coalesce(?, due_at), errors = ?, outcome = ?, finished_at = ?, kept_until = ?,
        failures = failures + ?, worker = NULL
    WHERE id = ? AND state = {RUNNING} AND worker = ? AND attempts = ? RETURNING {_COLUMNS}
"""
# Parameters: counted, counted, counted, counted, now, counted, now, worker. Scans channels_sqlite_task_running.
RELEASE = f"""
    UPDATE channels_sqlite_queuedtask SET
        state = CASE WHEN crashes + ? >= max_crashes THEN {FAILED} ELSE {READY} END,
        ended = CASE WHEN crashes + ? >= max_crashes THEN {TaskEnd.DIED.value} ELSE {TaskEnd.OWN.value} END,
        finished_at = CASE WHEN crashes + ? >= max_crashes THEN ? END,
        kept_until = CASE WHEN crashes + ? >= max_crashes THEN ? + failure_retention END,
        crashes = crashes + ?, worker = NULL, untold = 1
    WHERE id IN (
        SELECT id FROM channels_sqlite_queuedtask INDEXED BY channels_sqlite_task_running
        WHERE state = {RUNNING} AND worker = ?
    ) RETURNING prefix, backend, queue
"""
# Parameters: prefix, channel. Unique index channels_sqlite_listener.
WORKERS_OF = "SELECT client FROM channels_sqlite_listener WHERE prefix = ? AND channel = ?"
# Parameters: prefix, backend. Index channels_sqlite_task_untold.
ANY_UNTOLD = """
    SELECT EXISTS (
        SELECT 1 FROM channels_sqlite_queuedtask INDEXED BY channels_sqlite_task_untold
        WHERE untold = 1 AND prefix = ? AND backend = ?
    )
"""
TAKE_UNTOLD = f"""
    UPDATE channels_sqlite_queuedtask SET untold = 0 WHERE id IN (
        SELECT id FROM channels_sqlite_queuedtask INDEXED BY channels_sqlite_task_untold
        WHERE untold = 1 AND prefix = ? AND backend = ?
    ) RETURNING {_COLUMNS}
"""
# Parameters: progress, id, worker, attempts. Primary key.
PROGRESS = f"""
    UPDATE channels_sqlite_queuedtask SET progress = ?
    WHERE id = ? AND state = {RUNNING} AND worker = ? AND attempts = ?
"""
# Parameters: now, now, key, prefix, backend.
CANCEL_TASK = f"""
    UPDATE channels_sqlite_queuedtask SET
        state = {FAILED}, ended = {TaskEnd.CANCELLED.value}, finished_at = ?, kept_until = ? + failure_retention
    WHERE key = ? AND prefix = ? AND backend = ? AND state IN ({READY}, {DELAYED}) RETURNING {_COLUMNS}
"""
# Parameters: now, key, prefix, backend. One more start: what raises is final, and so is the next death where those were
# used up.
RETRY = f"""
    UPDATE channels_sqlite_queuedtask SET
        state = {READY}, ended = {TaskEnd.OWN.value}, finished_at = NULL, kept_until = NULL, due_at = ?,
        last_start = 1, crashes = min(crashes, max_crashes - 1), untold = 0
    WHERE key = ? AND prefix = ? AND backend = ? AND state = {FAILED} RETURNING {_COLUMNS}
"""
# Parameters: now, limit. A range of channels_sqlite_task_finished. Of all prefixes.
FINISHED = """
    SELECT id FROM channels_sqlite_queuedtask INDEXED BY channels_sqlite_task_finished
    WHERE kept_until IS NOT NULL AND kept_until <= ? LIMIT ?
"""
# Parameters: JSON array of ids, now. What was retried meanwhile is kept.
DELETE_FINISHED = """
    DELETE FROM channels_sqlite_queuedtask WHERE id IN (SELECT value FROM json_each(?)) AND kept_until <= ?
"""
# Parameters: prefix.
FLUSH_TASKS = f"DELETE FROM channels_sqlite_queuedtask WHERE prefix = ? AND state <> {RUNNING}"
# Parameters: now, now, now, prefix. Scans what is kept of it, without the payloads that have pages of their own.
# What is due and was not made ready yet, for want of a worker, counts as ready.
QUEUES = f"""
    SELECT backend, queue,
        sum(state = {READY} OR (state = {DELAYED} AND due_at <= ?)), sum(state = {DELAYED} AND due_at > ?),
        sum(state = {RUNNING}), sum(state = {FAILED}),
        min(CASE WHEN state IN ({READY}, {DELAYED}) AND due_at <= ? THEN due_at END)
    FROM channels_sqlite_queuedtask WHERE prefix = ? GROUP BY backend, queue ORDER BY backend, queue
"""
# Parameters: prefix. Scans channels_sqlite_task_running.
RUNNING_OF = f"""
    SELECT worker, count(*) FROM channels_sqlite_queuedtask INDEXED BY channels_sqlite_task_running
    WHERE state = {RUNNING} AND prefix = ? GROUP BY worker
"""
# Parameters: prefix, backend, state or NULL, the same, limit.
LIST = f"""
    SELECT {_COLUMNS} FROM channels_sqlite_queuedtask
    WHERE prefix = ? AND backend = ? AND (? IS NULL OR state IN (SELECT value FROM json_each(?))) ORDER BY id LIMIT ?
"""


class Tasks(Table):
    """Tasks of one layer's prefix."""

    # Enqueueing

    def insert_task(self, new: NewTask, now: float) -> int:
        """Enqueue; return the row's id."""
        due_at = now if new.run_after is None else max(now, new.run_after)
        state = DELAYED if due_at > now else READY
        cursor = self._execute(
            INSERT,
            (
                new.key,
                self._prefix,
                new.backend,
                new.queue,
                new.is_async,
                state,
                new.priority,
                due_at,
                new.path,
                new.payload,
                new.unique_key,
                now,
                new.run_after,
                new.failure_retention,
                new.max_crashes,
            ),
        )
        return cursor.lastrowid or 0

    def waiting_with(self, backend: str, unique_key: str) -> TaskRow | None:
        """Return the task with this key that has not started yet."""
        row = self._execute(UNIQUE, (self._prefix, backend, unique_key)).fetchone()
        return TaskRow(*row) if row else None

    def workers_of(self, backend: str, queue: str) -> set[str]:
        """Return the clients to wake for a task of a queue."""
        return self._workers_of(self._prefix, backend, queue)

    def _workers_of(self, prefix: str, backend: str, queue: str) -> set[str]:
        return {client for (client,) in self._execute(WORKERS_OF, (prefix, task_channel(backend, queue)))}

    # Looking

    def task(self, backend: str, key: str) -> TaskRow | None:
        """Return a task by the id of its result."""
        row = self._execute(BY_KEY, (key, self._prefix, backend)).fetchone()
        return TaskRow(*row) if row else None

    def tasks(self, backend: str, states: Sequence[int], limit: int) -> list[TaskRow]:
        """Return the tasks in some states, or in any, in the order of their enqueueing."""
        chosen = json.dumps(list(states)) if states else None
        rows = self._execute(LIST, (self._prefix, backend, chosen, chosen, limit)).fetchall()
        return [TaskRow(*row) for row in rows]

    def next_delayed(self, backend: str) -> float | None:
        """Return when the next delayed task is due (seconds since 1970)."""
        due_at: float | None = self._execute(NEXT_DELAYED, (self._prefix, backend)).fetchone()[0]
        return due_at

    def any_untold(self, backend: str) -> bool:
        """Whether tasks were taken from dead workers of which nobody was told."""
        return bool(self._execute(ANY_UNTOLD, (self._prefix, backend)).fetchone()[0])

    def first_ready(self, backend: str, queue: str, *, is_async: bool, limit: int) -> list[tuple[int, float, int]]:
        """Return (priority, due_at, id) of the tasks of a queue that come first."""
        return self._execute(FIRST_READY, (self._prefix, backend, queue, is_async, limit)).fetchall()

    def count_running(self, backend: str, queue: str) -> int:
        """Return how many tasks of a queue run."""
        count: int = self._execute(COUNT_RUNNING, (self._prefix, backend, queue)).fetchone()[0]
        return count

    def count_due(self, backend: str, queue: str, now: float) -> int:
        """Return how many tasks of a queue might start."""
        found = self._execute(COUNT_DUE, (self._prefix, backend, queue, self._prefix, backend, now, queue)).fetchone()
        count: int = found[0]
        return count

    # Running

    def promote(self, backend: str, now: float, limit: int) -> int:
        """Make ready what is due; return how many there were, `limit` where there may be more."""
        return self._execute(PROMOTE, (self._prefix, backend, now, limit)).rowcount

    def claim_tasks(self, ids: Sequence[int], worker: str, now: float) -> list[TaskRow]:
        """Give tasks to a worker; return them in the order of `ids`."""
        if not ids:
            return []
        rows = map(TaskRow._make, self._execute(CLAIM_TASKS, (worker, worker, now, now, json.dumps(ids))).fetchall())
        claimed = {row.id: row for row in rows}
        return [claimed[row_id] for row_id in ids]

    def finish_task(self, row: TaskRow, outcome: Outcome, now: float) -> TaskRow | None:
        """Write what became of an attempt; None: it was taken from its worker meanwhile."""
        finished_at = now if outcome.kept_until is not None else None
        values = (
            outcome.state.value,
            outcome.due_at,
            outcome.errors,
            outcome.outcome,
            finished_at,
            outcome.kept_until,
            outcome.failed,
            row.id,
            row.worker,
            row.attempts,
        )
        finished = self._execute(FINISH, values).fetchone()
        return TaskRow(*finished) if finished else None

    def release_tasks(self, worker: str, now: float, *, counted: bool = True) -> set[str]:
        """Take all tasks from a worker that is no more, of every prefix; return the clients that may run them now.

        `counted`: this start counts as a crash.
        """
        one = int(counted)
        rows = self._execute(RELEASE, (one, one, one, now, one, now, one, worker)).fetchall()
        to_wake: set[str] = set()
        for prefix, backend, queue in set(rows):
            to_wake |= self._workers_of(prefix, backend, queue)
        return to_wake

    def take_untold(self, backend: str) -> list[TaskRow]:
        """Return the tasks that were taken from dead workers and of which nobody was told, and note them as told."""
        return [TaskRow(*row) for row in self._execute(TAKE_UNTOLD, (self._prefix, backend)).fetchall()]

    def set_progress(self, row: TaskRow, progress: bytes) -> bool:
        """Note how far an attempt has come; return whether it is still this worker's."""
        return self._execute(PROGRESS, (progress, row.id, row.worker, row.attempts)).rowcount == 1

    # By hand

    def cancel_task(self, backend: str, key: str, now: float) -> TaskRow | None:
        """Fail a task that has not started; None where it has."""
        row = self._execute(CANCEL_TASK, (now, now, key, self._prefix, backend)).fetchone()
        return TaskRow(*row) if row else None

    def retry_task(self, backend: str, key: str, now: float) -> TaskRow | None:
        """Have a failed task start once more; None where it has not failed."""
        row = self._execute(RETRY, (now, key, self._prefix, backend)).fetchone()
        return TaskRow(*row) if row else None

    # Housekeeping

    def finished_tasks(self, now: float, limit: int) -> list[int]:
        """Return ids of tasks that were kept long enough."""
        return [row_id for (row_id,) in self._execute(FINISHED, (now, limit))]

    def delete_tasks(self, ids: Iterable[int], now: float) -> None:
        """Delete those of them that are still to go."""
        self._execute(DELETE_FINISHED, (json.dumps(list(ids)), now))

    def flush_tasks(self) -> int:
        """Delete all tasks that do not run; return how many there were."""
        return self._execute(FLUSH_TASKS, (self._prefix,)).rowcount

    def queues(self, now: float) -> list[QueueCounts]:
        """Count the tasks of each queue."""
        return [QueueCounts(*row) for row in self._execute(QUEUES, (now, now, now, self._prefix))]

    def running_of(self) -> dict[str, int]:
        """Return how many tasks each worker runs."""
        return dict(self._execute(RUNNING_OF, (self._prefix,)).fetchall())
