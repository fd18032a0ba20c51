"""A storm over one SQLite file: processes send and receive while a monkey kills, stops, closes and removes things.

    python -m tests.endurance                        one minute
    python -m tests.endurance --minutes 10 --seeds 6 an hour: six storms, each with a seed of its own
    python -m tests.endurance --seed 3 --keep        seed 3, and the journals and logs stay

Prints a table of figures, and everything that was wrong; then the exit status is 1, and the folder stays. What the
monkey does is fixed by the seed; what it meets depends on the machine. Linux only.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.endurance.plan import WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
VERDICT = "verdict.json"


def main(arguments: Sequence[str]) -> int:
    """Run the storms; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.endurance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="length of each storm (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first storm (default: 1)")
    parser.add_argument("--seeds", type=int, default=1, help="how many storms, with seeds that follow (default: 1)")
    parser.add_argument("--pace", type=float, default=1.0, help="times the usual rate of sending (default: 1)")
    parser.add_argument("--keep", action="store_true", help="keep the folders of clean storms too")
    parser.add_argument("--folder", type=Path, help="where to put the storms' folders (default: the temporary folder)")
    parser.add_argument("--without", nargs="*", default=[], choices=sorted(WEIGHTS), help="what the monkey leaves out")
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if sys.platform != "linux":
        parser.error("a storm needs Linux: it reads /proc")
    if given.only is not None:
        return _one_storm(given)
    return _all_storms(given)


def _all_storms(given: argparse.Namespace) -> int:
    from tests.endurance.report import print_faults, print_report
    from tests.endurance.verdict import Verdict

    verdicts: list[Verdict] = []
    failed = False
    for seed in range(given.seed, given.seed + given.seeds):
        folder = Path(tempfile.mkdtemp(prefix=f"storm-{seed}-", dir=given.folder))
        print(f"seed {seed}, {given.minutes:g} minutes, in {folder}", flush=True)
        began = time.monotonic()
        # A process of its own: Django's settings, and all that was forked, end with it.
        command = [sys.executable, "-m", "tests.endurance", "--only", str(folder), "--seed", str(seed)]
        command += ["--minutes", str(given.minutes), "--pace", str(given.pace), "--without", *given.without]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        print(f"seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
        if status or not (folder / VERDICT).exists():
            failed = True
            print(f"seed {seed}: the storm itself failed; what there is lies in {folder}", flush=True)
            continue
        verdict = Verdict.read(folder / VERDICT)
        verdicts.append(verdict)
        print_faults(verdict)
        if verdict.clean and not given.keep:
            shutil.rmtree(folder)
        else:
            print(f"\nseed {seed}: journals and logs are in {folder}", flush=True)
    if verdicts:
        print()
        print_report(verdicts)
    return 1 if failed or not all(verdict.clean for verdict in verdicts) else 0


def _one_storm(given: argparse.Namespace) -> int:
    from tests.endurance.storm import Storm, StormError
    from tests.endurance.verdict import verdict_on

    try:
        evidence = Storm(given.only, given.seed, given.minutes, given.pace, given.without).run()
    except StormError as error:
        print(error, flush=True)
        return 1
    verdict_on(evidence).write(given.only / VERDICT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
