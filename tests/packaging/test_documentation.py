"""The documentation is whole: every option, check, command and public name, and every block of code is run."""

import ast
import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from django.core.management import BaseCommand, call_command, load_command_class
from django.test import override_settings

from channels_sqlite import Channel, Group, Presence, SyncChannelLayer
from channels_sqlite.channel_layers import LayerEntry
from channels_sqlite.checks import ids
from channels_sqlite.counters import Counters
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.management import commands
from channels_sqlite.management.commands import channels_status
from channels_sqlite.management.status import (
    ChannelStatus,
    GroupStatus,
    LayerStatus,
    PresenceStatus,
    ProcessStatus,
    QueueStatus,
    WorkerStatus,
)
from channels_sqlite.options import Options
from tests.benchmarks.__main__ import _parser as benchmark_parser
from tests.benchmarks.scenarios import SCENARIOS
from tests.django.project import DOCUMENTED
from tests.packaging.ids import IDS
from tests.packaging.pages import DOCS, PAGES, README, ROOT, Block, blocks, page, section, sections, table
from tests.support import inside

COMMANDS = sorted(info.name for info in pkgutil.iter_modules(commands.__path__))
TESTS = ROOT / "tests"

OPTIONS = "docs/options.md"
COMMANDS_PAGE = "docs/commands.md"
STATUS = "docs/status.md"
BENCHMARKS = "docs/benchmarks.md"
INSIDE = "docs/how-it-works.md"

ORDER = [
    "When not to use it",
    "Install",
    "Quickstart",
    "A consumer",
    "A synchronous view",
    "A worker",
    "Guarantees",
    "Figures",
    "See it run",
    "Read on",
]


def test_the_readme_is_short_and_in_order() -> None:
    assert sections(README) == ORDER
    assert len(page(README).splitlines()) <= 220
    assert len(section(README, "Guarantees").strip().splitlines()) <= 12


# Options


def test_the_table_of_options_has_every_option_in_order_with_its_default() -> None:
    rows = table(OPTIONS, "Options")
    assert all(len(row) == 4 and all(row) for row in rows)
    documented = {name.strip("`"): ast.literal_eval(default.strip("`")) for name, _, default, _ in rows}
    actual = {field.name: field.default for field in dataclasses.fields(Options)}
    assert list(documented) == list(actual)
    given = {name: value for name, value in documented.items() if value is not None}
    assert given == {name: value for name, value in actual.items() if name in given}
    assert Options.from_config(documented) == Options()


@pytest.mark.parametrize("row", table(OPTIONS, "Options"), ids=lambda row: row[0].strip("`"))
def test_the_type_of_an_option_is_the_one_that_is_taken(row: list[str]) -> None:
    option, kind = row[0].strip("`"), row[1]
    taken: dict[str, object] = {
        "str": "text",
        "seconds": 0.5,
        "int": 1,
        "dict": {"jobs.*": 5, re.compile("x"): 6},
        "bool": False,
        "bytes": 1,
        "list": ["a key", b"another"],
    }
    histories = {"room.*": {"size": 1, "ttl": 0.5}, re.compile("x"): {"size": 1, "ttl": 1}}
    Options.from_config({option: histories if kind.startswith("dict of dicts") else taken[kind.split()[0]]})
    if "None" in kind:
        Options.from_config({option: None})
    for bound, limit in re.findall(r"([>≥]) (\d+)", kind):
        with pytest.raises(Exception, match=option):
            Options.from_config({option: int(limit) - (bound == "≥")})
        if bound == "≥":
            Options.from_config({option: int(limit)})


def test_the_settings_of_the_quickstart_are_those_that_the_other_tests_use() -> None:
    written = [
        *(block.text for block in blocks(README) if (block.section, block.language) == ("Quickstart", "python")),
        *(block.text for block in blocks(OPTIONS) if (block.section, block.language) == ("The whole of it", "python")),
    ]

    def values(text: str) -> dict[str, object]:
        names: dict[str, object] = {"INSTALLED_APPS": ["..."], "BASE_DIR": Path("site")}
        exec(text.replace("[..., ", "[*INSTALLED_APPS, "), names)
        return {name: value for name, value in names.items() if name.isupper()}

    assert [values(text) for text in written] == [values(DOCUMENTED)] * 2


# Checks


def test_ids_are_used_once() -> None:
    constants = [value for value in vars(ids).values() if isinstance(value, str) and value in IDS]
    assert len(IDS) == len(set(constants)) == len(constants) >= 20


def test_the_table_of_checks_has_every_id_once_in_order() -> None:
    assert [row[0].strip("`") for row in table("docs/checks.md", "System checks")] == IDS
    assert all(len(row) == 3 and all(row) for row in table("docs/checks.md", "System checks"))


# Commands


