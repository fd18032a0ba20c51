"""The verdict on one storm: its figures, and everything that was wrong."""

import json
import statistics
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.endurance.judging import Judge, Times
from tests.endurance.logs import read_logs
from tests.endurance.plan import WEIGHTS
from tests.endurance.storm import Evidence
from tests.endurance.watching import WAL_BOUND_BYTES, Belongings

# Growth is told from warming up only in storms of some length.
GROWTH_JUDGED_S = 180.0
RSS_GROWTH_KIB, DESCRIPTOR_GROWTH, THREAD_GROWTH = (8 * 1024, 15, 3)
DESCRIPTORS_LEFT = 15
"""More than it had when everybody else was there."""
SHOWN = 12

# Judged in every storm, so that a clean one says 0.
JUDGED = (
    "doubled",
    "lost",
    "swapped",
    "broadcasts missed",
    "delivered after expiry",
    "delivered to later members",
    "refused and delivered",
    "never sent",
    "wrong channel",
    "hanging calls",
    "receive() that never came back",
    "calls that failed",
    "left by dead processes after 10 s",
    "left when all had ended",
    "WAL larger than 64 MiB",
    "growth",
    "lines at ERROR",
    "tracebacks",
    "processes that ended by themselves",
    "damage to the file",
)


@dataclass
class Verdict:
    """Figures by name, and for each of `JUDGED` how many faults there were, with what the first ones were."""

    seed: int
    minutes: float
    figures: dict[str, float] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not any(self.faults.values())

    def add(self, kind: str, examples: list[str], count: int | None = None) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + (len(examples) if count is None else count)
        if examples:
            self.examples.setdefault(kind, []).extend(examples[:SHOWN])

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Verdict":
        return cls(**json.loads(path.read_text()))


def verdict_on(evidence: Evidence) -> Verdict:
    verdict = Verdict(evidence.seed, evidence.minutes, faults=dict.fromkeys(JUDGED, 0))
    judge = _judge(evidence)
    for kind, found in judge.faults.items():
        verdict.add(kind, found.told(), found.count)
    verdict.add("hanging calls", evidence.hangs.faults)
    verdict.add("hanging calls", evidence.late)
    verdict.add("receive() that never came back", evidence.stuck)
    verdict.add("left by dead processes after 10 s", evidence.residue.after_deadline)
    verdict.add("left when all had ended", evidence.residue.after_all_ended)
    verdict.add("processes that ended by themselves", evidence.crew.faults)
    if evidence.integrity != "ok":
        verdict.add("damage to the file", [evidence.integrity])
    if evidence.wal.largest_bytes > WAL_BOUND_BYTES:
        verdict.add("WAL larger than 64 MiB", [evidence.wal.over])
    verdict.add("growth", _growth(evidence))
    _add_logs(verdict, evidence)
    verdict.figures = _figures(evidence, judge)
    return verdict


def _judge(evidence: Evidence) -> Judge:
    stops = evidence.crew.stops_by_incarnation()
    judge = Judge(evidence.folder, Times(evidence.crew.deaths, stops, evidence.living))
    judge.judge()
    return judge


def _add_logs(verdict: Verdict, evidence: Evidence) -> None:
    logged = read_logs(evidence.folder, evidence.monkey.removed_folder_at)
    for kind, lines in (("lines at ERROR", logged.errors), ("tracebacks", logged.tracebacks)):
        verdict.add(kind, [f"{count} x {text}" for text, count in lines.most_common(SHOWN)], lines.total())
    verdict.remarks += [f"{count} x warning {text}" for text, count in logged.warnings.most_common(SHOWN)]


def _growth(evidence: Evidence) -> list[str]:
    """What the long-lived processes hold more in the last quarter of the storm than in the second one."""
    grown = []
    for name, seen in evidence.belongings.seen.items():
        if evidence.minutes * 60 < GROWTH_JUDGED_S:
            continue
        for what, limit in (
            ("rss_kib", RSS_GROWTH_KIB),
            ("descriptors", DESCRIPTOR_GROWTH),
            ("threads", THREAD_GROWTH),
        ):
            before, after = _quarters(seen, what)
            if after - before > limit:
                grown.append(f"{what} of {name}: {before:,.0f} to {after:,.0f}")
    at_begin, at_end = evidence.descriptors
    if at_end > at_begin + DESCRIPTORS_LEFT:
        grown.append(f"descriptors of the observer: {at_begin} at the start, {at_end} when all others had ended")
    return grown


def _quarters(seen: list[Belongings], what: str) -> tuple[float, float]:
    """The lower quartiles of the second and of the last quarter: what a burst takes for a moment does not count."""
    quarter = max(len(seen) // 4, 2)
    values: list[float] = [getattr(one, what) for one in seen]
    return _low(values[quarter : 2 * quarter]), _low(values[-quarter:])


def _low(values: list[float]) -> float:
    return statistics.quantiles(values, n=4)[0] if len(values) > 1 else sum(values)


def _figures(evidence: Evidence, judge: Judge) -> dict[str, float]:
    counted = judge.figures
    done = evidence.monkey.done
    deaths = Counter(death.how for death in evidence.crew.deaths)
    figures: dict[str, float] = {
        "messages": counted["sent"] + counted["delivered"],
        "sent": counted["sent"],
        "delivered": counted["delivered"],
        "of these broadcasts": counted["broadcasts delivered"],
        "refused (ChannelFull)": counted["refused"],
        "cut off by a close": counted["cut_off"],
        "not delivered": counted["not delivered"],
        "of these held by killed readers": counted["held by killed readers"],
        "processes": len(evidence.crew.deaths),
        "killed": deaths["killed"],
    }
    figures |= {f"done: {kind}": done[kind] for kind in (*WEIGHTS, "socket files")}
    figures |= {
        "forks": counted["forks"],
        "longest fork, ms": judge.longest_fork_us / 1000,
        "closes": counted["closes"],
        "longest close, ms": judge.longest_close_ms,
        "receive() cancelled": counted["cancelled"],
        "WAL at most, MiB": evidence.wal.largest_bytes / 2**20,
        "WAL while excused, MiB": evidence.wal.largest_excused_bytes / 2**20,
    }
    figures |= {f"excused: {reason}, s": seconds for reason, seconds in evidence.wal.excused_s.items()}
    figures |= {f"longest {kind} seen, s": seconds for kind, seconds in sorted(evidence.hangs.longest_s.items())}
    gone = evidence.residue.gone_after_s
    figures["residue gone after, s"] = -1.0 if gone is None else gone
    for name, seen in evidence.belongings.seen.items():
        if len(seen) >= 8:
            for what, unit in (("rss_kib", 1024), ("descriptors", 1), ("threads", 1)):
                before, after = _quarters(seen, what)
                label = "MiB" if what == "rss_kib" else what
                figures[f"{name}: {label}, second quarter"] = before / unit
                figures[f"{name}: {label}, last quarter"] = after / unit
    figures["observer: descriptors at the start"], figures["observer: descriptors at the end"] = evidence.descriptors
    return figures
