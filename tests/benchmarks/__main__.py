"""The command line of the benchmarks."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .host import describe_host
from .layers import CANDIDATES, OURS
from .measures import Effort, Run
from .progress import Progress
from .report import is_faulty, to_json, to_markdown
from .runner import run_once
from .scenarios import SCENARIOS, Scenario

__all__: list[str] = []

_FULL = Effort(seconds=2.0, messages=20_000, backlog=100_000)
_QUICK = Effort(seconds=0.3, messages=1_000, backlog=10_000)
_QUICK_LAYERS = ("sqlite", "memory")
_STEADY_MESSAGES = 10**8


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for and print the report.

    Returns 1 when our own layer lost, doubled, hung or failed, 2 when there was nothing to measure.
    """
    options = _parser().parse_args(arguments)
    asked = options.layer or (list(_QUICK_LAYERS) if options.quick else list(CANDIDATES))
    left_out = {layer: reason for layer in asked if (reason := CANDIDATES[layer].missing()) is not None}
    for layer, reason in left_out.items():
        print(f"{layer} is left out: {reason}", file=sys.stderr)
    layers = [layer for layer in CANDIDATES if layer in asked and layer not in left_out]
    if not layers:
        print("no layer is left to measure", file=sys.stderr)
        return 2
    # A plain kill would leave servers and workers behind; an exception stops them on its way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    command = " ".join(["python -m tests.benchmarks", *arguments])
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="channel-benchmarks-", dir=options.folder) as name:
        folder = Path(name)
        # A server that runs as another user must be able to pass.
        folder.chmod(0o711)
        host = describe_host(folder)
        try:
            _run_all(_steps(options, layers), folder, runs)
        finally:
            # Interrupted after an hour, it still tells what it has seen.
            print(to_markdown(runs, host, command, left_out), end="", flush=True)
            if options.json is not None:
                options.json.write_text(to_json(runs, host, command, left_out))
    return 1 if any(is_faulty(run) for run in runs if run.layer == OURS.key) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure channel layers beside each other; the report is Markdown on standard output.",
    )
    parser.add_argument("--quick", action="store_true", help="ours and InMemory, one short repetition, under a minute")
    parser.add_argument(
        "--layer", action="append", choices=list(CANDIDATES), help="only this layer or task queue (repeatable)"
    )
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only this one (repeatable)")
    parser.add_argument(
        "group", nargs="*", type=_group, help="only the scenarios of this name or beginning, such as websockets"
    )
    parser.add_argument("--repetitions", type=_positive, metavar="N", help="runs of each (3; 1 with --quick)")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="how long one run sends, at most (2; 0.3 with --quick)"
    )
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="length of the steady scenario (10)")
    parser.add_argument(
        "--peer-minutes", type=float, default=2.0, metavar="M", help="its length over the other layers, at most (2)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all runs and the summary to FILE, too")
    parser.add_argument("--folder", type=Path, help="make the stores in here (the system's temporary folder)")
    return parser


def _group(text: str) -> list[str]:
    keys = [key for key in SCENARIOS if key == text or key.startswith(f"{text}-")]
    if not keys:
        raise argparse.ArgumentTypeError(f"no scenario's name is or begins with {text!r}: {', '.join(SCENARIOS)}")
    return keys


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


@dataclass(frozen=True)
class _Step:
    """One run to do."""

    scenario: str
    layer: str
    repetition: int
    effort: Effort


def _steps(options: argparse.Namespace, layers: Sequence[str]) -> list[_Step]:
    """Return all runs; the layers take turns, so that what disturbs the machine for a while disturbs all of them."""
    effort = _QUICK if options.quick else _FULL
    if options.seconds is not None:
        effort = replace(effort, seconds=options.seconds)
    repetitions = options.repetitions or (1 if options.quick else 3)
    steady = Effort(seconds=60 * options.minutes, messages=_STEADY_MESSAGES)
    steady_of_peers = replace(steady, seconds=60 * min(options.minutes, options.peer_minutes))
    by_default = [key for key, scenario in SCENARIOS.items() if scenario.in_quick or not options.quick]
    named = [*(options.scenario or ()), *(key for group in options.group for key in group)]
    chosen = [key for key in SCENARIOS if key in (named or by_default)]

    def effort_of(scenario: str, layer: str) -> Effort:
        if not SCENARIOS[scenario].once:
            return effort
        return steady if layer == OURS.key else steady_of_peers

    return [
        _Step(scenario, layer, repetition, effort_of(scenario, layer))
        for repetition in range(repetitions)
        for scenario in chosen
        if repetition == 0 or not SCENARIOS[scenario].once
        for layer in layers
        if _is_for(SCENARIOS[scenario], layer)
    ]


def _is_for(scenario: Scenario, layer: str) -> bool:
    return layer in scenario.layers if scenario.layers else CANDIDATES[layer].is_layer


def _run_all(steps: Sequence[_Step], folder: Path, runs: list[Run]) -> None:
    """Do all steps, and add what came out to ``runs`` one by one; what gave no figure in its time is not repeated."""
    progress = Progress(len(steps))
    hopeless = set()
    try:
        for step in steps:
            name = f"{step.scenario} over {step.layer}, repetition {step.repetition + 1}"
            progress.begin(name)
            if (step.scenario, step.layer) in hopeless:
                progress.finish(f"{name}: not repeated")
                continue
            run = run_once(SCENARIOS[step.scenario], CANDIDATES[step.layer], step.repetition, step.effort, folder)
            runs.append(run)
            if run.ran_out_of_time:
                hopeless.add((step.scenario, step.layer))
            progress.finish(f"{name}: {run.outcome} in {run.seconds:.1f} s")
    finally:
        progress.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
