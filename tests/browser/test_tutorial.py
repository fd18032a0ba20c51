"""Somebody follows the tutorial and nothing else: an empty folder, the built wheel, two real browsers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import VisitorFactory
from tests.browser.visitor import DEADLINE_MS, Visitor
from tests.packaging.pages import Block, blocks, page
from tests.support.processes import ROOT
from tests.support.programs import HOST, Program, Started, free_port, listens
from tests.support.waiting import eventually

pytestmark = [pytest.mark.browser, pytest.mark.processes]

PAGE = "docs/tutorial.md"
BASE_PYTHON = Path(sys.base_prefix) / ("python.exe" if os.name == "nt" else "bin/python3")
SET_UP_DEADLINE_S = 400.0
APPENDED = "mysite/settings.py"
RUNNING = ("runserver", "channels_worker")
"""Commands that the reader leaves running, each in a terminal of its own."""

STEPS = 20

WATCH_BAR = """
    window.seen = [];
    new MutationObserver(() => window.seen.push(document.getElementById("bar").value))
        .observe(document.getElementById("bar"), {attributes: true, attributeFilter: ["value"]});
"""


class Reader:
    """Does what the tutorial says, block by block."""

    def __init__(self, folder: Path, started: Started, environment: dict[str, str]) -> None:
        self.folder = folder
        self.programs: list[Program] = []
        self.ports: dict[str, int] = {}
        self._started = started
        self._environment = environment

    def follow(self, block: Block) -> None:
        """Write a file, or run commands."""
        if not block.file:
            for line in block.text.splitlines():
                self.run(line)
            return
        file = self.folder / block.file
        with file.open("a" if block.file == APPENDED else "w", encoding="utf-8") as written:
            written.write(block.text)

    def run(self, line: str) -> None:
        """Run one line of a terminal. After the environment is entered, its programs come first."""
        command = shlex.split(line)
        if command == [".", ".venv/bin/activate"]:
            binaries = self.folder / ".venv" / "bin"
            self._environment["PATH"] = f"{binaries}{os.pathsep}{self._environment['PATH']}"
        elif command[1:2] == ["manage.py"] and command[2] in RUNNING:
            # The ports of the tutorial may be taken here.
            for number, word in enumerate(command):
                if word.isdigit():
                    self.ports[word] = free_port()
                    command[number] = str(self.ports[word])
            # Where the reader's shell would look.
            program = str(shutil.which(command[0], path=self._environment["PATH"]))
            self.programs.append(
                self._started(program, *command[1:], folder=self.folder, environment=self._environment)
            )
        else:
            finished = subprocess.run(
                ["sh", "-c", line],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SET_UP_DEADLINE_S,
                check=False,
            )
            assert finished.returncode == 0, f"{line}:\n{finished.stdout}"
            if "check" in command:
                named = set(re.findall(r"channels_sqlite\.[EW]\d+", finished.stdout))
                assert named <= {"channels_sqlite.W008"}, finished.stdout  # this machine's disk


@pytest.fixture
def started(no_leaks: None, tmp_path: Path) -> Iterator[Started]:
    programs = Started(tmp_path)
    yield programs
    programs.end()


def environment_of_a_newcomer() -> dict[str, str]:
    """The variables of this process without what the tests set; and pip may warn of itself."""
    left_out = {"PYTHONPATH", "DJANGO_SETTINGS_MODULE", "VIRTUAL_ENV", "PYTHONWARNINGS", "CHANNELS_SQLITE_LOCKS"}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "PYTHONUNBUFFERED": "1", "PATH": f"{BASE_PYTHON.parent}{os.pathsep}{kept['PATH']}"}


def built_wheel(folder: Path, environment: dict[str, str]) -> Path:
    """The wheel of this source tree, made from a copy."""
    copy = folder / "source"
    shutil.copytree(ROOT / "channels_sqlite", copy / "channels_sqlite", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [str(BASE_PYTHON), "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(copy)]
    subprocess.run(command, env=environment, check=True, timeout=SET_UP_DEADLINE_S)
    [wheel] = folder.glob("*.whl")
    return wheel


def opened(visitor: Visitor, address: str) -> Visitor:
    """Open the page of the tutorial; return when its WebSocket is open, and note how its bar moves."""
    visitor.page.goto(address)
    visitor.page.wait_for_function("socket.readyState === WebSocket.OPEN", timeout=DEADLINE_MS)
    visitor.page.evaluate(WATCH_BAR)
    return visitor


def says(visitor: Visitor, text: str) -> None:
    visitor.page.get_by_label("Message").fill(text)
    visitor.page.get_by_role("button", name="Send").click()


def sees_lines(visitor: Visitor, *texts: str) -> None:
    expect(visitor.page.locator("#lines li")).to_have_text(list(texts), timeout=DEADLINE_MS)


def sees_last_line(visitor: Visitor, text: str) -> None:
    expect(visitor.page.locator("#lines li").last).to_have_text(text, timeout=DEADLINE_MS)


def sees_bar_full(visitor: Visitor) -> list[int]:
    """Return the values that the bar has had since this was asked last, once it is full."""
    bar = visitor.page.locator("#bar")
    expect(bar).to_have_js_property("value", STEPS, timeout=3 * DEADLINE_MS)
    expect(bar).to_have_js_property("max", STEPS, timeout=DEADLINE_MS)
    seen: list[int] = visitor.page.evaluate("window.seen.splice(0)")
    return seen


def kills_worker_in_the_middle(visitor: Visitor, worker: Program, line: str) -> bool:
    """Start a job, and press Ctrl-C twice while its bar moves; whether that came before the bar was full."""
    visitor.page.get_by_role("button", name="Make a report").click()
    visitor.page.wait_for_function(f"document.getElementById('bar').value < {STEPS}", timeout=DEADLINE_MS)

    def ends() -> bool:
        worker.process.send_signal(signal.SIGINT)  # two that come at once are one
        return worker.process.poll() is not None

    eventually(ends, 30, what=f"no worker: {worker.output}")
    # What it had told is on the page before this.
    says(visitor, line)
    sees_last_line(visitor, line)
    value: int = visitor.page.locator("#bar").evaluate("bar => bar.value")
    return value < STEPS


def test_every_block_is_one_that_a_reader_can_follow() -> None:
    assert [block.language for block in blocks(PAGE) if not block.file and block.language] == []
    assert {block.language for block in blocks(PAGE) if block.file} == {"python", "html"}
    assert f"make_report.enqueue({STEPS})" in page(PAGE)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_who_follows_the_tutorial_has_a_chat_in_two_browsers_and_a_job(
    started: Started, visitor: VisitorFactory, tmp_path: Path
) -> None:
    environment = environment_of_a_newcomer()
    wheel = built_wheel(tmp_path, environment)
    # `pip install channels_sqlite` gets this one.
    constraint = tmp_path / "constraint.txt"
    constraint.write_text(f"channels_sqlite @ {wheel.as_uri()}\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    reader = Reader(empty, started, {**environment, "PIP_CONSTRAINT": str(constraint)})

    chapters = list(dict.fromkeys(block.section for block in blocks(PAGE)))
    chat, job = chapters[-2:]
    for block in blocks(PAGE):
        if block.section not in {chat, job}:
            reader.follow(block)

    servers = [block for block in blocks(PAGE) if block.section == chat]
    for block in servers[:2]:
        reader.follow(block)
    addresses = [address for address in re.findall(r"<(http://\S+)>", page(PAGE)) if HOST in address]
    assert [address.rpartition(":")[2] for address in addresses] == list(reader.ports)
    for port, program in zip(reader.ports.values(), reader.programs, strict=True):
        eventually(lambda port=port: listens(port), 60, what=program.output)  # type: ignore[misc]  # bound at once
    ann, bob = (
        opened(visitor(name), f"http://{HOST}:{port}")
        for name, port in zip(("Ann", "Bob"), reader.ports.values(), strict=True)
    )
    says(ann, "Hello from the first window")
    for someone in (ann, bob):
        sees_lines(someone, "Hello from the first window")
    says(bob, "and from the second")
    for someone in (ann, bob):
        sees_lines(someone, "Hello from the first window", "and from the second")
    for block in servers[2:]:
        reader.follow(block)

    for block in blocks(PAGE):
        if block.section == job:
            reader.follow(block)
    reader.programs[-1].prints("runs tasks of")
    ann.page.get_by_role("button", name="Make a report").click()
    for someone in (ann, bob):
        seen = sees_bar_full(someone)
        # Each step was told once, in order.
        assert seen == sorted(set(seen)), seen
        assert len(seen) > 1, "the bar has not moved"
    ann.page.screenshot(path=tmp_path / "ann.png")

    [start] = [block for block in blocks(PAGE) if "channels_worker" in block.text]
    for attempt in range(10):  # a machine may stand still just then
        killed = kills_worker_in_the_middle(ann, reader.programs.pop(), f"killed {attempt}")
        sees_last_line(bob, f"killed {attempt}")
        before = bob.page.evaluate("window.seen.length")
        reader.follow(start)
        if killed:
            break
    else:
        pytest.fail("every job was done before its worker could be killed")
    seen = sees_bar_full(bob)
    assert seen[before:] == sorted(set(seen[before:])), seen
    assert seen[before] < STEPS, "the bar has not begun anew"
    for program in reader.programs:
        assert program.process.poll() is None, program.output
        assert "Traceback" not in program.output