def test_the_table_of_commands_has_every_command() -> None:
    documented = [row[0].strip("`").split()[0] for row in table(COMMANDS_PAGE, "Commands")]
    assert (
        sorted(documented)
        == COMMANDS
        == [
            "channels_flush",
            "channels_send",
            "channels_status",
            "channels_tasks",
            "channels_trim",
            "channels_worker",
        ]
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_each_of_its_own_options_is_described(name: str) -> None:
    text = section(COMMANDS_PAGE, "Commands") + section(COMMANDS_PAGE, "Giving space back")
    command = load_command_class("channels_sqlite", name)
    assert inspect.getdoc(command)
    parser = command.create_parser("manage.py", name)
    djangos = BaseCommand().create_parser("manage.py", name)
    django_options = {option for action in inside.actions(djangos) for option in action.option_strings}
    for action in inside.actions(parser):
        for option in set(action.option_strings) - django_options:
            assert f"`{option}" in text or f" {option}" in text, option


def test_options_that_the_page_gives_to_commands_exist() -> None:
    known = {"--help", "--json"}
    for name in COMMANDS:
        parser = load_command_class("channels_sqlite", name).create_parser("manage.py", name)
        for one in (parser, *inside.subparsers(parser)):
            known |= {option for action in inside.actions(one) for option in action.option_strings}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page(COMMANDS_PAGE))) <= known


def sample() -> dict[str, Any]:  # Any: JSON
    """What the documentation shows as the output of `channels_status --json`."""
    [text] = [block.text for block in blocks(STATUS) if block.text.startswith("{")]
    shape: dict[str, Any] = json.loads(text)
    return shape


def test_the_output_of_channels_status_is_what_the_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [written] = sample()["layers"]
    status = LayerStatus(
        **{
            **written,
            "channels": tuple(ChannelStatus(**one) for one in written["channels"]),
            "groups": tuple(GroupStatus(**one) for one in written["groups"]),
            "processes": tuple(
                ProcessStatus(**{**one, "listening": tuple(one["listening"]), "counters": Counters(**one["counters"])})
                for one in written["processes"]
            ),
            "counters": Counters(**written["counters"]),
            "queues": tuple(QueueStatus(**one) for one in written["queues"]),
            "presences": tuple(PresenceStatus(**one) for one in written["presences"]),
            "workers": tuple(WorkerStatus(**{**one, "queues": tuple(one["queues"])}) for one in written["workers"]),
        }
    )

    def look_at(entry: LayerEntry) -> LayerStatus:
        assert entry.alias == "default"
        return status

    monkeypatch.setattr(channels_status, "look_at", look_at)
    layers = {
        "default": {"BACKEND": "channels_sqlite.layers.SqliteChannelLayer"},
        "other": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
    }
    with override_settings(CHANNEL_LAYERS=layers):
        call_command("channels_status")
        printed = capsys.readouterr().out
        call_command("channels_status", "--json")
        assert json.loads(capsys.readouterr().out) == sample()
    [shown] = [block.text for block in blocks(STATUS) if block.text.startswith("$ python manage.py channels_status")]
    assert shown.partition("\n")[2] == printed


@pytest.mark.parametrize(
    ("number", "kind"),
    list(
        enumerate((LayerStatus, ChannelStatus, GroupStatus, ProcessStatus, QueueStatus, WorkerStatus, PresenceStatus))
    ),
)
def test_the_tables_of_fields_have_every_field_of_the_json_in_order(number: int, kind: type[LayerStatus]) -> None:
    documented = [name for row in table(STATUS, "Fields", number) for name in re.findall(r"`(\w+)`", row[0])]
    assert documented == [field.name for field in dataclasses.fields(kind)]


def test_the_table_of_counters_has_every_counter_in_order() -> None:
    documented = [name for row in table(STATUS, "Counters") for name in re.findall(r"`(\w+)`", row[0])]
    assert documented == [field.name for field in dataclasses.fields(Counters)]


# Names


@pytest.mark.parametrize(
    ("owner", "title"),
    [
        (SyncChannelLayer, "In synchronous code"),
        (Channel, "Typed handles"),
        (Group, "Typed handles"),
        (Presence, "Typed handles"),
    ],
)
def test_every_method_is_described(owner: type, title: str) -> None:
    methods = [name for name, value in vars(owner).items() if inspect.isfunction(value) and not name.startswith("_")]
    rows = "\n".join(" ".join(row) for row in table("docs/sync.md", title))
    assert [name for name in methods if not re.search(rf"`{name}\b", rows)] == []


