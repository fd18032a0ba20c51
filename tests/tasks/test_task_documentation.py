"""The documentation of tasks says what the code does."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

from django.core.management import load_command_class
from django.tasks import task_backends
from django.test import override_settings

from channels_sqlite.tasks import SqliteTaskBackend
from channels_sqlite.tasks.options import TaskOptions
from tests.packaging.readme import table
from tests.support.databases import ROOT
from tests.tasks.setup import TaskSettings

TEXT = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_table_of_options_has_every_option_in_order_with_its_default() -> None:
    rows = {row[0].strip("`"): row[1].strip("`") for row in table("Tasks")}
    defaults = TaskOptions()
    expected = {field.name: getattr(defaults, field.name) for field in fields(TaskOptions)}
    assert list(rows) == list(expected)
    assert {name: ast.literal_eval(text) for name, text in rows.items()} == expected


def test_the_settings_and_tasks_of_the_tutorial_work(tasks: TaskSettings, tmp_path: Path) -> None:
    settings, module, calls = python_blocks()
    names: dict[str, object] = {}
    exec(settings, names)
    with override_settings(TASKS=names["TASKS"]):
        assert isinstance(task_backends["default"], SqliteTaskBackend)
        exec(module, {"__name__": "users.tasks"})
    compile(calls, "calls", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_options_given_to_the_worker_exist() -> None:
    parser = load_command_class("channels_sqlite", "channels_worker").create_parser("manage.py", "channels_worker")
    known = parser.format_help()
    for option in set(re.findall(r"`(--[a-z-]+)", TEXT)) | {"--processes"}:
        if option != "--database":
            assert option in known, option
