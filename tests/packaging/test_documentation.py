"""The README names everything that users can meet: every check and every command."""

import inspect
import pkgutil
from pathlib import Path

import pytest
from django.core.management import BaseCommand, load_command_class

from channels_sqlite import checks
from channels_sqlite.management import commands

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")

IDS = sorted(
    value
    for value in vars(checks).values()
    if isinstance(value, str) and value.startswith(("channels_sqlite.E", "channels_sqlite.W", "channels_sqlite.I"))
)
COMMANDS = sorted(info.name for info in pkgutil.iter_modules(commands.__path__))


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_lists_are_not_empty() -> None:
    assert len(IDS) >= 20
    assert COMMANDS == ["channels_flush", "channels_send", "channels_status", "channels_trim"]


def test_ids_are_used_once() -> None:
    assert len(IDS) == len(set(IDS))


@pytest.mark.parametrize("check_id", IDS)
def test_every_check_id_stands_in_the_table_once(check_id: str) -> None:
    assert section("System checks").count(f"| `{check_id}` | ") == 1


def test_the_table_has_no_other_ids() -> None:
    rows = [line for line in section("System checks").splitlines() if line.startswith("| `channels_sqlite.")]
    assert len(rows) == len(IDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_each_of_its_own_options_is_described(name: str) -> None:
    text = section("Commands")
    assert f"| `{name}" in text
    command = load_command_class("channels_sqlite", name)
    assert inspect.getdoc(command)
    parser = command.create_parser("manage.py", name)
    djangos = BaseCommand().create_parser("manage.py", name)._actions
    django_options = {option for action in djangos for option in action.option_strings}
    for action in parser._actions:
        for option in set(action.option_strings) - django_options:
            assert f"`{option}" in text or f" {option}" in text, option
