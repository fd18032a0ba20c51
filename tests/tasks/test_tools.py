"""Looking at tasks and changing them by hand: commands, the admin, checks, status."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.admin import site
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.checks import run_checks
from django.core.management import CommandError, call_command, load_command_class
from django.db import connections
from django.tasks import TaskResultStatus
from django.tasks.signals import task_finished
from django.test import Client, SimpleTestCase, override_settings

from channels_sqlite import get_sync_channel_layer
from channels_sqlite.engine.engine import Engine
from channels_sqlite.kinds import TaskState
from channels_sqlite.storage.transactions import Transaction
from channels_sqlite.task_models import QueuedTask
from channels_sqlite.tasks.results import AnyResult
from channels_sqlite.testing import (
    IsolatedChannelLayersMixin,
    isolated_channel_layers,  # noqa: F401  # a fixture
    run_tasks,
)
from tests.processes.evidence import query
from tests.support import inside
from tests.support.databases import ROOT
from tests.tasks import functions
from tests.tasks.setup import SETTINGS_VARIABLE, TaskSettings, WorkerFactory, entry, fresh, task_settings

MANY_ROWS = 100_000


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize("action", ["list", "retry", "cancel"])
def test_options_of_the_command_stand_before_and_after_its_action(action: str) -> None:
    parser = load_command_class("channels_sqlite", "channels_tasks").create_parser("manage.py", "channels_tasks")
    words = [action] if action == "list" else [action, "some-id"]
    given = {
        "--settings=a": "settings",
        "--verbosity=2": "verbosity",
        "--traceback": "traceback",
        "--backend=b": "backend",
    }
    plain = vars(parser.parse_args(words))
    for option, name in given.items():
        before, after = vars(parser.parse_args([option, *words])), vars(parser.parse_args([*words, option]))
        assert before == after
        assert {key for key in plain if plain[key] != after[key]} == {name}
    [of_actions] = [known for known in inside.actions(parser) if known.dest == "action"]
    assert isinstance(of_actions.choices, Mapping)
    taken = {option for known in inside.actions(of_actions.choices[action]) for option in known.option_strings}
    assert {option for known in inside.actions(parser) for option in known.option_strings} <= taken | {"--version"}


def test_a_task_is_retried_with_settings_given_last(tasks: TaskSettings, start_worker: WorkerFactory) -> None:
    failed = functions.fail.enqueue("no")
    run_tasks()
    done = subprocess.run(
        [sys.executable, "-m", "django", "channels_tasks", "retry", failed.id, "--settings=tests.tasks.settings"],
        env={**os.environ, "PYTHONPATH": str(ROOT), SETTINGS_VARIABLE: start_worker.settings()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{failed.id}: starts once more.\n"), done.stderr


def test_tasks_are_listed(tasks: TaskSettings) -> None:
    ready = functions.add.using(priority=3).enqueue(1)
    failed = functions.fail.enqueue("no")
    run_tasks()
    due = functions.utc_now() + timedelta(hours=1)
    delayed = functions.post.using(run_after=due).enqueue(1)
    listed = json.loads(run("channels_tasks", "list", "--json"))
    assert [one["id"] for one in listed] == [ready.id, failed.id, delayed.id]
    assert [one["status"] for one in listed] == ["SUCCESSFUL", "FAILED", "READY"]
    assert {key: listed[2][key] for key in ("task", "queue", "priority", "run_after", "attempts")} == {
        "task": "tests.tasks.functions.post",
        "queue": "mail",
        "priority": 0,
        "run_after": due.isoformat(),
        "attempts": 0,
    }
    assert listed[0]["enqueued_at"]
    assert [one["id"] for one in json.loads(run("channels_tasks", "list", "--status", "FAILED", "--json"))] == [
        failed.id
    ]
    assert failed.id in run("channels_tasks", "list", "--status", "FAILED")


def test_a_failed_task_is_started_once_more(tasks: TaskSettings) -> None:
    failed, done = functions.fail.enqueue("no"), functions.add.enqueue(1)
    run_tasks()
    run("channels_tasks", "retry", failed.id)
    assert fresh(failed).status == TaskResultStatus.READY
    run_tasks()
    assert (fresh(failed).status, failed.attempts, len(failed.errors)) == (TaskResultStatus.FAILED, 2, 2)
    for key in (done.id, "nonsense"):
        with pytest.raises(CommandError, match=key):
            run("channels_tasks", "retry", key)


def test_a_retry_is_one_more_start_whatever_max_attempts_says(tasks: TaskSettings) -> None:
    failed = functions.fail.enqueue("no")
    run_tasks()
    with task_settings(tasks.database, max_attempts=9, backoff=0):
        run("channels_tasks", "retry", failed.id)
        run_tasks()
        assert (fresh(failed).status, failed.attempts) == (TaskResultStatus.FAILED, 2)


def test_a_retry_asks_nobody_whether_the_task_is_unique(tasks: TaskSettings) -> None:
    unique = functions.fail.using(unique="one")
    failed = unique.enqueue("no")
    run_tasks()
    other = unique.enqueue("no")
    assert other.id != failed.id
    run("channels_tasks", "retry", failed.id)
    assert fresh(failed).status == fresh(other).status == TaskResultStatus.READY


@pytest.mark.processes
def test_what_cannot_be_done_ends_with_1(tasks: TaskSettings, start_worker: WorkerFactory) -> None:
    done = functions.add.enqueue(1)
    run_tasks()
    for arguments in (("retry", done.id), ("cancel", done.id), ("cancel", "nonsense")):
        finished = manage("channels_tasks", *arguments, settings=start_worker.settings())
        assert finished.returncode == 1
        assert done.id in finished.stderr or "nonsense" in finished.stderr


@pytest.mark.processes
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layer": "nowhere", "backoff": "10"}, ["'layer' is 'nowhere'", "'backoff' is '10'"]),
        ({"schedule": {"x": {"task": "tests.nowhere.add", "every": 1}}}, ["'tests.nowhere.add' cannot be imported"]),
        ({"schedule": {"x": {"task": "a.b", "cron": "61 * * * *"}}}, ["cron expression"]),
        ({"schedule": {"x": {"task": "a.b", "cron": "* * * * *", "tz": "Europe/Nowhere"}}}, ["known time zone"]),
    ],
    ids=["options", "path", "expression", "zone"],
)
def test_faults_are_found_by_check_though_nobody_imports_tasks_and_end_a_worker(
    tasks: TaskSettings, start_worker: WorkerFactory, options: dict[str, object], text: list[str]
) -> None:
    wrong = start_worker.settings(entry(**options))
    checked = manage("check", settings=wrong)
    assert checked.returncode == 1
    assert "channels_sqlite.E02" in checked.stderr
    started = manage("channels_worker", "--skip-checks", settings=wrong)
    assert started.returncode == 1
    for part in text:
        assert part in checked.stderr
        assert part in started.stderr


def manage(*arguments: str, settings: str) -> subprocess.CompletedProcess[str]:
    """A management command in a process of its own, with these settings of a worker."""
    return subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.tasks.settings",
            SETTINGS_VARIABLE: settings,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_waiting_task_is_cancelled(tasks: TaskSettings) -> None:
    waiting = functions.add.enqueue(1)
    told: list[str] = []

    def receive(task_result: AnyResult, **kwargs: object) -> None:
        told.append(task_result.id)

    task_finished.connect(receive)
    try:
        run("channels_tasks", "cancel", waiting.id)
    finally:
        task_finished.disconnect(receive)
    assert told == [waiting.id]
    assert fresh(waiting).status == TaskResultStatus.FAILED
    assert [error.exception_class_path for error in waiting.errors] == ["channels_sqlite.tasks.TaskCancelled"]
    assert run_tasks() == []
    with pytest.raises(CommandError, match="only a READY task can be cancelled"):
        run("channels_tasks", "cancel", waiting.id)


def test_flush_leaves_tasks_alone_unless_it_is_told(tasks: TaskSettings) -> None:
    functions.add.enqueue(1)
    get_sync_channel_layer().send("somewhere", {"type": "x"})
    run("channels_flush", "--yes")
    assert query(tasks.database, "SELECT count(*) FROM channels_sqlite_queuedtask") == [(1,)]
    get_sync_channel_layer().send("somewhere", {"type": "x"})
    queue = tasks.backend.queue
    functions.add.enqueue(2)
    queue.write(queue.claim(["default"], {False: 1, True: 1}, most=1))
    assert "1 task deleted" in run("channels_flush", "--tasks", "--yes")
    assert query(tasks.database, "SELECT state FROM channels_sqlite_queuedtask") == [(2,)]
    assert query(tasks.database, "SELECT count(*) FROM channels_sqlite_message WHERE kind = 0") == [(1,)]


def test_results_go_once_their_retention_is_over(tasks: TaskSettings) -> None:
    with task_settings(tasks.database, success_retention=0, failure_retention=3600):
        functions.add.enqueue_many([((1,), {})] * 250)
        failed = functions.fail.enqueue("kept")
        run_tasks()
        run("channels_trim")
        assert query(tasks.database, "SELECT key FROM channels_sqlite_queuedtask") == [(failed.id,)]


def test_status_shows_queues(tasks: TaskSettings) -> None:
    failed = functions.fail.enqueue("no")
    run_tasks()
    functions.add.enqueue(1)
    functions.post.using(run_after=functions.utc_now() + timedelta(hours=1)).enqueue(1)
    [layer] = json.loads(run("channels_status", "--json"))["layers"]
    age = layer["queues"][0].pop("oldest_due_age_s")
    assert 0 <= age < 60
    assert layer["queues"] == [
        {"name": "default", "backend": "default", "ready": 1, "delayed": 0, "running": 0, "failed": 1},
        {
            "name": "mail",
            "backend": "default",
            "ready": 0,
            "delayed": 1,
            "running": 0,
            "failed": 0,
            "oldest_due_age_s": None,
        },
    ]
    assert layer["workers"] == []
    assert "oldest due" in run("channels_status")
    assert fresh(failed).status == TaskResultStatus.FAILED


@pytest.mark.processes
def test_status_shows_workers(tasks: TaskSettings, start_worker: WorkerFactory) -> None:
    worker = start_worker("--queue", "mail")
    [layer] = json.loads(run("channels_status", "--json"))["layers"]
    assert layer["workers"] == [{"pid": worker.children()[0], "queues": ["mail"], "running": 0}]
    assert [process["listening"] for process in layer["processes"] if process["pid"] == worker.children()[0]] == [[]]


def test_faults_are_check_errors(tasks: TaskSettings) -> None:
    with override_settings(TASKS=entry(max_attempts=0, nonsense=1)):
        found = [message for message in run_checks() if message.id == "channels_sqlite.E020"]
        assert len(found) == 2
        assert all(message.hint for message in found)
    with override_settings(TASKS=entry(schedule={"x": {"task": "tests.tasks.functions.not_a_task", "every": 1}})):
        assert [message.id for message in run_checks() if "E02" in str(message.id)] == ["channels_sqlite.E021"]
    assert [message.id for message in run_checks() if "E02" in str(message.id)] == []


def test_the_checks_of_other_backends_run_on(tasks: TaskSettings) -> None:
    with override_settings(TASKS={"default": {"BACKEND": "tests.tasks.test_tools.Complaining"}}):
        assert "tests.E001" in [message.id for message in run_checks()]


class Complaining:
    """A backend of somebody else's."""

    def __init__(self, alias: str, params: object) -> None:
        self.alias = alias

    def check(self, **kwargs: object) -> list[object]:
        from django.core.checks import Error

        return [Error("a complaint", id="tests.E001")]


