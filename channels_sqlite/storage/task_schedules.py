"""How far schedules have come, `channels_sqlite_taskschedule`."""

from __future__ import annotations

from channels_sqlite.storage.table import Table

__all__ = ["TaskSchedules"]

# Parameters: prefix, backend, name. Unique index channels_sqlite_schedule.
TASK_SCHEDULE = "SELECT rule, next_at FROM channels_sqlite_taskschedule WHERE prefix = ? AND backend = ? AND name = ?"
# Parameters: prefix, backend, name, rule, next_at.
SET_TASK_SCHEDULE = """
    INSERT INTO channels_sqlite_taskschedule (prefix, backend, name, rule, next_at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (prefix, backend, name) DO UPDATE SET rule = excluded.rule, next_at = excluded.next_at
"""


class TaskSchedules(Table):
    """Schedules of one layer's prefix."""

    def task_schedule(self, backend: str, name: str) -> tuple[str, float] | None:
        """Return the rule that was last seen, and when it is due next (seconds since 1970)."""
        row: tuple[str, float] | None = self._execute(TASK_SCHEDULE, (self._prefix, backend, name)).fetchone()
        return row

    def set_task_schedule(self, backend: str, name: str, rule: str, next_at: float) -> None:
        """Note when a schedule is due next."""
        self._execute(SET_TASK_SCHEDULE, (self._prefix, backend, name, rule, next_at))
