"""A new project that follows the README and nothing else; then every slip in its settings, which `check` must name."""

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
from websockets.sync.client import connect

from tests.django.project import COMMAND_DEADLINE_S, Project
from tests.packaging.ids import IDS
from tests.packaging.pages import README, Block, blocks
from tests.settings import RUN_FOLDER
from tests.support.programs import HOST, Program, Started, free_port, listens
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

DEADLINE_S = 30.0
MACHINE_DEPENDENT = {"channels_sqlite.I001", "channels_sqlite.W008"}  # its SQLite, its disk
# Those of tasks need Django 6.0: tests/tasks.
OF_TASKS = {"channels_sqlite.E020", "channels_sqlite.E021"}
NOT_BY_SETTINGS = {*MACHINE_DEPENDENT, *OF_TASKS, "channels_sqlite.E006", "channels_sqlite.W010"}


def quickstart(language: str) -> list[str]:
    """The blocks of the quickstart."""
    return [block.text for block in blocks(README) if (block.section, block.language) == ("Quickstart", language)]


def chat() -> list[Block]:
    """The files of the chat that the README begins, and the page about consumers completes."""
    found = [*blocks(README), *blocks("docs/consumers.md")]
    return [block for block in found if block.file and block.file != "mysite/tasks.py"]  # that needs Django 6.0


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`startproject mysite`, with the settings of the quickstart, and its first two commands run."""
    folder = tmp_path_factory.mktemp("new")
    start = [sys.executable, "-m", "django", "startproject", "mysite", str(folder)]
    subprocess.run(start, check=True, timeout=COMMAND_DEADLINE_S, env=Project(folder).environment())
    [settings] = quickstart("python")
    assert "[..., " in settings
    with (folder / "mysite" / "settings.py").open("a") as file:
        file.write(settings.replace("[..., ", "[*INSTALLED_APPS, "))
    for block in chat():
        (folder / block.file).write_text(block.text)
    project = Project(folder)
    for command in quickstart("")[0].splitlines():
        program, *arguments = shlex.split(command)
        assert program == "python"
        if arguments[-1] != "runserver":
            project.manage(*arguments[1:])
    return project


@pytest.fixture
def started(no_leaks: None, tmp_path: Path) -> Iterator[Started]:
    programs = Started(tmp_path)
    yield programs
    programs.end()


def environment(project: Project) -> dict[str, str]:
    """The project's, where Django is compiled once a run and not at every start."""
    return {
        **project.environment(),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(RUN_FOLDER / "pycache"),
    }


def run(started: Started, project: Project, *command: str) -> Program:
    return started(sys.executable, *command, folder=project.folder, environment=environment(project))


# Following


def test_the_check_of_the_quickstart_finds_nothing(followed: Project) -> None:
    printed = followed.manage("check", "--database", "channels")
    assert set(re.findall(r"channels_sqlite\.[EWI]\d+", printed)) <= MACHINE_DEPENDENT


def test_the_message_of_the_quickstart_passes_between_two_processes(followed: Project, started: Started) -> None:
    receive, send = (shlex.split(text)[1:] for text in quickstart("")[1:])
    waiting = run(started, followed, *receive)
    waits = "SELECT channel FROM channels_sqlite_listener"
    eventually(lambda: followed.query("channels.sqlite3", waits), DEADLINE_S, what=waiting.output)
    assert "Sent to the channel 'hello'" in followed.manage(*send[1:])
    assert waiting.wait(DEADLINE_S) == 0, waiting.output
    assert waiting.output.splitlines()[-1] == "{'text': 'hi'}"


def test_the_server_of_the_quickstart_runs(followed: Project, started: Started) -> None:
    last = shlex.split(quickstart("")[0].splitlines()[-1])
    assert last == ["python", "manage.py", "runserver"]
    port = free_port()
    run(started, followed, *last[1:], str(port), "--noreload")
    eventually(lambda: listens(port), DEADLINE_S, what="runserver")