@pytest.mark.parametrize(
    "module", ["channels_sqlite", "channels_sqlite.exceptions", "channels_sqlite.lifespan", "channels_sqlite.testing"]
)
def test_every_public_name_of_what_users_import_is_mentioned(module: str) -> None:
    text = "".join(page(name) for name in DOCS if name != "docs/api.md")
    # The usual; what `lossy` gives; an ImproperlyConfigured.
    unmentioned = {"__version__", "Losses", "UnusableAliasError"}
    names = set(importlib.import_module(module).__all__) - unmentioned
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def test_beyond_the_specification_the_layer_has_what_the_page_says() -> None:
    text = section("docs/consumers.md", "Beyond the specification")
    assert all(
        f"layer.{name}(" in text for name in ("group_channels", "group_count", "group_subscribe", "group_history")
    )
    assert SqliteChannelLayer.extensions == ["groups", "flush"]


def test_every_module_is_in_the_table_of_files() -> None:
    cells = [name for row in table(INSIDE, "The files") for name in re.findall(r"`([a-z_]+\.py|[a-z_]+/)`", row[0])]
    package = ROOT / "channels_sqlite"
    actual = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    actual |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert len(cells) == len(set(cells))
    assert set(cells) == actual


def test_a_message_can_be_followed_through_the_files() -> None:
    drawn = re.findall(
        r"^(?:sender|receiver)? +([a-z_/]+\.py)(?:, ([a-z_/]+\.py))?(?:: (\w+))?  ",
        section(INSIDE, "Following a message"),
        re.MULTILINE,
    )
    assert len(drawn) >= 10
    for file, other, name in drawn:
        for path in filter(None, (file, other)):
            text = (ROOT / "channels_sqlite" / path).read_text(encoding="utf-8")
            assert not name or re.search(rf"def {name}\(", text), f"{path} has no {name}()"


# Blocks of code

DRAWING = "a drawing"
INSTALLING = "`python -m tests` installs the wheel instead"
RUNS_CODE = "readme: test_all_code_of_these_pages_is_run"
SETTINGS = "documentation: test_the_settings_of_the_quickstart"
BENCHMARK = "documentation: test_commands_of_the_benchmarks_are_taken"
TUTORIAL = "tutorial: test_who_follows_the_tutorial"
SERVERS = "deployment: test_the_servers_of_the_page_serve_the_chat"
OF_TASKS = "task_documentation: test_every_block_is_known"
OF_PRESENCE = "presence_documentation: test_every_block_is_known"

EXERCISED = {
    README: {
        "pip install channels_sqlite": INSTALLING,
        "INSTALLED_APPS = [...": "new_project: followed",
        "python manage.py migrate": "new_project: followed",
        "python manage.py shell -c": "new_project: test_the_message_of_the_quickstart_passes",
        "python manage.py channels_send": "new_project: test_the_message_of_the_quickstart_passes",
        "# mysite/consumers.py": "new_project: test_the_chat_of_the_readme_speaks_to_another_process",
        "# mysite/views.py": "new_project: test_the_chat_of_the_readme_speaks_to_another_process",
        "# mysite/tasks.py": "task_documentation: test_the_worker_of_the_readme_runs",
        "python example/manage.py demo": "demo: test_demo_does_all_of_its_own_set_up",
    },
    "CONTRIBUTING.md": {
        "python -m tests": "this very run",
        "uv sync --group dev": "documentation: test_commands_for_contributors",
        "uv run --group benchmark": BENCHMARK,
    },
    "docs/benchmarks.md": {"uv run --group benchmark": BENCHMARK},
    "docs/consumers.md": {
        "# mysite/": "new_project: test_the_chat_of_the_readme_speaks_to_another_process",
    },
    "docs/deployment.md": {
        "python manage.py check": "deployment: test_the_commands_before_going_live",
        "python manage.py migrate": "new_project: followed",
        "uvicorn": SERVERS,
        "gunicorn": SERVERS,
        "hypercorn": SERVERS,
        "daphne": SERVERS,
        "[Unit]": "deployment: test_the_unit_for_systemd",
        "FROM python": "deployment: test_the_image_for_docker",
    },
    "docs/history.md": {"": "history_documentation: test_the_consumer_and_the_view_run"},
    "docs/events.md": {
        "# mysite/": "events_documentation: test_the_feed_of_the_page_runs",
        "# mysite/tests.py": "events_documentation: test_the_test_of_the_page_passes",
        "<!-- mysite/": "events_documentation: test_the_feed_of_the_page_runs",
        "location": "events_documentation: test_the_settings_for_nginx_are_for_the_view_of_the_page",
    },
    "docs/how-it-works.md": {"sender    layers.py": DRAWING},
    "docs/index.md": {"pip install channels_sqlite": INSTALLING},
    "docs/migrating.md": {"CHANNEL_LAYERS = {": "readme: test_the_settings_for_coming_from_another_layer"},
    "docs/options.md": {"INSTALLED_APPS = [...": SETTINGS, "python manage.py migrate": "new_project: followed"},
    "docs/presence.md": {"": OF_PRESENCE},
    "docs/redis.md": {"CHANNEL_LAYERS = {": "readme: test_the_settings_for_redis_make_a_layer"},
    "docs/sending.md": {"# photos/": RUNS_CODE},
    "docs/status.md": {
        "$ python manage.py channels_status": "documentation: test_the_output_of_channels_status",
        '{"layers": [': "documentation: test_the_output_of_channels_status",
    },
    "docs/sync.md": {"# photos/": RUNS_CODE},
    "docs/tasks.md": {"": OF_TASKS},
    "docs/testing.md": {
        "# conftest.py": "testing_runs: test_pytest_with_databases_in_memory_and_the_code_of_the_documentation",
        "# photos/": "readme: test_all_code_about_testing_is_run",
    },
    "docs/tutorial.md": {"": TUTORIAL},
    "docs/workers.md": {"# photos/": RUNS_CODE},
    "example/README.md": {
        "python manage.py demo": "demo: demo",
        "uv sync": "documentation: test_commands_of_the_example_exist",
    },
}
"""How each block of a page begins, and which module and test, or fixture, runs it; or why none does."""


