"""Runs all tests and checks, on a machine that has nothing but Python 3.10 or newer and pip: `python -m tests`.

It gets uv, makes its environments in `.environments/`, installs Chromium and redis-server (as root on Debian), and
then tests the lowest and the highest supported Python and Django that the machine has, and the built wheel.

    python -m tests                  everything
    python -m tests --quick          checks and the fast tests, on the highest versions alone
    python -m tests -k codec         only tests whose names match
    python -m tests -- -x --pdb      what follows -- goes to pytest
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if sys.version_info < (3, 10):  # noqa: UP036 - said clearly, before anything else fails strangely
    sys.exit("python -m tests needs Python 3.10 or newer")

from tests.runner.environments import Environment, make_environment
from tests.runner.machine import Interpreter, Uv, find_interpreters, find_uv, install_programs
from tests.runner.packages import build, copy_tests, faults
from tests.runner.results import Results, read_junit
from tests.runner.steps import CACHE, ROOT, SetUpError, Steps, announce, call, summary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOWEST_DJANGO = "django==5.2.*"
CHECK_DEADLINE_S = 600
TESTS_DEADLINE_S = 2400
QUICK_MARKERS = "not slow and not browser and not processes and not faults"
# What the wheel could lack is found by any tests that use the package. The two folders look at the source tree.
WHEEL_ARGUMENTS = ("-m", QUICK_MARKERS, "--ignore=tests/typing", "--ignore=tests/packaging", "--ignore=tests/browser")


@dataclass(frozen=True)
class Choices:
    """What the command line asked for."""

    quick: bool
    keyword: str | None
    pytest_arguments: tuple[str, ...]

    @property
    def whole_suite(self) -> bool:
        """Whether every test was asked for, so that a missing one is a fault."""
        return not (self.quick or self.keyword or self.pytest_arguments)


def main(arguments: Sequence[str]) -> int:
    """Do it all; return the exit status."""
    choices = _choices(arguments)
    steps = Steps()
    results = Results()
    started = time.monotonic()
    try:
        _everything(choices, steps, results)
    except SetUpError as error:
        print(f"\n{error}", flush=True)
        steps.add("Set-up", ok=False, remark=str(error).partition("\n")[0])
    except KeyboardInterrupt:
        steps.add("Interrupted", ok=False)
    failed = results.failed + sum(not step.ok and not step.tests for step in steps.done)
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    summary(steps, results.passed, failed, results.skipped)
    return 1 if failed else 0


def _choices(arguments: Sequence[str]) -> Choices:
    parser = argparse.ArgumentParser(
        prog="python -m tests", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="checks and fast tests on the highest versions alone")
    parser.add_argument("-k", dest="keyword", metavar="EXPRESSION", help="only tests whose names match")
    parser.add_argument("pytest_arguments", nargs="*", metavar="-- ARGUMENTS", help="for pytest")
    given = parser.parse_args(arguments)
    return Choices(quick=given.quick, keyword=given.keyword, pytest_arguments=tuple(given.pytest_arguments))


def _everything(choices: Choices, steps: Steps, results: Results) -> None:
    CACHE.mkdir(exist_ok=True)
    uv = find_uv()
    if not choices.quick:
        install_programs()
    interpreters = find_interpreters(uv)
    print("Python found: " + ", ".join(found.version for found in interpreters), flush=True)
    lowest, highest = interpreters[0], interpreters[-1]

    sources = ["--editable", ".[cryptography]", "--group", "dev"]
    newest = make_environment(uv, f"highest {highest.version}", highest, sources)
    oldest = None
    if not choices.quick:
        oldest = make_environment(uv, f"lowest {lowest.version}", lowest, [*sources, LOWEST_DJANGO])
    for environment in filter(None, (oldest, newest)):
        print(f"{environment.name}: {environment.describe()}", flush=True)

    if not choices.keyword:
        _checks(steps, newest, oldest)
    for environment in filter(None, (oldest, newest)):
        _tests(choices, steps, results, environment)
    if not choices.quick:
        _wheel(choices, steps, results, uv, highest)


def _checks(steps: Steps, newest: Environment, oldest: Environment | None) -> None:
    """Format, lint, types and stubs."""
    ruff, mypy = newest.program("ruff"), newest.program("mypy")
    example = "tests/typing/example.ini"
    stubtest: list[str | Path] = [newest.program("stubtest"), "--mypy-config-file", "mypy.ini", "--concise"]
    # Our stubs hold only what is used.
    stubtest += ["--ignore-missing-stub", "--allowlist", "stubs/allowlist.txt"]
    pyright: list[str | Path] = [newest.python, "-m", "pyright", "--pythonpath", newest.python]
    stub_path = {"MYPYPATH": str(ROOT / "stubs")}
    commands: list[tuple[str, list[str | Path], dict[str, str]]] = [
        ("ruff format --check", [ruff, "format", "--check", "."], {}),
        ("ruff check", [ruff, "check", "."], {}),
        ("mypy", [mypy], {}),
        ("mypy of the example", [mypy, "--config-file", example], {}),
        ("pyright", pyright, {}),
        ("stubtest", [*stubtest, *_stubbed_packages()], stub_path),
    ]
    if oldest is not None:
        commands.append((f"mypy, {oldest.name}", [oldest.program("mypy")], {}))
    for name, command, variables in commands:
        steps.run(name, command, deadline_s=CHECK_DEADLINE_S, variables=variables)


def _stubbed_packages() -> list[str]:
    return sorted(path.name for path in (ROOT / "stubs").iterdir() if path.is_dir())


def _tests(
    choices: Choices,
    steps: Steps,
    results: Results,
    environment: Environment,
    *,
    folder: Path = ROOT,
    extra: Sequence[str] = (),
) -> None:
    """Run pytest in one environment, and judge what it wrote down."""
    report = CACHE / f"{environment.folder.name}.xml"
    report.unlink(missing_ok=True)
    command: list[str | Path] = [environment.python, "-m", "pytest", "--quiet", f"--junitxml={report}", *extra]
    if choices.quick:
        command += ["-m", QUICK_MARKERS]
    if choices.keyword:
        command += ["-k", choices.keyword]
    name = f"Tests, {environment.name}"
    started = time.monotonic()
    announce(name)
    command += choices.pytest_arguments
    ok, _ = call(command, deadline_s=TESTS_DEADLINE_S, show=True, folder=folder)
    found = read_junit(report)
    complaints = [f"skipped, though it must run: {test}" for test in found.required_skipped]
    if choices.whole_suite and not extra:
        complaints += [f"no test with the marker {marker!r} ran" for marker, n in found.required_run.items() if n == 0]
    for complaint in complaints:
        print(f"    {complaint}", flush=True)
    if not ok and not found.failed and not complaints:
        complaints = ["pytest itself failed"]
    found.failed += len(complaints)
    results.add(found)
    remark = f"{found.passed} passed, {found.failed} failed, {found.skipped} skipped"
    if found.expected_failures:
        remark += f", {found.expected_failures} failed as expected"
    steps.add(name, ok=ok and not complaints, took_s=time.monotonic() - started, remark=remark, tests=True)


def _wheel(choices: Choices, steps: Steps, results: Results, uv: Uv, interpreter: Interpreter) -> None:
    """Build the distributions, and test the wheel where the source tree cannot be seen."""
    started = time.monotonic()
    wheel = build(uv)
    found = faults(wheel)
    steps.add("Wheel and source distribution", ok=not found, took_s=time.monotonic() - started, remark="; ".join(found))
    requirements = [str(wheel.relative_to(ROOT)) + "[cryptography]", "--group", "test"]
    environment = make_environment(uv, f"wheel {interpreter.version}", interpreter, requirements)
    _tests(choices, steps, results, environment, folder=copy_tests(), extra=WHEEL_ARGUMENTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
