"""CONFIG of one CHANNEL_LAYERS entry, validated once, with all faults reported together."""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from django.core.exceptions import ImproperlyConfigured

__all__ = ["Fault", "Keeping", "Options", "faults_in"]

MAX_BLOB_BYTES = 1_000_000_000  # SQLITE_MAX_LENGTH, https://www.sqlite.org/limits.html
MOST_KEPT = 10**9
ENCRYPTION_OVERHEAD = 1.5  # Fernet pads, signs, and writes base64: 4/3 of the message, and a little


@dataclass(frozen=True)
class Keeping:
    """How much of what a group is sent is kept: at most `size` messages, each for at most `ttl` seconds."""

    size: int
    ttl: float


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in CONFIG. The values of keys are never in its texts."""

    option: str
    problem: str  # follows the option's name in a sentence
    remedy: str  # what it must be; of an unknown option: what to do, or ""
    unknown: bool

    def __str__(self) -> str:
        text = f"{self.option!r} {self.problem}"
        if self.unknown:
            text += f" ({self.remedy})" if self.remedy else ""
            text += f"; known are: {', '.join(_PARSERS)}"
        return text


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one layer. Durations are in seconds, sizes in bytes."""

    database: str = "channels"
    prefix: str = "asgi"
    polling_interval: float = 0.05
    expiry: float = 60
    group_expiry: float | None = 86400
    capacity: int = 100
    channel_capacity: tuple[tuple[re.Pattern[str], int], ...] = ()
    message_retention: float = 86400
    auto_trim: bool = True
    trim_batch_size: int = 100
    max_message_size: int = 16 * 1024 * 1024
    symmetric_encryption_keys: tuple[bytes, ...] = field(default=(), repr=False)
    history: tuple[tuple[re.Pattern[str], Keeping], ...] = ()

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Options:
        """Make options of a CONFIG mapping.

        Raises:
            ImproperlyConfigured: naming every unknown option, wrong type and impossible value at once.
        """
        values, faults = _parse(config)
        if faults:
            raise ImproperlyConfigured(f"CONFIG of a SqliteChannelLayer has faults: {'; '.join(map(str, faults))}.")
        options = cls(**values)  # type: ignore[arg-type]  # each value was made by the parser of its own field
        if 0 < options.message_retention < options.expiry:
            values["message_retention"] = options.expiry
            options = cls(**values)  # type: ignore[arg-type]  # as above
        return options

    def capacity_of(self, channel: str) -> int:
        """Return how many unread messages `channel` may hold: the first matching pattern's number, or `capacity`."""
        for pattern, capacity in self.channel_capacity:
            if pattern.match(channel):
                return capacity
        return self.capacity

    def keeping_of(self, group: str) -> Keeping | None:
        """Return what is kept of `group`, as the first matching pattern has it; None: nothing."""
        for pattern, keeping in self.history:
            if pattern.match(group):
                return keeping
        return None


def faults_in(config: Mapping[str, object]) -> list[Fault]:
    """Return every fault of a CONFIG mapping; none: `Options.from_config` takes it."""
    return _parse(config)[1]


def _parse(config: Mapping[str, object]) -> tuple[dict[str, object], list[Fault]]:
    values: dict[str, object] = {}
    faults: list[Fault] = []
    for name, value in config.items():
        parse = _PARSERS.get(name)
        if parse is None:
            faults.append(Fault(name, "is not an option", _what_it_is_here(name), unknown=True))
            continue
        try:
            values[name] = parse(value)
        except ValueError as error:
            shown = "" if name == "symmetric_encryption_keys" else f"is {value!r}, but "
            faults.append(Fault(name, f"{shown}must be {error}", str(error), unknown=False))
    return values, faults


def _what_it_is_here(name: object) -> str:
    """Return what to do about an unknown option: other layers have it, or it is misspelt."""
    if not isinstance(name, str):
        return ""
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    similar = difflib.get_close_matches(name.lower(), _PARSERS, n=1)
    return f"perhaps {similar[0]!r} is meant" if similar else ""


def _text(value: object) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise ValueError("a non-empty string of printable characters")


def _seconds(*, zero: bool) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and is_finite(value):
            if value > 0 or (zero and value == 0):
                return value
        raise ValueError(f"a finite number of seconds {'of at least' if zero else 'greater than'} 0")

    return parse


def is_finite(value: float) -> bool:
    """Whether a number is one that a float can hold, and neither infinite nor NaN."""
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def _seconds_or_none(value: object) -> float | None:
    try:
        return None if value is None else _seconds(zero=False)(value)
    except ValueError as error:
        raise ValueError(f"None, or {error}") from None


