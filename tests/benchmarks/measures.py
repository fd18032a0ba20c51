"""What a run records, and the figures made of it."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "Account",
    "Counts",
    "Effort",
    "Metric",
    "Outcome",
    "Run",
    "Spread",
    "count_faults",
    "identity",
    "percentile",
    "rate",
]

Outcome = Literal["ok", "timed out", "failed", "left out"]

_NUMBERS_PER_STREAM = 100_000_000


def identity(stream: int, number: int) -> int:
    """Return the number that stands for one expected delivery.

    A stream is whatever must arrive in order: one sender's messages, or one member's broadcasts.
    """
    return stream * _NUMBERS_PER_STREAM + number


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much one run does: until ``messages`` were sent or ``seconds`` have passed, whichever is first.

    ``backlog`` is how many unread messages a scenario about such stores beforehand.
    """

    seconds: float
    messages: int
    backlog: int = 0


@dataclass(kw_only=True)
class Account:
    """What one role saw; the same shape for every scenario, so that faults are counted in one place.

    ``sent`` and ``received`` hold identities (see ``identity``); the times are nanoseconds of ``time.perf_counter_ns``,
    which on Linux is CLOCK_MONOTONIC and so the same clock in every process. ``remark`` says what kept the role from
    measuring all that it should.
    """

    sent: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    first_ns: int = 0
    last_ns: int = 0
    retries: int = 0
    samples_us: dict[str, list[float]] = field(default_factory=dict)
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Deliveries that went wrong in one run, and the sends repeated after ChannelFull."""

    expected: int = 0
    lost: int = 0
    twice: int = 0
    disordered: int = 0
    retries: int = 0


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of a scenario. ``unit`` is shown in the heading; ``higher_is_better`` tells rates from times.

    One that only describes a run is not ``compared`` with ours; a ``detail`` is in the JSON alone.
    """

    key: str
    title: str
    unit: str
    higher_is_better: bool = False
    compared: bool = True
    detail: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """One repetition of one scenario over one layer. ``values`` is keyed by ``Metric.key``; empty unless ok.

    ``remark`` says why it is not ok; in a run that is, what went wrong when its processes ended. ``series`` holds the
    figures of a long run minute by minute, by the keys of ``Scenario.series``.
    """

    scenario: str
    layer: str
    repetition: int
    outcome: Outcome
    remark: str = ""
    seconds: float
    values: Mapping[str, float] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    series: Sequence[Mapping[str, float]] = ()

    @property
    def ran_out_of_time(self) -> bool:
        """Whether it took all the time it may take and gave not one figure."""
        if self.outcome == "ok":
            return bool(self.values) and all(math.isnan(value) for value in self.values.values())
        return self.outcome == "timed out"


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of the repetitions."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of ``values``; ValueError when there are none."""
        if not values:
            raise ValueError("no repetition gave a value")
        return cls(statistics.median(values), min(values), max(values))


def percentile(samples: Iterable[float], percent: float) -> float:
    """Return the nearest-rank percentile, NaN without samples."""
    ordered = sorted(samples)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def rate(accounts: Sequence[Account]) -> float:
    """Return distinct deliveries per second, from the first send to the last receive; NaN when nothing arrived."""
    starts = [account.first_ns for account in accounts if account.sent]
    ends = [account.last_ns for account in accounts if account.received]
    if not starts or not ends:
        return math.nan
    arrived = {identity for account in accounts for identity in account.received}
    return len(arrived) / max((max(ends) - min(starts)) / 1e9, 1e-9)


def count_faults(accounts: Sequence[Account], *, open_ended: bool = False) -> Counts:
    """Compare what was sent with what arrived, over all roles of a run.

    Where a run ends with messages still waiting (``open_ended``), only those are expected that were sent before the
    latest of their stream that arrived.
    """
    expected = {identity for account in accounts for identity in account.sent}
    arrived = [identity for account in accounts for identity in account.received]
    distinct = set(arrived)
    if open_ended:
        latest: dict[int, int] = defaultdict(lambda: -1)
        for each in distinct:
            stream, number = divmod(each, _NUMBERS_PER_STREAM)
            latest[stream] = max(latest[stream], number)
        expected = {each for each in expected if each % _NUMBERS_PER_STREAM <= latest[each // _NUMBERS_PER_STREAM]}
    return Counts(
        expected=len(expected),
        lost=len(expected - distinct),
        twice=len(arrived) - len(distinct),
        disordered=sum(_count_disordered(account.received) for account in accounts),
        retries=sum(account.retries for account in accounts),
    )


def _count_disordered(received: Iterable[int]) -> int:
    """Return how many deliveries came to one reader after a later one of the same stream."""
    latest: dict[int, int] = defaultdict(lambda: -1)
    disordered = 0
    for identity in received:
        stream, number = divmod(identity, _NUMBERS_PER_STREAM)
        if number < latest[stream]:
            disordered += 1
        else:
            latest[stream] = number
    return disordered
