"""When an entry of "schedule" is due: every so many seconds, or by a cron expression in a time zone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from zoneinfo import ZoneInfo

__all__ = ["Rule", "rule_of"]

KEYS = ("task", "cron", "tz", "every", "args", "kwargs")


class Due(Protocol):
    """By what an entry is due."""

    def first_after(self, seen_at: float) -> float:
        """Return when it is due first, where a worker saw it at `seen_at` (seconds since 1970)."""

    def next_after(self, due_at: float, now: float) -> float:
        """Return the first time after `now` that it is due, where it was due at `due_at`."""


@dataclass(frozen=True)
class Every:
    """Due at fixed distances, in seconds."""

    seconds: float

    def first_after(self, seen_at: float) -> float:
        """Count from when it was seen."""
        return seen_at + self.seconds

    def next_after(self, due_at: float, now: float) -> float:
        """Stay on the grid."""
        return due_at + self.seconds * max(1, math.floor((now - due_at) / self.seconds) + 1)


@dataclass(frozen=True)
class Cron:
    """Due by a cron expression."""

    expression: str
    zone: str

    def first_after(self, seen_at: float) -> float:
        """The next time by the clock."""
        from cronsim import CronSim

        return float(next(CronSim(self.expression, datetime.fromtimestamp(seen_at, ZoneInfo(self.zone)))).timestamp())

    def next_after(self, due_at: float, now: float) -> float:
        """Likewise."""
        return self.first_after(max(due_at, now))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One entry of "schedule"."""

    name: str
    path: str  # dotted, of the task
    due: Due
    text: str  # what it is due by, to notice when that has changed
    args: Sequence[Any] = field(default=(), repr=False)  # Any: JSON
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)


def rule_of(name: str, entry: object) -> Rule:
    """Make a rule of an entry; raises ValueError, which says what it must be."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"a dict whose value for {name!r} is a dict")  # noqa: TRY004  # collected with other faults
    unknown = [key for key in entry if key not in KEYS]
    if unknown:
        raise ValueError(f"a dict whose value for {name!r} has no other keys than {', '.join(KEYS)}, unlike {unknown}")
    path, args, kwargs = entry.get("task"), entry.get("args", []), entry.get("kwargs", {})
    if not isinstance(path, str) or "." not in path:
        raise ValueError(f"a dict whose value for {name!r} has the dotted path of a task as 'task'")
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, Mapping):
        raise ValueError(  # noqa: TRY004  # collected with the other faults
            f"a dict whose value for {name!r} has a list as 'args' and a dict as 'kwargs'"
        )
    if ("cron" in entry) == ("every" in entry):
        raise ValueError(f"a dict whose value for {name!r} has either 'cron' or 'every'")
    if "every" in entry:
        every = entry["every"]
        if isinstance(every, bool) or not isinstance(every, (int, float)) or not 0 < every < math.inf:
            raise ValueError(f"a dict whose value for {name!r} has a number of seconds greater than 0 as 'every'")
        if "tz" in entry:
            raise ValueError(f"a dict whose value for {name!r} has 'tz' only beside 'cron'")
        return Rule(name=name, path=path, due=Every(every), text=f"every {every!r}", args=args, kwargs=kwargs)
    cron = _cron(name, entry["cron"], entry.get("tz", "UTC"))
    text = f"cron {cron.expression} {cron.zone}"
    return Rule(name=name, path=path, due=cron, text=text, args=args, kwargs=kwargs)


def _cron(name: str, expression: object, zone: object) -> Cron:
    try:
        from cronsim import CronSim
    except ImportError:
        raise ValueError(
            f"without 'cron' in {name!r}, or the cronsim package is to be installed: pip install channels_sqlite[cron]"
        ) from None
    try:
        place = ZoneInfo(zone) if isinstance(zone, str) else None
    except (KeyError, ValueError, OSError):
        place = None
    if place is None:
        raise ValueError(f"a dict whose value for {name!r} has a known time zone as 'tz', unlike {zone!r}")
    try:
        next(CronSim(str(expression), datetime.now(place)))
    except Exception as error:  # noqa: BLE001  # a CronSimError, or StopIteration of what never comes
        raise ValueError(
            f"a dict whose value for {name!r} has a cron expression of five fields that comes again as 'cron', "
            f"unlike {expression!r} ({error})"
        ) from None
    return Cron(str(expression), str(zone))