def test_an_unknown_queue_or_backend_ends_the_worker_with_the_reason(tasks: TaskSettings) -> None:
    with pytest.raises(CommandError, match="no queue 'nowhere'"):
        run("channels_worker", "--queue", "nowhere")
    with pytest.raises(CommandError, match="no alias 'other'"):
        run("channels_worker", "--backend", "other")


@pytest.mark.django_db(transaction=True, databases=["default", "channels"])
@pytest.mark.parametrize("allowed", [True, False])
def test_the_admin_shows_tasks_and_acts_where_it_is_allowed(tasks: TaskSettings, client: Client, allowed: bool) -> None:
    user = get_user_model().objects.create_user("ann", password="x", is_staff=True)
    names = ["view_queuedtask", *(["change_queuedtask"] if allowed else [])]
    for name in names:
        user.user_permissions.add(_permission(name))
    client.force_login(user)
    failed, waiting = functions.fail.enqueue("the reason"), functions.add.enqueue(41, b=2)
    assert QueuedTask in site._registry  # noqa: SLF001  # there is no other way
    page = client.get("/admin/channels_sqlite/queuedtask/")
    assert page.status_code == 200
    assert waiting.id in page.content.decode()
    for query_string, listed_there in (
        ("state__exact=0&queue__exact=default&backend__exact=default", True),
        ("state__exact=3", False),
        ("queue__exact=mail", False),
        (f"q={waiting.id}", True),
        ("q=nonsense", False),
    ):
        listed = client.get(f"/admin/channels_sqlite/queuedtask/?{query_string}")
        assert listed.status_code == 200
        assert (f">{waiting.id}<" in listed.content.decode()) == listed_there, query_string
    rows = dict(QueuedTask.objects.using("channels").values_list("key", "pk"))
    shown = client.get(f"/admin/channels_sqlite/queuedtask/{rows[waiting.id]}/change/").content.decode()
    assert "41" in shown
    _act(client, "cancel", rows[waiting.id])
    assert fresh(waiting).status == (TaskResultStatus.FAILED if allowed else TaskResultStatus.READY)
    run_tasks()
    shown = client.get(f"/admin/channels_sqlite/queuedtask/{rows[failed.id]}/change/").content.decode()
    assert "the reason" in shown
    _act(client, "retry", rows[failed.id])
    assert fresh(failed).status == (TaskResultStatus.READY if allowed else TaskResultStatus.FAILED)