def test_the_chat_of_the_readme_speaks_to_another_process(followed: Project, started: Started) -> None:
    port = free_port()
    server = run(started, followed, "-m", "uvicorn", "mysite.asgi:application", "--host", HOST, "--port", str(port))
    eventually(lambda: listens(port), DEADLINE_S, what="uvicorn")
    address = f"ws://localhost:{port}/chat/"
    origin = {"Origin": f"http://localhost:{port}"}
    with connect(address, additional_headers=origin, open_timeout=DEADLINE_S) as one:
        one.send(json.dumps({"text": "hello"}))
        assert json.loads(one.recv(DEADLINE_S)) == {"text": "hello"}
        followed.shell("import asyncio, mysite.announcements as a; asyncio.run(a.announce('to all'))")
        assert json.loads(one.recv(DEADLINE_S)) == {"text": "to all"}
        followed.shell(
            "from django.test import RequestFactory; from mysite.views import announce;"
            "assert announce(RequestFactory().post('/', {'text': 'by a view'})).status_code == 204"
        )
        assert json.loads(one.recv(DEADLINE_S)) == {"text": "by a view"}
    server.process.terminate()
    assert server.wait(DEADLINE_S) in (0, -signal.SIGTERM), server.output
    assert "Traceback" not in server.output
    left = {path.name for path in (followed.folder / "channels.sqlite3.wake").iterdir()}
    assert left <= {"checkpoint.lock", "housekeeping.lock"}, "lifespan did not close the layer"


# Slips


@dataclass(frozen=True)
class Slip:
    """What a user might write, and what `manage.py check` says to it."""

    id: str
    settings: str
    with_database: bool = False

    @property
    def status(self) -> int:
        """The exit status of `manage.py check`."""
        return 1 if ".E" in self.id else 0


CONFIG = 'CHANNEL_LAYERS["default"]["CONFIG"]'
CHANNELS = 'DATABASES["channels"]'

SLIPS = [
    Slip("channels_sqlite.E001", f'{CONFIG}["database"] = "messages"'),
    Slip("channels_sqlite.E002", f'{CHANNELS}["ENGINE"] = "django.db.backends.dummy"'),
    Slip("channels_sqlite.E003", f'{CHANNELS}["NAME"] = ":memory:"'),
    Slip("channels_sqlite.E004", f'{CONFIG}["hosts"] = [("localhost", 6379)]'),
    Slip("channels_sqlite.E005", f'{CONFIG}["capacity"] = 0'),
    Slip("channels_sqlite.E007", 'CHANNEL_LAYERS["default"]["BACKEND"] = "channels_sqlite.SqliteChannelLayer"'),
    Slip(
        "channels_sqlite.E008",
        f"""
        import sys
        sys.modules["cryptography.fernet"] = None  # as if it were not installed
        {CONFIG}["symmetric_encryption_keys"] = ["a key"]
        """,
    ),
    Slip("channels_sqlite.E009", f'{CHANNELS}["NAME"] = BASE_DIR / "manage.py"', with_database=True),
    Slip("channels_sqlite.E010", f'{CHANNELS}["NAME"] = BASE_DIR / "var" / "c.sqlite3"', with_database=True),
    Slip(
        "channels_sqlite.E011",
        f"""
        import tempfile
        {CHANNELS}["NAME"] = BASE_DIR / "no_wake.sqlite3"
        tempfile.tempdir = str(BASE_DIR / "temporary")
        """,
        with_database=True,
    ),
    Slip("channels_sqlite.E012", f'{CHANNELS}["OPTIONS"]["init_command"] = "PRAGMA query_only=1"'),
    Slip("channels_sqlite.W001", f'{CONFIG}["database"] = "default"'),
    Slip("channels_sqlite.W002", "DATABASE_ROUTERS = []"),
    Slip("channels_sqlite.W003", 'DATABASE_ROUTERS = ["mysite.routers.Greedy", *DATABASE_ROUTERS]'),
    Slip("channels_sqlite.W004", f'{CHANNELS}["init_command"] = {CHANNELS}["OPTIONS"].pop("init_command")'),
    Slip("channels_sqlite.W005", 'CHANNEL_LAYERS["jobs"] = CHANNEL_LAYERS["default"]'),
    Slip("channels_sqlite.W006", f'{CHANNELS}["NAME"] = BASE_DIR / "other.sqlite3"', with_database=True),
    Slip(
        "channels_sqlite.W007",
        f"""
        {CHANNELS}["NAME"] = BASE_DIR / "journal.sqlite3"
        {CHANNELS}["OPTIONS"] = {{"init_command": "PRAGMA journal_mode=DELETE"}}
        """,
        with_database=True,
    ),
    Slip(
        "channels_sqlite.W009",
        f"""
        import tempfile
        {CHANNELS}["NAME"] = BASE_DIR / "no_wake.sqlite3"
        tempfile.tempdir = str(BASE_DIR)
        """,
        with_database=True,
    ),
    Slip(
        "channels_sqlite.W011",
        'CHANNEL_LAYERS["default"]["CONFIG"]["history"] = {"room:*": {"size": 100, "ttl": 300}}',
    ),
    Slip(
        "channels_sqlite.I002",
        f"""
        {CHANNELS}["NAME"] = BASE_DIR / "journal.sqlite3"
        del {CHANNELS}["OPTIONS"]
        """,
        with_database=True,
    ),
]

ROUTERS = """
    class Greedy:
        def db_for_read(self, model, **hints):
            return "default"
"""

# Forks after the slow imports: a process for each slip, as settings are read once, but not a whole start of Python.
MANAGE_MANY = """
    import json, os, runpy, sys

    import channels.layers, channels_sqlite.checks.database, channels_sqlite.sync, cryptography.fernet
    import django.contrib.admin.apps, django.contrib.auth.apps, django.contrib.staticfiles.finders
    import django.core.management.commands.check, django.db.backends.sqlite3.base, django.forms, django.views.debug

    statuses = []
    for number, (module, arguments) in enumerate(json.loads(sys.argv[1])):
        if not (child := os.fork()):
            output = os.open(f"output-{number}", os.O_WRONLY | os.O_CREAT)
            os.dup2(output, 1), os.dup2(output, 2)
            os.environ["DJANGO_SETTINGS_MODULE"] = module
            sys.argv = ["manage.py", *arguments]
            runpy.run_path("manage.py", run_name="__main__")
            sys.exit()
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(statuses))
"""


def manage_many(project: Project, commands: list[tuple[str, list[str]]]) -> list[tuple[int, str]]:
    """Run `manage.py` with each settings module and arguments; return exit statuses and outputs."""
    project.write("many.py", MANAGE_MANY)
    finished = subprocess.run(
        [sys.executable, "many.py", json.dumps(commands)],
        cwd=project.folder,
        env=environment(project),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_DEADLINE_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    outputs = [(project.folder / f"output-{number}").read_text() for number in range(len(commands))]
    return list(zip(json.loads(finished.stdout), outputs, strict=True))


def test_every_check_that_settings_can_provoke_has_a_slip() -> None:
    assert [slip.id for slip in SLIPS] == [check_id for check_id in IDS if check_id not in NOT_BY_SETTINGS]


def test_check_names_every_slip(followed: Project, no_leaks: None, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    shutil.copytree(followed.folder, folder)
    project = Project(folder)
    project.write("mysite/routers.py", ROUTERS)
    shutil.copy(folder / "channels.sqlite3", folder / "no_wake.sqlite3")
    project.write("no_wake.sqlite3.wake", "a file in the way")
    project.write(f"temporary/channels_sqlite-{os.geteuid()}", "another one")
    with closing(sqlite3.connect(folder / "journal.sqlite3")) as connection:
        with closing(sqlite3.connect(folder / "channels.sqlite3")) as migrated:
            migrated.backup(connection)
        connection.execute("PRAGMA journal_mode=DELETE")
    commands: list[tuple[str, list[str]]] = []
    for number, slip in enumerate(SLIPS):
        project.write(f"slip_{number}.py", "from mysite.settings import *\n" + dedent(slip.settings))
        commands.append((f"slip_{number}", ["check", *(["--database", "channels"] * slip.with_database)]))
    warned = next(number for number, slip in enumerate(SLIPS) if slip.id == "channels_sqlite.W006")
    commands.append((f"slip_{warned}", ["check", "--database", "channels", "--fail-level", "WARNING"]))

    *results, failed_for_a_warning = manage_many(project, commands)
    seen = {}
    for slip, (status, printed) in zip(SLIPS, results, strict=True):
        named = set(re.findall(r"channels_sqlite\.[EWI]\d+", printed)) - MACHINE_DEPENDENT
        hints = printed.count("HINT: ")
        seen[slip.id] = (status, named, hints > 0, "Traceback" in printed)
    assert seen == {slip.id: (slip.status, {slip.id}, True, False) for slip in SLIPS}, results
    assert failed_for_a_warning[0] == 1, failed_for_a_warning[1]
