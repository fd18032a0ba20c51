"""What the processes of a storm logged: lines at ERROR and tracebacks that nothing explains."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tests.endurance.journal import LOG_SUFFIX

LINE = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (\w+) ([\w.]+) \[\d+\]: (.*)$")
TRACEBACK = "Traceback (most recent call last)"
LOUD = ("ERROR", "CRITICAL")


@dataclass(frozen=True)
class Normal:
    """A line at ERROR that is right. `within_s`: only so soon after the wake folder was removed; None: always."""

    pattern: "re.Pattern[str]"
    reason: str
    within_s: float | None = None


NORMAL = (
    Normal(
        re.compile(r"(housekeeping|writing down the counters|opening the database again) failed .*No such file"),
        "the wake folder went while a file was made in it; it is made anew at the next tick",
        within_s=3.0,
    ),
)


@dataclass
class Logged:
    """What was found. `kinds` counts lines that are alike but for numbers and names."""

    errors: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    tracebacks: Counter[str] = field(default_factory=Counter)
    explained: int = 0


def read_logs(folder: Path, removed_folder_at: list[float]) -> Logged:
    found = Logged()
    for path in sorted(folder.glob(f"*{LOG_SUFFIX}")):
        for kind, text, at in _events(path):
            if kind == "traceback":
                found.tracebacks[_alike(text)] += 1
            elif kind == "WARNING":
                found.warnings[_alike(text)] += 1
            elif _is_normal(text, at, removed_folder_at):
                found.explained += 1
            else:
                found.errors[_alike(text)] += 1
    return found


def _events(path: Path) -> Iterator[tuple[str, str, float]]:
    """(level or "traceback", text, time) of what a log holds; a traceback's text is the error that it ends with."""
    at = 0.0
    in_traceback = False
    with path.open(encoding="utf-8", errors="replace") as lines:
        for raw in lines:
            line = raw.rstrip("\n")
            match = LINE.match(line)
            if match is not None:
                at = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()  # noqa: DTZ007  # local, as logged
                if match[2] in (*LOUD, "WARNING"):
                    yield match[2], f"{match[3]}: {match[4]}", at
            elif line.startswith("UNEXPECTED"):
                yield "ERROR", line, at
            if TRACEBACK in line:
                in_traceback = True
            elif in_traceback and line and not line[0].isspace():
                in_traceback = False
                yield "traceback", line, at
    if in_traceback:
        yield "traceback", "(cut off)", at


def _is_normal(text: str, at: float, removed_folder_at: list[float]) -> bool:
    for normal in NORMAL:
        if normal.pattern.search(text) and (
            normal.within_s is None
            or any(removed - 1.0 <= at <= removed + normal.within_s for removed in removed_folder_at)
        ):
            return True
    return False


def _alike(text: str) -> str:
    text = re.sub(r"\b[0-9a-f]{16}\b", "CLIENT", text)
    text = re.sub(r"/[^\s'\"]+", "PATH", text)
    return re.sub(r"\d+(\.\d+)?", "N", text)[:200]