def _permission(name: str) -> Permission:
    from django.contrib.contenttypes.models import ContentType

    kind, _ = ContentType.objects.get_or_create(app_label="channels_sqlite", model="queuedtask")
    permission, _ = Permission.objects.get_or_create(content_type=kind, codename=name, defaults={"name": name})
    return permission


def _act(client: Client, action: str, row: int) -> None:
    client.post("/admin/channels_sqlite/queuedtask/", {"action": action, "_selected_action": [row]}, follow=True)


@pytest.mark.usefixtures("isolated_channel_layers")
@pytest.mark.parametrize("run_number", [1, 2])
def test_the_fixture_isolates_tasks_too(run_number: int) -> None:
    functions.add.enqueue(run_number)
    assert [result.return_value for result in run_tasks()] == [run_number]
    functions.add.enqueue(3)  # left behind


@pytest.mark.django_db(transaction=True, databases=["default", "channels"])
def test_no_list_of_tasks_looks_at_the_whole_table(
    tasks: TaskSettings, admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = functions.add.enqueue(1)
    add_others(tasks, MANY_ROWS)
    for module in ("admin.filters.BUSY_ROWS", "admin.filters.WINDOW_ROWS", "admin.tasks.WINDOW_ROWS"):
        monkeypatch.setattr(f"channels_sqlite.{module}", 500)
    filters = ["", "queue=mail", "queue=nothing", "backend=default", "state__exact=0", "state__exact=3"]
    for asked in [*filters, "q=a.b", "q=nothing", "p=3", "all=", "_facets=True"]:
        steps, page = _steps_of_a_page(admin_client, f"/admin/channels_sqlite/queuedtask/?{asked}")
        assert "queue" in page
        assert old.id not in page
        assert steps < MANY_ROWS / 2, (asked, steps)
        assert asked or "?queue=mail" in page
    steps, page = _steps_of_a_page(admin_client, f"/admin/channels_sqlite/queuedtask/?q={old.id}")
    assert f">{old.id}</a>" in page, "the id finds a task that is older than the list shows"
    assert steps < MANY_ROWS / 2


def _steps_of_a_page(client: Client, url: str) -> tuple[int, str]:
    """Return how many steps SQLite made for a page, and the page."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 100
        return 0

    connections["channels"].ensure_connection()
    raw = connections["channels"].connection
    raw.set_progress_handler(count, 100)
    page = client.get(url)
    assert connections["channels"].connection is raw, "nothing else was asked"
    raw.set_progress_handler(None, 0)
    assert page.status_code == 200
    return steps, page.content.decode()


class IsolatedTests(IsolatedChannelLayersMixin, SimpleTestCase):
    """Each of the two finds an empty queue, whichever runs first."""

    def test_one(self) -> None:
        functions.add.enqueue(1)
        assert [result.return_value for result in run_tasks()] == [1]
        functions.add.enqueue(2)

    def test_other(self) -> None:
        self.test_one()


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["ready in another queue", "delayed", "finished"])
def test_a_hundred_thousand_others_do_not_change_what_a_claim_looks_at(tasks: TaskSettings, kind: int) -> None:
    """The cost itself is a benchmark's; here SQLite's steps for enqueueing, looking, and claiming are counted."""
    queue = tasks.backend.queue
    unique = functions.add.using(unique="one", priority=-9)

    def steps() -> int:
        counted = 0

        def count() -> int:
            nonlocal counted
            counted += 1
            return 0

        def all_of_it(engine: Engine) -> Callable[[Transaction], None]:
            def apply(transaction: Transaction) -> None:
                connection = inside.connection_of(transaction.store)
                connection.set_progress_handler(count, 1)
                try:
                    queue.enqueue([queue.prepare(unique, [1], {})])(engine)(transaction)
                    assert queue.look(["default"], [False, True])(transaction.store).ready
                    claimed = queue.claim(["default"], {False: 1, True: 1}, most=1)(engine)(transaction)
                    assert claimed is not None
                    assert len(claimed) == 1
                finally:
                    connection.set_progress_handler(None, 0)

            return apply

        queue.write(all_of_it)
        return counted

    before = steps()
    add_others(tasks, MANY_ROWS, kind)
    assert steps() <= before * 1.5


def add_others(tasks: TaskSettings, rows: int, kind: int | None = None) -> None:
    """Rows that are ready in another queue (kind 0), delayed (1) or finished (2); None: `rows` of each."""
    now = time.time()
    chosen = "n % 3" if kind is None else str(kind)
    with closing(sqlite3.connect(tasks.database.path, isolation_level=None)) as connection:
        connection.execute(
            f"""
            INSERT INTO channels_sqlite_queuedtask
                (key, prefix, backend, queue, is_async, state, priority, due_at, path, payload, enqueued_at,
                 failure_retention, kept_until, worker_ids, attempts, failures, crashes, max_crashes, last_start, ended,
                 untold)
            WITH RECURSIVE
                counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < ?),
                kinds(n, kind) AS (SELECT n, {chosen} FROM counter)
            SELECT 'key' || n, 'asgi', 'default', CASE kind WHEN 0 THEN 'mail' ELSE 'default' END, 0,
                CASE kind WHEN 0 THEN {TaskState.READY.value} WHEN 1 THEN {TaskState.DELAYED.value}
                    ELSE {TaskState.SUCCESSFUL.value} END,
                0, ? + CASE kind WHEN 1 THEN 86400 ELSE 0 END, 'a.b', x'80', ?, 9,
                CASE kind WHEN 2 THEN ? + 86400 END, '[]', 0, 0, 0, 3, 0, 0, 0
            FROM kinds
            """,  # numbers of ours
            (rows if kind is not None else 3 * rows, now, now, now),
        )
