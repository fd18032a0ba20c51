"""The documentation of tasks says what the code does, and its code runs as it stands there."""

from __future__ import annotations

import ast
import configparser
import re
import shlex
import signal
from argparse import ArgumentParser
from dataclasses import fields
from pathlib import Path

import pytest
from django.core.management import BaseCommand, load_command_class

from channels_sqlite.tasks.options import TaskOptions
from tests.django.project import Project, start_project
from tests.packaging.pages import README, Block, anchors, blocks, page, table
from tests.support import inside
from tests.tasks.setup import DEADLINE_S

PAGE = "docs/tasks.md"
TEXT = page(PAGE)
SETTINGS = "mysite/settings.py"

# What the project has beside the code of the documentation.
SURROUNDINGS = {
    "users/__init__.py": "",
    "orders/__init__.py": "",
    "orders/models.py": """
        from django.db import models

        class Order(models.Model):
            amount = models.IntegerField()
            paid = models.BooleanField(default=False)
    """,
    "orders/bank.py": """
        charged = {}

        def charge(amount, *, idempotency_key):
            charged[idempotency_key] = amount
    """,
}

WITHOUT_A_WORKER = """
import asyncio

from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import RequestFactory
from django.urls import path

from channels_sqlite.testing import run_tasks

call_command("migrate", run_syncdb=True, verbosity=0)

from users.views import sign_up
assert sign_up(RequestFactory().post("/", {"name": "ann"})).status_code == 201
assert [result.return_value for result in run_tasks()] == [f"welcome {get_user_model().objects.get().pk}"]
print("the view ran")

from users.consumers import RebuildConsumer
from users.tasks import rebuild

async def watch():
    result = await rebuild.aenqueue(2)
    site = URLRouter([path("tasks/<str:task>/", RebuildConsumer.as_asgi())])
    page = WebsocketCommunicator(site, f"/tasks/{result.id}/")
    assert (await page.connect())[0]
    heard = [await page.receive_json_from()]
    await sync_to_async(run_tasks)()
    heard += [await page.receive_json_from() for _ in range(4)]
    await page.disconnect()
    return [(one.get("status"), one.get("done"), one.get("note")) for one in heard]

assert asyncio.run(watch()) == [
    ("READY", None, None),
    ("RUNNING", None, None),
    (None, 1, "page 1"),
    (None, 2, "page 2"),
    ("SUCCESSFUL", None, None),
]
print("the consumer ran")

from orders.bank import charged
from orders.models import Order
from orders.tasks import settle

order = Order.objects.create(amount=5)
first = settle.enqueue(order.pk)
second = settle.enqueue(order.pk)
assert [result.return_value for result in run_tasks()] == [True, False]
assert charged == {first.id: 5}
print("the idempotent task ran")
"""

BEFORE_THE_CALLS = """
from datetime import datetime, timedelta, timezone
when = datetime.now(timezone.utc) + timedelta(hours=1)
"""


def python_blocks(*, named: bool) -> list[Block]:
    return [block for block in blocks(PAGE) if block.language == "python" and bool(block.file) == named]


@pytest.fixture
def project(no_leaks: None, tmp_path: Path) -> Project:
    """A project with all that the documentation has in files."""
    project = start_project(tmp_path)
    project.settings("INSTALLED_APPS += ['users', 'orders']\n")
    for name, text in SURROUNDINGS.items():
        project.write(name, text)
    for block in python_blocks(named=True):
        if block.file == SETTINGS:
            project.settings(block.text)
        else:
            project.write(block.file, block.text)
    project.migrated()
    return project


def test_every_block_is_known() -> None:
    assert sorted({block.file for block in python_blocks(named=True)}) == [
        SETTINGS,
        "orders/tasks.py",
        "users/consumers.py",
        "users/tasks.py",
        "users/tests.py",
        "users/views.py",
    ]
    assert len(python_blocks(named=False)) == 1
    languages = [block.language for block in blocks(PAGE) if block.language != "python"]
    assert languages == ["", "ini", "ini", "yaml"]


@pytest.mark.processes
def test_the_view_the_consumer_and_the_idempotent_task_run(project: Project) -> None:
    printed = project.shell(WITHOUT_A_WORKER)
    ran = [line for line in printed.splitlines() if line.endswith(" ran")]
    assert ran == ["the view ran", "the consumer ran", "the idempotent task ran"]