def runs(block: Block, exercised: dict[str, str]) -> str | None:
    """Where a block is run: of the beginnings that fit, the longest counts."""
    return max((start for start in exercised if block.text.startswith(start)), key=len, default=None)


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_code_is_run_somewhere(name: str) -> None:
    exercised = EXERCISED.get(name, {})
    found = [(block.text.partition("\n")[0], runs(block, exercised)) for block in blocks(name)]
    assert [line for line, start in found if start is None] == []
    assert {start for _, start in found} == set(exercised)
    for where in exercised.values():
        module, separator, test = where.partition(": ")
        if separator:
            [path] = TESTS.glob(f"*/test_{module}.py")
            assert f"def {test}" in path.read_text(encoding="utf-8"), where


def test_what_is_shown_twice_is_the_same() -> None:
    """A file of the project of the README, wherever a page shows it."""
    shown: dict[str, set[str]] = {}
    for name in PAGES:
        for block in blocks(name):
            if name in {README, "docs/consumers.md"}:
                shown.setdefault(block.file, set()).add(block.text)
    del shown[""]
    assert {file for file, texts in shown.items() if len(texts) > 1} == set()


# Figures


def figures() -> dict[tuple[str, str], dict[str, str]]:
    """Scenario and figure to the medians of each layer, as the page of benchmarks has them."""
    lines = [line for line in section(BENCHMARKS, "Results").splitlines() if line.startswith("|")]
    head = [cell.strip() for cell in lines[0].strip("|").split("|")]
    found = {}
    for row in table(BENCHMARKS, "Results"):
        found[row[0], row[1]] = {
            layer: re.sub(r" (?:\([^)]*\)|\[[^]]*\])", "", cell) for layer, cell in zip(head[2:], row[2:], strict=True)
        }
    return found


def test_the_figures_of_the_readme_are_those_of_the_page() -> None:
    lines = [line for line in section(README, "Figures").splitlines() if line.startswith("|")]
    layers = [cell.strip() for cell in lines[0].strip("|").split("|")][2:]
    rows = table(README, "Figures")
    assert len(rows) >= 5
    for scenario, figure, *cells in rows:
        measured = figures()[scenario, figure]
        assert cells == [measured[layer] for layer in layers], f"{scenario}, {figure}"


def test_commands_of_the_benchmarks_are_taken() -> None:
    texts = [block.text for name in PAGES for block in blocks(name) if "tests.benchmarks" in block.text]
    assert len(texts) >= 3
    for text in texts:
        benchmark_parser().parse_args(shlex.split(text.partition("tests.benchmarks")[2]))


def test_the_table_of_scenarios_has_every_scenario() -> None:
    documented: list[str] = []
    for row in table(BENCHMARKS, "Scenarios"):
        for name in re.findall(r"`([^`]+)`", row[0]):  # "-4x250" goes on from "broadcast-1x10"
            documented.append(documented[-1].rpartition("-")[0] + name if name.startswith("-") else name)
    assert sorted(documented) == sorted(SCENARIOS)


def test_commands_for_contributors_name_what_exists() -> None:
    [text] = [block.text for block in blocks("CONTRIBUTING.md") if block.text.startswith("uv sync --group dev")]
    assert [word for word in shlex.split(text) if word.startswith("tests/") and not (ROOT / word).is_dir()] == []
    assert "\ndev = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_commands_of_the_example_exist() -> None:
    names = {"migrate", "runserver", *COMMANDS}  # the first two are Django's
    names |= {path.stem for path in (ROOT / "example").glob("*/management/commands/*.py")}
    texts = "".join(block.text for block in blocks("example/README.md"))
    assert set(re.findall(r"manage\.py (\w+)", texts)) <= names
