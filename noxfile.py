"""What `python -m tests` runs, and `nox` alike: all checks and tests. What follows `--` goes to pytest."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
ENVIRONMENTS = ROOT / ".environments"
sys.path.insert(0, str(ROOT))

from tests.packaging.distributions import faults
from tests.packaging.site import from_elsewhere
from tests.support import forky
from tests.support.machine import MissingProgramsError, find_interpreters, install_programs

nox.options.default_venv_backend = "uv"
nox.options.envdir = ENVIRONMENTS
# An interpreter that the machine lacks is not fetched: what a machine has is what it tests.
nox.options.download_python = "never"
nox.options.stop_on_first_error = False

PACKAGE = ".[cryptography]"
INTERPRETERS = find_interpreters(nox.virtualenv.UV)
PATHS = list(INTERPRETERS.values())
ENDS = [nox.param(PATHS[0], "lowest", id="lowest"), nox.param(PATHS[-1], "highest", id="highest")]
CORES = [nox.param(path, id=version) for version, path in INTERPRETERS.items() if path in PATHS[1:-1]]
if forky.VERSION not in INTERPRETERS:
    # No interpreter, no environment.
    CORES.append(nox.param(False, id=forky.VERSION))

# Folders that depend on Django, the servers and the documentation more than on Python. The rest is the core: Python's
# own sqlite3, asyncio, threads and forks.
NOT_CORE = ("browser", "django", "endurance", "faults", "packaging", "servers", "support", "tasks", "typing")
CORE_ARGUMENTS = tuple(f"--ignore=tests/{folder}" for folder in NOT_CORE)
# What the wheel could lack is found by any tests that use all of the package.
WHEEL_ARGUMENTS = (
    *("-m", "not slow and not processes"),
    *(f"tests/{folder}" for folder in ("conformance", "consumers", "django", "facade", "storage", "vocabulary")),
)
# Our stubs hold only what is used.
STUBTEST_ARGUMENTS = (
    *("--mypy-config-file", "mypy.ini", "--concise"),
    *("--ignore-missing-stub", "--allowlist", "stubs/allowlist.txt"),
)
TESTS_DEADLINE_S = 2400
# Most tests wait for processes that start, or for each other's.
IN_PARALLEL = ("-n2", "--dist=loadgroup")

VERSIONS = (
    "import platform, sqlite3, django, channels;"
    "print(f'Python {platform.python_version()}, Django {django.__version__}, '"
    "f'channels {channels.__version__}, SQLite {sqlite3.sqlite_version}')"
)
# A browser or process test that is skipped fails (tests/conftest.py).
VARIABLES = {"CI": "true"}


@nox.session
def lint(session: nox.Session) -> None:
    """Format and lint: ruff. The site: mkdocs, and whether it needs anything from elsewhere."""
    install(session, "--group", "lint", "--group", "docs")
    site = ENVIRONMENTS / "site"
    build = ["mkdocs", "build", "--strict", "--site-dir", str(site)]
    session.env["NO_MKDOCS_2_WARNING"] = "1"  # what the theme has to say of the next MkDocs
    run_all(session, ["ruff", "format", "--check", "."], ["ruff", "check", "."], build)
    fetched = from_elsewhere(site)
    if fetched:
        session.error("; ".join(fetched))


@nox.session
@nox.parametrize("python,end", ENDS)
def typing(session: nox.Session, end: str) -> None:
    """Types: mypy at both ends of the range; mypy of the example, pyright and stubtest at the highest."""
    install_end(session, end)
    if end == "lowest":
        session.run("mypy")
        return
    stubbed = sorted(path.name for path in (ROOT / "stubs").iterdir() if path.is_dir())
    session.env["MYPYPATH"] = str(ROOT / "stubs")
    run_all(
        session,
        ["mypy"],
        ["mypy", "--config-file", "tests/typing/example.ini"],
        ["pyright", "--pythonpath", f"{session.bin}/python"],
        ["stubtest", *STUBTEST_ARGUMENTS, *stubbed],
    )


@nox.session
@nox.parametrize("python,end", ENDS)
def tests(session: nox.Session, end: str) -> None:
    """The whole suite: the lowest Python with the lowest dependencies, and the highest with the newest."""
    require_programs(session)
    install_end(session, end)
    run_pytest(session)


@nox.session(name="tests-between")
@nox.parametrize("python", CORES)
def tests_between(session: nox.Session) -> None:
    """The core of the suite on every Python in between, and on 3.14 in a Debian system made for it."""
    require_programs(session)
    if session.python:
        install(session, "--editable", PACKAGE, "--group", "test")
        run_pytest(session, *CORE_ARGUMENTS)
        return
    try:
        with forky.forky_system() as root:
            run_in_forky(session, root)
    except forky.NotTriedError as reason:
        session.skip(str(reason))


@nox.session(python=PATHS[-1])
def wheel(session: nox.Session) -> None:
    """Build the wheel and the source distribution, look into them, and test the wheel away from the source tree."""
    require_programs(session)
    folder = ENVIRONMENTS / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    install(session, "--group", "build")
    with_registry(session, "python", "-m", "build", "--installer=uv", f"--outdir={folder}")
    [built], [source] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    found = faults(built, source)
    if found:
        session.error("; ".join(found))
    install(session, f"{built}[cryptography]", "--group", "test")
    with session.chdir(copy_tests(folder / "tree")):
        run_pytest(session, *WHEEL_ARGUMENTS)


# Environments


def install(session: nox.Session, *arguments: str) -> None:
    """Install what `arguments` of `uv pip install` say into the session's environment."""
    with_registry(session, nox.virtualenv.UV, "pip", "install", "--quiet", *arguments)