@pytest.mark.processes
def test_the_calls_run_beside_a_worker(project: Project) -> None:
    [calls] = python_blocks(named=False)
    with project.running("channels_worker") as worker:
        printed = project.shell(BEFORE_THE_CALLS + calls.text)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(DEADLINE_S) == 0, project.log()
    assert "welcome 7\n" in printed
    assert "Progress(done=3, total=3, note='page 3')" in printed


@pytest.mark.processes
def test_the_tests_pass_and_the_schedule_is_sound(project: Project) -> None:
    assert "Ran 1 test" in project.manage("test", "users")
    assert "no issues" in project.manage("check")
    project.manage("channels_worker", "--burst")
    [(count,)] = project.query("channels.sqlite3", "SELECT count(*) FROM channels_sqlite_taskschedule")
    assert count == 2


WORKER_OF_THE_README = """
from channels_sqlite import get_sync_channel_layer
from mysite.tasks import report

layer = get_sync_channel_layer()
layer.group_add("room", "page")
report.enqueue(12)
"""

HEARD_BY_THE_README = """
from channels_sqlite import get_sync_channel_layer

for _ in range(12):
    print(get_sync_channel_layer().receive("page", timeout=0)["text"])
"""


@pytest.mark.processes
def test_the_worker_of_the_readme_runs(no_leaks: None, tmp_path: Path) -> None:
    [tasks] = re.findall(r"`(TASKS = .+)`", page(README))
    [code] = [block.text for block in blocks(README) if block.file == "mysite/tasks.py"]
    project = start_project(tmp_path)
    project.settings(tasks)
    project.write("mysite/__init__.py", "")
    project.write("mysite/tasks.py", code)
    project.migrated()
    project.shell(WORKER_OF_THE_README)
    project.manage("channels_worker", "--burst")
    heard = [line for line in project.shell(HEARD_BY_THE_README).splitlines() if line.startswith("page ")]
    assert heard == [f"page {number} of 12" for number in range(1, 13)]


# Options, commands, names


def test_the_table_of_options_has_every_option_in_order_with_its_default() -> None:
    rows = {row[0].strip("`"): row[1].strip("`") for row in table("docs/options.md", "Options of tasks")}
    defaults = TaskOptions()
    expected = {field.name: getattr(defaults, field.name) for field in fields(TaskOptions)}
    assert list(rows) == list(expected)
    assert {name: ast.literal_eval(text) for name, text in rows.items()} == expected


def worker_parser() -> ArgumentParser:
    return load_command_class("channels_sqlite", "channels_worker").create_parser("manage.py", "channels_worker")


def test_every_option_of_the_worker_is_described_and_no_other_is() -> None:
    djangos = BaseCommand().create_parser("manage.py", "channels_worker")
    given = {option for action in inside.actions(djangos) for option in action.option_strings}
    own = {option for action in inside.actions(worker_parser()) for option in action.option_strings} - given
    assert [option for option in own if f"`{option}" not in TEXT] == []
    described = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", TEXT))
    assert described - own - given == {"--database", "--status", "--host"}  # of migrate, channels_tasks, uvicorn


def test_every_command_of_the_worker_is_one_that_it_takes() -> None:
    commands = re.findall(r"manage\.py channels_worker([^\n`]*)", TEXT)
    commands += [f" {rest}" for rest in re.findall(r"`channels_worker ([^`]+)`", TEXT)]
    assert len(commands) >= 7
    for rest in commands:
        worker_parser().parse_args(shlex.split(rest.partition('"]')[0]))


def test_the_units_for_systemd_and_supervisor_stop_a_worker_as_it_wants_to_be_stopped() -> None:
    parsed = []
    for block in blocks(PAGE):
        if block.language == "ini":
            parser = configparser.ConfigParser()
            parser.read_string(block.text)
            parsed.append(parser)
    systemd, supervisor = parsed
    assert systemd["Service"]["KillMode"] == "mixed"  # SIGTERM for the parent alone
    assert systemd["Service"]["Restart"] == supervisor["program:worker"]["autorestart"].replace("true", "always")
    assert systemd["Service"]["TimeoutStopSec"] == supervisor["program:worker"]["stopwaitsecs"]
    assert supervisor["program:worker"]["stopsignal"] == "TERM"
    assert systemd["Service"]["ExecStart"] == supervisor["program:worker"]["command"]


def test_links_lead_somewhere() -> None:
    links = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert len(links) >= 7
    assert links <= anchors(PAGE)