def _count(unit: str, largest: int = 2**63 - 1) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest:
            return value
        raise ValueError(f"a whole number of {unit} from 1 to {largest}")

    return parse


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("True or False")


def _capacities(value: object) -> tuple[tuple[re.Pattern[str], int], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise ValueError(  # noqa: TRY004  # collected with the other faults
            "None, or a dict of globs or compiled regular expressions to capacities"
        )
    return tuple((_pattern(pattern), _capacity_for(pattern, number)) for pattern, number in value.items())


def _pattern(pattern: object) -> re.Pattern[str]:
    if isinstance(pattern, str):
        return re.compile(fnmatch.translate(pattern))
    if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str):
        return pattern
    raise ValueError(f"a dict whose keys are globs or compiled regular expressions of str, unlike {pattern!r}")


def _capacity_for(pattern: object, number: object) -> int:
    try:
        return _count("messages")(number)
    except ValueError as error:
        raise ValueError(f"a dict whose value for {pattern!r} is {error}") from None


def _histories(value: object) -> tuple[tuple[re.Pattern[str], Keeping], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise ValueError(  # noqa: TRY004  # collected with the other faults
            "None, or a dict of globs or compiled regular expressions to dicts with 'size' and 'ttl'"
        )
    return tuple((_pattern(pattern), _keeping_for(pattern, keeping)) for pattern, keeping in value.items())


def _keeping_for(pattern: object, keeping: object) -> Keeping:
    if not isinstance(keeping, Mapping) or set(keeping) != {"size", "ttl"}:
        raise ValueError(
            f"a dict whose value for {pattern!r} is a dict with 'size' (a number of messages) and 'ttl' (seconds), "
            f"both and nothing else"
        )
    found: dict[str, object] = {}
    for name, parse in (("size", _count("messages", MOST_KEPT)), ("ttl", _seconds(zero=False))):
        try:
            found[name] = parse(keeping[name])
        except ValueError as error:
            raise ValueError(f"a dict whose {name!r} for {pattern!r} is {error}") from None
    return Keeping(**found)  # type: ignore[arg-type]  # each value was made by the parser of its own field


def _keys(value: object) -> tuple[bytes, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(key, (str, bytes)) and key for key in value):
        raise ValueError("None, or a list of non-empty str or bytes")
    return tuple(key.encode() if isinstance(key, str) else key for key in value)


_PARSERS: dict[str, Callable[[object], object]] = {
    "database": _text,
    "prefix": _text,
    "polling_interval": _seconds(zero=False),
    "expiry": _seconds(zero=False),
    "group_expiry": _seconds_or_none,
    "capacity": _count("messages"),
    "channel_capacity": _capacities,
    "message_retention": _seconds(zero=True),
    "auto_trim": _flag,
    "trim_batch_size": _count("rows"),
    "max_message_size": _count("bytes", int(MAX_BLOB_BYTES / ENCRYPTION_OVERHEAD)),
    "symmetric_encryption_keys": _keys,
    "history": _histories,
}

# What other layers call something, and what it is here. channels_redis: https://github.com/django/channels_redis
_NO_SERVER = "there is no server: remove it, and name the alias of an SQLite database in 'database'"
_NO_CONNECTION = "there is no connection that could break: remove it"
_ELSEWHERE: dict[str, str] = {
    "hosts": _NO_SERVER,
    "host": _NO_SERVER,
    "port": _NO_SERVER,
    "url": _NO_SERVER,
    "connection_kwargs": _NO_SERVER,
    "on_disconnect": _NO_CONNECTION,
    "on_reconnect": _NO_CONNECTION,
    "channel_layer": "channels_redis sets it itself: remove it",
    "serializer_format": "messages are always written with msgpack: remove it",
    "random_prefix_length": "messages need no random prefix here: remove it",
    "db": "it is called 'database' here, an alias in DATABASES",
    "database_alias": "it is called 'database' here",
    "using": "it is called 'database' here",
    "message_expiry": "it is called 'expiry' here",
    "retention": "it is called 'message_retention' here",
    "poll_interval": "it is called 'polling_interval' here",
    "max_size": "it is called 'max_message_size' here",
    "encryption_keys": "it is called 'symmetric_encryption_keys' here",
}

if set(_PARSERS) != {option.name for option in fields(Options)}:  # pragma: no cover
    raise TypeError("each field of Options needs one parser, and each parser a field")