def with_registry(session: nox.Session, *command: str) -> None:
    """Run a command that gets packages, and again with the certificates of the system when that fails.

    That is for networks with a certificate authority of their own, and for a registry that hiccups.
    """
    try:
        session.run_install(*command, external=True)
    except nox.command.CommandFailed:
        session.run_install(*command, external=True, env={"UV_SYSTEM_CERTS": "true"})


def install_end(session: nox.Session, end: str) -> None:
    """The package with the dependencies of that end of the range, and then all tools.

    The second step leaves what the first one chose.
    """
    resolution = "lowest-direct" if end == "lowest" else "highest"
    install(session, f"--resolution={resolution}", "--editable", PACKAGE)
    install(session, "--group", "dev")


def require_programs(session: nox.Session) -> None:
    """Fail the session where the machine lacks Chromium or redis-server, and cannot install them."""
    try:
        install_programs()
    except MissingProgramsError as error:
        session.error(str(error))


# Running


def run_all(session: nox.Session, *commands: list[str]) -> None:
    """Run all commands, and fail after the last where one of them has failed."""
    failed = []
    for command in commands:
        try:
            session.run(*command)
        except nox.command.CommandFailed:
            failed.append(" ".join(command))
    if failed:
        session.error("failed: " + "; ".join(failed))


def run_pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest in the session's environment."""
    session.run("python", "-c", VERSIONS, log=False)
    # The hundreds of processes that tests start share compiled code, which is kept out of the source tree.
    variables = {**VARIABLES, "PYTHONPYCACHEPREFIX": str(ENVIRONMENTS / "pycache")}
    # The path of a socket has 107 bytes, and pytest's own folders take most of them.
    with tempfile.TemporaryDirectory(prefix="cs-") as folder:
        session.run(
            *("python", *pytest_arguments(session, f"--basetemp={folder}/t", *arguments)),
            env={**variables, "PYTHONDONTWRITEBYTECODE": None},
            success_codes=success_codes(session),
        )


def pytest_arguments(session: nox.Session, *arguments: str) -> list[str]:
    """What follows the interpreter. The processes that tests start are told of the warnings in `tests/conftest.py`."""
    command = ["-W", "error", "-m", "pytest", "--quiet", f"--session-timeout={TESTS_DEADLINE_S}", *IN_PARALLEL]
    # Hypothesis would try the same examples every time where CI is set.
    return [*command, "--hypothesis-profile=default", *arguments, *session.posargs]


def success_codes(session: nox.Session) -> list[int]:
    """Chosen tests may all be such as a session leaves out; pytest ends with 5 then."""
    return [0, 5] if session.posargs else [0]


def run_in_forky(session: nox.Session, root: Path) -> None:
    """Install the package and what tests need into a Debian system from outside, and run the core there."""
    # Its Python is no other but for the version: wheels for this machine are wheels for that system.
    there = ("--python", sys.executable, "--python-version", forky.VERSION, "--target", str(root / forky.PACKAGES))
    wheels = ("--only-binary=:all:", "--no-binary=channels-sqlite")
    install(session, *there, *wheels, PACKAGE, "--group", "test")
    copy_tests(root / "project")
    variables = {**VARIABLES, "PYTHONDONTWRITEBYTECODE": "1"}
    for arguments in (["-c", VERSIONS], pytest_arguments(session, "--basetemp=/t", *CORE_ARGUMENTS)):
        command = forky.command_inside(root, "python3", *arguments, folder="/project", **variables)
        session.run(*command, external=True, log=False, success_codes=success_codes(session))


def copy_tests(folder: Path) -> Path:
    """Make a folder with the tests, their settings and the table that they read, without the source of the package."""
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder
