"""What the page about deployment tells people to run and to write runs, and says what the servers need."""

import configparser
import json
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.django.project import Project, start_project
from tests.packaging.pages import blocks, page
from tests.settings import RUN_FOLDER
from tests.support.programs import HOST, Started, family, free_port, listens, runs
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

PAGE = "docs/deployment.md"
DEADLINE_S = 60.0
SERVERS = ("uvicorn", "gunicorn", "hypercorn", "daphne")
# What `check --deploy` wants of a site that is served over HTTPS.
SECURE = """
    SECRET_KEY = "x-" * 30 + "0123456789"
    DEBUG = False
    ALLOWED_HOSTS = ["127.0.0.1"]
    SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_HSTS_SECONDS = 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = True
    SILENCED_SYSTEM_CHECKS = ["channels_sqlite.W008", "mail.E001"]  # of this machine's disk, and of a new project
"""


def commands() -> dict[str, str]:
    """The line for each server."""
    found = {}
    for block in blocks(PAGE):
        program = block.text.split()[0]
        if block.language == "" and program in SERVERS:
            [found[program]] = block.text.splitlines()
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The chat of the page about consumers, in a project that is migrated."""
    project = start_project(tmp_path_factory.mktemp("deployed"))
    project.settings(SECURE)
    project.write("mysite/__init__.py", "")
    for block in blocks("docs/consumers.md"):
        if block.file:
            project.write(block.file, block.text.replace('"mysite.settings"', '"project.settings"'))
    project.manage("migrate", "--database=channels")
    return project


@pytest.fixture
def started(no_leaks: None, tmp_path: Path) -> Iterator[Started]:
    programs = Started(tmp_path)
    yield programs
    programs.end()


def test_there_is_a_line_for_each_server() -> None:
    assert set(commands()) == set(SERVERS)


def test_the_commands_before_going_live(project: Project) -> None:
    [check] = [block.text for block in blocks(PAGE) if block.text.startswith("python manage.py check")]
    printed = project.manage(*shlex.split(check)[2:])
    assert set(re.findall(r"channels_sqlite\.[EWI]\d+", printed)) <= {"channels_sqlite.I001"}


@pytest.mark.parametrize("server", SERVERS)
def test_the_servers_of_the_page_serve_the_chat(project: Project, started: Started, server: str) -> None:
    port = free_port()
    command = commands()[server]
    assert command.count("8000") == 1
    # Half as many workers do as well, and start sooner.
    arguments = shlex.split(command.replace("8000", str(port)).replace("--workers 4", "--workers 2"))[1:]
    environment = {
        **project.environment(),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(RUN_FOLDER / "pycache"),
        "PYTHONWARNINGS": "default",
    }
    program = started(sys.executable, "-m", server, *arguments, folder=project.folder, environment=environment)
    eventually(lambda: listens(port) or program.process.poll() is not None, DEADLINE_S, what=server)
    assert program.process.poll() is None, program.output
    origin = {"Origin": f"http://{HOST}:{port}"}
    with connect(f"ws://{HOST}:{port}/chat/", additional_headers=origin, open_timeout=DEADLINE_S) as visitor:
        visitor.send(json.dumps({"text": "hello"}))
        assert json.loads(visitor.recv(DEADLINE_S)) == {"text": "hello"}
    processes = family(program)
    program.process.terminate()
    assert program.wait(DEADLINE_S) in (0, -signal.SIGTERM), program.output
    eventually(lambda: not any(map(runs, processes)), DEADLINE_S, what="no process left")


def test_the_unit_for_systemd_starts_a_server_of_the_page() -> None:
    [text] = [block.text for block in blocks(PAGE) if block.language == "ini"]
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # as the documentation of configparser has it
    unit.read_string(text)
    service = unit["Service"]
    start = service["ExecStart"].removeprefix("/srv/site/venv/bin/")
    assert start.startswith(commands()["uvicorn"])
    grace = int(re.findall(r"--timeout-graceful-shutdown (\d+)", start)[0])
    assert int(service["TimeoutStopSec"]) > grace
    assert service["KillMode"] == "mixed"
    assert "migrate --database=channels" in service["ExecStartPre"]


def test_the_image_for_docker_starts_a_server_of_the_page() -> None:
    [text] = [block.text for block in blocks(PAGE) if block.language == "dockerfile"]
    [command] = re.findall(r"^CMD (.+)$", text, re.MULTILINE)
    assert " ".join(json.loads(command)) == commands()["uvicorn"].replace(HOST, "0.0.0.0")


def test_what_to_watch_is_what_channels_status_prints() -> None:
    shown = page("docs/status.md")
    names = re.findall(r"^\| (`[^|]+)\|", page(PAGE).partition("## What to watch")[2], re.MULTILINE)
    assert len(names) >= 5
    for name in re.findall(r"`(\w+)`", "".join(names)):
        assert f'"{name}"' in shown, name
