"""What our layer has to reach, judged by the medians of one program run."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .layers import CANDIDATES, OURS
from .results import Results
from .scenarios import SCENARIOS

__all__ = ["Target", "judge"]

_PUBSUB, _CORE, _MEMORY = "redis-pubsub", "redis-core", "memory"


@dataclass(frozen=True)
class Target:
    """One target: ``figure`` has to be at least, or at most, ``limit``. ``seen`` is NaN when it was not measured."""

    scenario: str
    figure: str
    bound: Literal["at least", "at most"]
    limit: float
    seen: float

    @property
    def is_met(self) -> bool | None:
        """Whether it is met; None when it was not measured."""
        if math.isnan(self.seen):
            return None
        return self.seen >= self.limit if self.bound == "at least" else self.seen <= self.limit


def judge(results: Results) -> list[Target]:
    """Return all targets of the scenarios that were run."""
    ran = {run.scenario for run in results.runs if run.layer == OURS.key}
    return [target for target in _all(results) if target.scenario in ran]


def _all(results: Results) -> Iterator[Target]:
    def beside(scenario: str, metric: str, other: str, limit: float) -> Target:
        """Compare with another layer: rates must reach ``limit`` times its own, times must stay below that."""
        [title] = [each.title for each in SCENARIOS[scenario].metrics if each.key == metric]
        figure = f"{title}, times that of {CANDIDATES[other].title}"
        seen = ours(scenario, metric) / (results.median(scenario, other, metric) or math.nan)
        return Target(scenario, figure, "at least" if metric == "rate" else "at most", limit, seen)

    def ours(scenario: str, metric: str) -> float:
        return results.median(scenario, OURS.key, metric)

    def without_fault(scenario: str) -> Target:
        runs = results.of(scenario, OURS.key)
        wrong = sum(run.counts.lost + run.counts.twice + run.counts.disordered for run in runs)
        unfinished = any(run.outcome != "ok" for run in runs)
        return Target(scenario, "lost, twice or out of order", "at most", 0, math.nan if unfinished else wrong)

    yield beside("send-receive", "rate", _PUBSUB, 3)
    yield beside("ping-pong", "p50", _PUBSUB, 0.9)
    yield beside("ping-pong", "p99", _PUBSUB, 1)
    yield beside("ping-pong", "p99", _CORE, 1)
    yield beside("many-senders", "rate", _PUBSUB, 8)
    yield beside("many-senders", "rate", _CORE, 40)
    yield beside("broadcast-1x10", "rate", _MEMORY, 1)
    yield beside("broadcast-1x10", "rate", _PUBSUB, 1)
    yield beside("broadcast-4x250", "rate", _PUBSUB, 1.1)
    yield beside("broadcast-2x5000", "rate", _PUBSUB, 1.4)
    yield beside("broadcast-2x5000", "rate", _CORE, 6)
    yield beside("work-queue", "rate", _CORE, 5)
    yield without_fault("work-queue")
    for scenario in ("sync-send", "sync-group-send"):
        yield Target(scenario, "call p50, us", "at most", 100, ours(scenario, "p50"))
        yield beside(scenario, "p50", _MEMORY, 1 / 10)
        yield beside(scenario, "p50", _CORE, 1 / 30)
    yield Target("idle", "CPU, s/s", "at most", 0.003, ours("idle", "cpu"))
    more_mib = ours("idle", "memory") - results.median("idle", _MEMORY, "memory")
    yield Target("idle", f"resident memory, MiB more than {CANDIDATES[_MEMORY].title}", "at most", 10, more_mib)
    yield beside("lag", "p99", _MEMORY, 1.5)
    yield without_fault("lag")
    for scenario in ("websockets-1x300-direct", "websockets-2x300-direct"):
        yield Target(scenario, "servers' CPU per delivery, us", "at most", 22, ours(scenario, "cpu"))
        yield beside(scenario, "cpu", _PUBSUB, 1)
        yield beside(scenario, "cpu", _CORE, 1 / 2)
    for scenario in ("tasks-latency-idle", "tasks-latency-load"):
        yield Target(scenario, "enqueue to start, p50, ms", "at most", 5, ours(scenario, "p50"))
    for processes in (1, 2, 4):
        for other in SCENARIOS[f"tasks-run-{processes}"].layers:
            if other != OURS.key:
                yield beside(f"tasks-run-{processes}", "rate", other, 1)
    yield without_fault("tasks-enqueue-4-writers")
    for stored in SCENARIOS.values():
        if stored.base is None:
            continue
        metric = stored.metrics[0]
        bound: Literal["at least", "at most"] = "at least" if metric.higher_is_better else "at most"
        factor = 1.5 if stored.of_tasks else 1.15
        limit = 1 / factor if metric.higher_is_better else factor
        seen = results.ratio_to_base(stored.key, OURS.key, metric.key) or math.nan
        yield Target(stored.key, f"{metric.title}, times that without backlog", bound, limit, seen)
    for key, title in (("p99", "latency p99"), ("file", "file size"), ("wal", "WAL size")):
        figure = f"{title}, later minutes' median, times that of the earlier ones"
        yield Target("steady", figure, "at most", 1.1, _trend(results, key))


def _trend(results: Results, key: str) -> float:
    """Return how many times the first half's median the second half's is, without the first minute."""
    values = [row[key] for run in results.of("steady", OURS.key) for row in run.series[1:]]
    half = len(values) // 2
    if not half or not all(values):
        return math.nan
    return statistics.median(values[-half:]) / statistics.median(values[:half])
