"""The command line of the benchmarks."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .host import describe_host
from .layers import CANDIDATES, OURS
from .measures import Effort, Run
from .progress import Progress
from .report import to_json, to_markdown
from .runner import run_once
from .scenarios import SCENARIOS

__all__: list[str] = []

_FULL = Effort(seconds=3.0, messages=20_000)
_QUICK = Effort(seconds=0.5, messages=2_000)
_QUICK_LAYERS = ("sqlite", "memory")


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for and print the report. Status 1 when our own layer lost, doubled, hung or failed."""
    options = _parser().parse_args(arguments)
    layers = options.layer or (list(_QUICK_LAYERS) if options.quick else list(CANDIDATES))
    missing = {layer: reason for layer in layers if (reason := CANDIDATES[layer].missing()) is not None}
    for layer, reason in missing.items():
        print(f"{layer} is left out: {reason} is not installed", file=sys.stderr)
    layers = [layer for layer in CANDIDATES if layer in layers and layer not in missing]
    if not layers:
        print("no layer is left to measure", file=sys.stderr)
        return 2
    # A plain kill would leave servers and workers behind; an exception stops them on its way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    repetitions = options.repetitions or (1 if options.quick else 3)
    with tempfile.TemporaryDirectory(prefix="channel-benchmarks-", dir=options.folder) as name:
        folder = Path(name)
        host = describe_host(folder)
        runs = _run_all(
            scenarios=[scenario for scenario in SCENARIOS if scenario in (options.scenario or SCENARIOS)],
            layers=layers,
            repetitions=repetitions,
            effort=_QUICK if options.quick else _FULL,
            folder=folder,
        )
    command = " ".join(["python -m tests.benchmarks", *arguments])
    print(to_markdown(runs, host, command), end="")
    if options.json is not None:
        options.json.write_text(to_json(runs, host, command))
    return 1 if any(_is_faulty(run) for run in runs if run.layer == OURS.key) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure channel layers beside each other; the report is Markdown on standard output.",
    )
    parser.add_argument("--quick", action="store_true", help="ours and InMemory, one short repetition, under a minute")
    parser.add_argument("--layer", action="append", choices=list(CANDIDATES), help="only this layer (repeatable)")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only this one (repeatable)")
    parser.add_argument("--repetitions", type=_positive, metavar="N", help="runs of each (3; 1 with --quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all runs and the summary to FILE, too")
    parser.add_argument("--folder", type=Path, help="make the stores in here (the system's temporary folder)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _run_all(
    *, scenarios: Sequence[str], layers: Sequence[str], repetitions: int, effort: Effort, folder: Path
) -> list[Run]:
    """Run everything; the layers take turns, so that what disturbs the machine for a while disturbs all of them."""
    runs: list[Run] = []
    progress = Progress(repetitions * len(scenarios) * len(layers))
    try:
        for repetition in range(repetitions):
            for scenario in scenarios:
                for layer in layers:
                    step = f"{scenario} over {layer}, repetition {repetition + 1}"
                    progress.begin(step)
                    run = run_once(SCENARIOS[scenario], CANDIDATES[layer], repetition, effort, folder)
                    runs.append(run)
                    progress.finish(f"{step}: {run.outcome} in {run.seconds:.1f} s")
    finally:
        progress.close()
    return runs


def _is_faulty(run: Run) -> bool:
    return run.outcome != "ok" or bool(run.remark or run.counts.lost or run.counts.twice or run.counts.disordered)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
