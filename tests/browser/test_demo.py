"""The example's commands: `manage.py demo`, `runserver`, and the set-up on a fresh machine."""

import os
import re
import shutil
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import django
import psutil
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import VisitorFactory
from tests.browser.pictures import jpeg
from tests.browser.site import EXAMPLE, example_environment, manage
from tests.support.processes import ROOT
from tests.support.programs import HOST, Program, Started, family, free_port, listens
from tests.support.waiting import eventually

pytestmark = [pytest.mark.browser, pytest.mark.processes]

SET_UP_DEADLINE_S = 240.0
BASE_PYTHON = Path(sys.base_prefix) / ("python.exe" if os.name == "nt" else "bin/python3")


HAS_TASKS = django.VERSION >= (6, 0)
"""With an older one the example has no thumbnails, and the demo no worker."""


def servers_of(program: Program) -> list[psutil.Process]:
    return [process for process in family(program) if "daphne" in process.cmdline()]


def worker_of(program: Program) -> psutil.Process:
    [worker] = workers_of(program)
    return worker


def workers_of(program: Program) -> list[psutil.Process]:
    """The parents of processes that run tasks."""
    return [process for process in family(program) if "channels_worker" in process.cmdline()]


def addresses_in(output: str) -> list[str]:
    return re.findall(r"http://127\.0\.0\.1:\d+/chat", output)


