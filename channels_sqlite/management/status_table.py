"""A layer's status as lines of text, 80 columns wide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from channels_sqlite.ages import duration
from channels_sqlite.management.status import LayerStatus, QueueStatus

__all__ = ["Earlier", "lines", "size"]

WIDTH = 80
COLUMN = 12
COUNTER_COLUMN = 20  # years of messages

COUNTERS = {
    "sent": "sent",
    "received": "received",
    "refused": "refused: channel full",
    "scheduled": "scheduled for later",
    "cancelled": "scheduled, cancelled",
    "dropped_full": "dropped: no room",
    "dropped_expired": "dropped: expired",
    "dropped_undecodable": "dropped: undecodable",
    "retried": "transactions tried again",
    "wakeups_sent": "wake-ups sent",
    "wakeups_missed": "wake-ups missed",
    "trimmed": "rows trimmed",
    "trim_s": "time in trimming",
    "checkpoints": "checkpoints",
    "checkpoint_s": "time in checkpoints",
}
ALWAYS = ("sent", "received")  # the others only where there is something to tell


@dataclass(frozen=True)
class Earlier:
    """The status before this one, and how many seconds before."""

    status: LayerStatus
    seconds: float


def lines(status: LayerStatus, earlier: Earlier | None = None, *, most: int | None = None) -> list[str]:
    """Return the table of one layer; with `earlier` it has rates. `most`: the longest that each list may be."""
    return [
        _crop(f"{status.alias}: DATABASES[{status.database!r}], prefix {status.prefix!r}"),
        _crop_start(f"  {status.path or 'in memory'}"),
        f"  {size(status.database_bytes)}, WAL {size(status.wal_bytes)}, {_rows(status, earlier)}",
        *([f"  {status.scheduled:,} scheduled for later"] if status.scheduled else []),
        "",
        *_channels(status, earlier, most),
        "",
        *_groups(status, most),
        *_presences(status, most),
        "",
        *_processes(status, most),
        *_tasks(status, most),
        *_counters(status, earlier),
    ]


def _rows(status: LayerStatus, earlier: Earlier | None) -> str:
    text = f"{status.rows:,} {'row' if status.rows == 1 else 'rows'}"
    if earlier is not None:
        written = _rate(status.newest_id - earlier.status.newest_id, earlier)
        text += f" ({_rate(status.rows - earlier.status.rows, earlier)}), {written.lstrip('+')} written"
    return text


def _channels(status: LayerStatus, earlier: Earlier | None, most: int | None) -> list[str]:
    if not status.channels:
        return ["  No messages wait."]
    before = {channel.name: channel.waiting for channel in earlier.status.channels} if earlier else {}
    heads = ["waiting", *(["change"] if earlier else []), "oldest"]
    rows = [
        (
            channel.name,
            f"{channel.waiting:,}",
            *([_rate(channel.waiting - before.get(channel.name, 0), earlier)] if earlier else []),
            duration(channel.oldest_age_s),
        )
        for channel in status.channels[:most]
    ]
    return _table("Channels", heads, rows, len(status.channels))


def _groups(status: LayerStatus, most: int | None) -> list[str]:
    if not status.groups:
        return ["  No groups."]
    keeps = any(group.kept for group in status.groups)
    rows = [
        (group.name, f"{group.members:,}", *([f"{group.kept:,}"] if keeps else [])) for group in status.groups[:most]
    ]
    return _table("Groups", ["members", *(["kept"] if keeps else [])], rows, len(status.groups))


def _presences(status: LayerStatus, most: int | None) -> list[str]:
    if not status.presences:
        return []
    rows = [(one.name, f"{one.present:,}", f"{one.watching:,}") for one in status.presences[:most]]
    return ["", *_table("Presence in", ["present", "watching"], rows, len(status.presences))]


def _processes(status: LayerStatus, most: int | None) -> list[str]:
    if not status.processes:
        return ["  No process uses it."]
    found: list[str] = []
    for process in status.processes[:most]:
        found += _table_rows(
            [
                (
                    process.client,
                    str(process.pid),
                    f"{process.channels:,}",
                    f"{process.held:,}",
                    duration(process.uptime_s),
                )
            ]
        )
        if process.listening:
            found.append(_crop(f"    on {', '.join(process.listening)}"))
    heads = _table_rows([("Processes", "pid", "receiving", "unhandled", "up")])
    return [*heads, *found, *_more(len(status.processes), len(status.processes[:most]))]


def _tasks(status: LayerStatus, most: int | None) -> list[str]:
    if not status.queues and not status.workers:
        return []
    rows = [
        (queue.name, *(f"{n:,}" for n in (queue.ready, queue.delayed, queue.running, queue.failed)), _oldest(queue))
        for queue in status.queues[:most]
    ]
    heads = ["ready", "delayed", "running", "failed", "oldest due"]
    workers = [(", ".join(worker.queues), str(worker.pid), f"{worker.running:,}") for worker in status.workers[:most]]
    return [
        "",
        *_table("Tasks", heads, rows, len(status.queues)),
        *_table("Workers of", ["pid", "running"], workers, len(status.workers)),
    ]


def _oldest(queue: QueueStatus) -> str:
    return "" if queue.oldest_due_age_s is None else duration(queue.oldest_due_age_s)


def _counters(status: LayerStatus, earlier: Earlier | None) -> list[str]:
    if not status.processes:
        return []
    now = asdict(status.counters)
    before = asdict(earlier.status.counters) if earlier else now
    rows = [
        (
            label,
            f"{now[name]:,.1f} s" if name.endswith("_s") else f"{now[name]:,}",
            *([_rate(max(0, now[name] - before[name]), earlier)] if earlier else []),
        )
        for name, label in COUNTERS.items()
        if now[name] or name in ALWAYS
    ]
    heads = ("Since these processes began", "total", *(["change"] if earlier else []))
    return ["", *_table_rows([heads, *rows], COUNTER_COLUMN)]


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], total: int) -> list[str]:
    return [*_table_rows([(title, *heads)]), *_table_rows(rows), *_more(total, len(rows))]


def _table_rows(rows: Sequence[Sequence[str]], column: int = COLUMN) -> list[str]:
    found = []
    for name, *values in rows:
        room = WIDTH - 2 - column * len(values)
        found.append(f"  {_crop(name, room):<{room}}" + "".join(f"{value:>{column}}" for value in values))
    return found


def _more(total: int, shown: int) -> list[str]:
    return [f"  and {total - shown:,} more"] if total > shown else []


def _crop(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _crop_start(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else f"  …{text[len(text) - width + 3 :]}"


def _rate(change: int, earlier: Earlier) -> str:
    rate = change / earlier.seconds
    return f"{rate:+,.0f}/s" if abs(rate) >= 100 else f"{rate:+,.1f}/s"


def size(number_bytes: int) -> str:
    """Return a size in bytes as people read it."""
    if number_bytes < 1024:
        return f"{number_bytes} B"
    value = float(number_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            break
    return f"{value:.1f} {unit}"
