"""The paths that users import from, each in an interpreter that imported nothing else before; the rest may move."""

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import django
import pytest
from django.core.exceptions import ImproperlyConfigured

import channels_sqlite
from tests.packaging.pages import section

ROOT = Path(__file__).resolve().parents[2]

OF_TASKS = {
    "channels_sqlite.tasks": [
        "Progress",
        "SqliteTaskBackend",
        "Task",
        "TaskCancelled",
        "TaskContext",
        "WorkerDied",
        "await_result",
        "progress_of",
        "task",
        "wait",
    ],
}
"""With Django 6.0."""

PUBLIC = {
    "channels_sqlite": [
        "Channel",
        "Group",
        "History",
        "HistoryEntry",
        "Presence",
        "Present",
        "SyncChannelLayer",
        "get_channel_layer",
        "get_sync_channel_layer",
    ],
    "channels_sqlite.apps": ["ChannelsSqliteConfig"],
    "channels_sqlite.consumers": ["DirectDispatch"],
    "channels_sqlite.db_routers": ["ChannelsRouter"],
    "channels_sqlite.exceptions": ["ChannelDatabaseError", "LayerClosedError", "UnusableAliasError"],
    "channels_sqlite.layers": ["SqliteChannelLayer"],
    "channels_sqlite.lifespan": ["lifespan"],
    "channels_sqlite.sse": ["event_stream"],
    "channels_sqlite.sync": ["SyncChannelLayer", "get_sync_channel_layer"],
    **({} if django.VERSION < (6, 0) else OF_TASKS),
    "channels_sqlite.testing": [
        "IsolatedChannelLayersMixin",
        "Losses",
        "isolated_channel_layers",
        "lossy",
        "run_tasks",
    ],
}
"""What users name in code and in settings. `models` and the commands have their names from Django."""

BEFORE_THE_FOLDERS = {
    "alarms",
    "background",
    "blocking",
    "claims",
    "configured",
    "connections",
    "database_checks",
    "filelocks",
    "foreign",
    "inbox",
    "interrupts",
    "joining",
    "lookup",
    "mailboxes",
    "memberships",
    "outbox",
    "payloads",
    "presence",
    "process",
    "pytest_fixtures",
    "statements",
    "store",
    "wakeup",
    "watches",
    "writes",
}

TEST_KIT = ("channels_sqlite.testing", "pytest", "unittest.mock")


def fresh(code: str) -> None:
    """Run code in an interpreter of its own, without settings; what it raises or warns of fails the test."""
    command = [sys.executable, "-W", "error", "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    finished = subprocess.run(command, env={}, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in PUBLIC.items() for name in names])
def test_every_public_path_can_be_imported_first_and_without_settings(module: str, name: str) -> None:
    fresh(f"from {module} import {name}")


@pytest.mark.parametrize("module", PUBLIC)
def test_what_a_public_module_exports_is_what_is_public(module: str) -> None:
    assert sorted({*importlib.import_module(module).__all__} - {"__version__"}) == PUBLIC[module]


@pytest.mark.parametrize("module", [module for module in PUBLIC if module != "channels_sqlite.testing"])
def test_nothing_public_brings_the_test_kit_along(module: str) -> None:
    names = ", ".join(PUBLIC[module])
    fresh(f"from {module} import {names}\nassert not set(sys.modules) & {set(TEST_KIT)!r}")


@pytest.mark.skipif(django.VERSION >= (6, 0), reason="this Django has tasks")
def test_tasks_of_a_django_that_has_none_say_what_they_need() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"django\.tasks, which came with Django 6\.0"):
        importlib.import_module("channels_sqlite.tasks")


def test_the_documentation_and_the_package_say_which_modules_are_public() -> None:
    [paragraph] = [
        text for text in section("docs/how-it-works.md", "The files").split("\n\n") if text.startswith("Public are ")
    ]
    assert sorted(set(re.findall(r"`([\w.]+)`", paragraph))) == sorted({*PUBLIC, *OF_TASKS})
    [sentence] = re.findall(r"Public are [^.]+\.", channels_sqlite.__doc__ or "")
    modules = set(re.findall(r"`(\w+)`", sentence)) - {"channels_sqlite"}
    assert {"channels_sqlite", *(f"channels_sqlite.{module}" for module in modules)} == {*PUBLIC, *OF_TASKS}


def test_modules_that_have_moved_into_folders_are_gone() -> None:
    present = {info.name for info in pkgutil.iter_modules(channels_sqlite.__path__)}
    assert present & BEFORE_THE_FOLDERS == set()
