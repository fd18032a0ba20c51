"""OPTIONS of one TASKS entry, validated once, with all faults reported together."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from django.core.exceptions import ImproperlyConfigured

from channels_sqlite.channel_layers import entries
from channels_sqlite.tasks.rules import Rule, rule_of

__all__ = ["TaskOptions", "faults_in"]


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options of one backend. Durations are in seconds."""

    layer: str = "default"
    max_attempts: int = 1
    backoff: float = 10.0
    crash_attempts: int = 3
    success_retention: float = 86400
    failure_retention: float = 1209600
    limits: Mapping[str, int] = field(default_factory=dict)
    schedule: Mapping[str, Rule] = field(default_factory=dict)

    @classmethod
    def from_params(cls, alias: str, params: Mapping[str, object]) -> TaskOptions:
        """Make options of a TASKS entry; raises ImproperlyConfigured that names every fault at once."""
        values, faults = _parse(params)
        if faults:
            raise ImproperlyConfigured(f"TASKS[{alias!r}] has faults: {'; '.join(faults)}.")
        return cls(**values)  # type: ignore[arg-type]  # each value was made by the parser of its own field


def faults_in(params: Mapping[str, object]) -> list[str]:
    """Return every fault of a TASKS entry."""
    return _parse(params)[1]


def _parse(params: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    options = params.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        return {}, [f"OPTIONS is {options!r}, but must be a dict"]
    values: dict[str, object] = {}
    faults: list[str] = []
    queues = params.get("QUEUES", ["default"])
    if isinstance(queues, str) or not _is_names(queues):
        faults.append(f"QUEUES is {queues!r}, but must be a list of non-empty str")
    for name, value in options.items():
        parse = _PARSERS.get(name)
        if parse is None:
            similar = difflib.get_close_matches(str(name).lower(), _PARSERS, n=1)
            hint = f" (perhaps {similar[0]!r} is meant)" if similar else ""
            faults.append(f"{name!r} is not an option{hint}; known are: {', '.join(_PARSERS)}")
            continue
        try:
            values[name] = parse(value)
        except ValueError as error:
            faults.append(f"{name!r} is {value!r}, but must be {error}")
    if "layer" not in options:
        try:
            _layer(TaskOptions.layer)
        except ValueError as error:
            faults.append(f"'layer' is not set, so it is 'default', but must be {error}")
    return values, faults


def _is_names(value: object) -> bool:
    return isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(name, str) and name for name in value)


def _layer(value: object) -> str:
    ours = [entry.alias for entry in entries() if entry.is_ours]
    if isinstance(value, str) and value in ours:
        return value
    known = ", ".join(map(repr, ours)) or "none"
    raise ValueError(f"an alias in CHANNEL_LAYERS whose BACKEND is SqliteChannelLayer (there are: {known})")


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31:
        return value
    raise ValueError("a whole number from 1")


def _seconds(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12 and math.isfinite(value):
        return value
    raise ValueError("a finite number of seconds of at least 0")


def _limits(value: object) -> Mapping[str, int]:
    if not isinstance(value, Mapping):
        raise ValueError("a dict of queues to numbers of tasks")  # noqa: TRY004  # collected with the other faults
    if not all(isinstance(queue, str) and queue for queue in value):
        raise ValueError("a dict whose keys are names of queues")
    try:
        return {queue: _count(number) for queue, number in value.items()}
    except ValueError as error:
        raise ValueError(f"a dict whose values are each {error}") from None


def _schedule(value: object) -> Mapping[str, Rule]:
    if not isinstance(value, Mapping):
        raise ValueError("a dict of names to dicts")  # noqa: TRY004  # collected with the other faults
    return {str(name): rule_of(str(name), entry) for name, entry in value.items()}


_PARSERS: dict[str, Callable[[object], object]] = {
    "layer": _layer,
    "max_attempts": _count,
    "backoff": _seconds,
    "crash_attempts": _count,
    "success_retention": _seconds,
    "failure_retention": _seconds,
    "limits": _limits,
    "schedule": _schedule,
}
