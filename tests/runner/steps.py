"""Running commands, and remembering how each of them went."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".environments"


class SetUpError(Exception):
    """The machine lacks something that the tests need; the text says what, and how to get it."""


@dataclass
class Step:
    """One thing that was done: its name, whether it went well, and the seconds it took."""

    name: str
    ok: bool
    took_s: float
    remark: str = ""
    tests: bool = False
    """Whether it ran tests, whose failures are counted one by one."""


@dataclass
class Steps:
    """All that was done so far, in order."""

    done: list[Step] = field(default_factory=list)

    def run(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        deadline_s: float,
        variables: Mapping[str, str] | None = None,
    ) -> bool:
        """Run one command and record it under `name`; return whether it ended with status 0.

        What it prints is shown when it fails. `deadline_s`: seconds after which it is killed and counts as failed.
        """
        announce(name)
        started = time.monotonic()
        ok, output = call(command, deadline_s=deadline_s, variables=variables)
        took_s = time.monotonic() - started
        if not ok and output:
            print(output.rstrip(), flush=True)
        self.add(name, ok, took_s)
        return ok

    def add(self, name: str, ok: bool, took_s: float = 0.0, remark: str = "", *, tests: bool = False) -> None:
        """Record something that was done, and print how it went."""
        self.done.append(Step(name, ok, took_s, remark, tests))
        mark = "ok" if ok else "FAILED"
        print(f"    {mark} ({took_s:.1f} s)" + (f": {remark}" if remark else ""), flush=True)


def announce(name: str) -> None:
    """Print what comes next."""
    print(f"==> {name}", flush=True)


def call(
    command: Sequence[str | Path],
    *,
    deadline_s: float,
    show: bool = False,
    folder: Path = ROOT,
    variables: Mapping[str, str] | None = None,
) -> tuple[bool, str]:
    """Run a command without standard input; return whether it ended with status 0, and what it printed.

    `show`: its output goes to the terminal as it comes, and is not returned.
    `deadline_s`: seconds after which it is killed and counts as failed.
    """
    # Nothing of the calling environment's Python may leak into the environments made here. The hundreds of processes
    # that tests start share compiled code, which is kept out of the source tree.
    foreign = {"PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"}
    environment = {key: value for key, value in os.environ.items() if key not in foreign}
    environment["PYTHONPYCACHEPREFIX"] = str(CACHE / "pycache")
    environment.update(variables or {})
    try:
        finished = subprocess.run(
            [str(part) for part in command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=deadline_s,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        # It is bytes whatever the encoding, or None when shown.
        seen: object = late.stdout
        text = seen.decode("utf-8", "replace") if isinstance(seen, bytes) else str(seen or "")
        return False, f"{text}\nkilled: it took longer than {deadline_s:.0f} s"
    except OSError as error:
        return False, f"{command[0]}: {error}"
    return finished.returncode == 0, finished.stdout or ""


def summary(steps: Steps, passed: int, failed: int, skipped: int) -> None:
    """Print all steps, and the closing line."""
    print("\nSummary", flush=True)
    for step in steps.done:
        mark = "ok    " if step.ok else "FAILED"
        print(f"  {mark} {step.took_s:7.1f} s  {step.name}" + (f": {step.remark}" if step.remark else ""))
    sys.stdout.flush()
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