def page_at(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


@pytest.fixture
def started(no_leaks: None, tmp_path: Path) -> Iterator[Started]:
    programs = Started(tmp_path)
    yield programs
    programs.end()


@pytest.fixture
def demo(started: Started, tmp_path: Path) -> Program:
    """`manage.py demo` on free ports and with no databases yet, ready to be used."""
    data = tmp_path / "data"
    data.mkdir()
    command = (sys.executable, "manage.py", "demo", "--port", str(free_port()))
    program = started(*command, folder=EXAMPLE, environment=example_environment(data))
    program.prints("Ctrl-C stops them.")
    return program


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_demo_serves_and_stops(demo: Program, number: signal.Signals, visitor: VisitorFactory) -> None:
    one, two = (address.removesuffix("/chat") for address in addresses_in(demo.output))
    ann = visitor("Ann").enter(one)
    bob = visitor("Bob").enter(two)
    ann.say("hello")
    bob.sees_exactly("hello")

    if HAS_TASKS:
        ann.opens_thumbnails(one)
        bob.opens_thumbnails(two)
        ann.uploads("hills.jpg", jpeg(300, 200))
        bob.sees_job("hills.jpg", "Done", thumbnails=2)
        assert "a worker are running" in demo.output
        eventually(lambda: len(worker_of(demo).children()) == 2, what="two processes that run tasks")
    else:
        assert f"need Django 6.0 or newer; this is {django.get_version()}" in demo.output
        assert workers_of(demo) == []
        expect(ann.page.get_by_role("link", name="Thumbnails")).to_have_count(0)

    processes = family(demo)
    assert len(servers_of(demo)) == 2
    demo.process.send_signal(number)
    assert demo.wait() == 0
    assert demo.output.endswith("Stopped.\n")
    assert [process.pid for process in processes if process.is_running()] == []


def test_demo_says_when_a_process_dies_and_goes_on_with_the_others(demo: Program) -> None:
    if HAS_TASKS:
        worker = worker_of(demo)
        children = worker.children()
        worker.kill()
        demo.prints("until another one is started: manage.py channels_worker")
        assert f"(process {worker.pid}" in demo.output
        assert psutil.wait_procs(children, timeout=SET_UP_DEADLINE_S)[1] == []

    one, two = servers_of(demo)
    one.kill()
    demo.prints("The other one goes on.")
    assert f"(process {one.pid}" in demo.output
    assert f'id="served-by">{two.pid}<' in page_at(addresses_in(demo.output)[1])

    two.kill()
    assert demo.wait() == 1
    assert "Both server processes have ended." in demo.output


def test_demo_takes_other_ports_when_its_own_is_taken(started: Started, tmp_path: Path) -> None:
    with socket.create_server((HOST, free_port())) as taken:
        port = taken.getsockname()[1]
        command = (sys.executable, "manage.py", "demo", "--port", str(port))
        program = started(*command, folder=EXAMPLE, environment=example_environment(tmp_path))
        addresses = addresses_in(program.prints("Ctrl-C stops them."))
        assert len(set(addresses)) == 2
        assert f"http://{HOST}:{port}/chat" not in addresses
        for address in addresses:
            assert "<h1>" in page_at(address)
        assert program.terminate() == 0


def test_runserver_is_daphne_and_reloads_with_open_pages(
    started: Started, visitor: VisitorFactory, migrated_data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "example"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns(".venv", ".tools", "*.sqlite3*"))
    data = tmp_path / "data"
    shutil.copytree(migrated_data, data)
    port = free_port()
    environment = {**example_environment(data), "PYTHONDONTWRITEBYTECODE": "1"}
    program = started(sys.executable, "manage.py", "runserver", str(port), folder=copy, environment=environment)
    program.prints("Starting ASGI/Daphne")
    eventually(lambda: listens(port), what="a server")
    ann = visitor("Ann").enter(f"http://{HOST}:{port}")
    before = ann.page.locator("#connected-to").inner_text()

    (copy / "chat" / "views.py").touch()
    eventually(lambda: program.output.count("Starting ASGI/Daphne") == 2, 30, what="a reloaded server")
    # "Connected" may still be that to the old process: wait for the number to change.
    eventually(lambda: ann.page.locator("#connected-to").inner_text() != before, 30, what="another process")
    ann.is_connected()
    ann.say("still here")
    ann.sees_exactly("still here")
    program.terminate()
    eventually(lambda: not family(program), what="no process left")


def test_the_examples_own_tests_pass(migrated_data: Path) -> None:
    manage("test", data=migrated_data)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("uv_on_path", [True, False])
def test_demo_does_all_of_its_own_set_up(
    started: Started, visitor: VisitorFactory, tmp_path: Path, *, uv_on_path: bool
) -> None:
    checkout = fresh_checkout(tmp_path)
    # pip warns of itself: of files that it leaves open, and of what it brings along.
    variables = {"PYTHONPATH", "DJANGO_SETTINGS_MODULE", "EXAMPLE_DATA_DIR", "VIRTUAL_ENV", "PYTHONWARNINGS"}
    environment = {name: value for name, value in os.environ.items() if name not in variables}
    if not uv_on_path:
        environment["PATH"] = os.defpath
    command = (str(BASE_PYTHON), "example/manage.py", "demo", "--port", str(free_port()))
    program = started(*command, folder=checkout, environment=environment)
    output = program.prints("Ctrl-C stops them.", SET_UP_DEADLINE_S)
    one, two = (address.removesuffix("/chat") for address in addresses_in(output))
    ann = visitor("Ann").enter(one)
    bob = visitor("Bob").enter(two)
    ann.say("hello from a fresh machine")
    bob.sees_exactly("hello from a fresh machine")
    assert program.terminate() == 0

    # Other commands find the environment by themselves.
    check = started(str(BASE_PYTHON), "manage.py", "check", folder=checkout / "example", environment=environment)
    assert check.wait() == 0, check.output


def test_command_without_an_environment_says_what_to_do(started: Started, tmp_path: Path) -> None:
    checkout = fresh_checkout(tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = started(str(BASE_PYTHON), "manage.py", "migrate", folder=checkout / "example", environment=environment)
    assert program.wait() == 1
    assert "uv sync" in program.output
    assert "manage.py demo" in program.output


def fresh_checkout(folder: Path) -> Path:
    """What a clone of the repository has of the package and the example."""
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in ("channels_sqlite", "example"):
        unwanted = shutil.ignore_patterns("__pycache__", ".venv", ".tools", "uv.lock", "*.sqlite3*")
        shutil.copytree(ROOT / name, checkout / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout / name)
    return checkout
