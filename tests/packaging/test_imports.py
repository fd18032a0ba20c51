"""Which way the package's modules import each other: down, from what users call to what everything stands on."""

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "channels_sqlite"

LEVELS: tuple[tuple[str, ...], ...] = (
    ("__init__",),
    ("apps", "testing", "lifespan", "handles", "consumers", "sse"),
    ("management", "checks", "admin"),
    ("tasks",),
    ("sync", "db_routers"),
    ("channel_layers",),
    ("layers",),
    ("engine",),
    ("delivery",),
    ("waking",),
    ("storage",),
    ("processes",),
    ("concurrency",),
    ("migrations", "models"),
    ("task_models",),
    ("present", "reports", "sending"),
    ("ages", "codec", "counters", "exceptions", "fields", "histories", "kinds", "names", "options"),
)
"""Modules and folders, each of which imports from its own line and those below; migrations need no module at all."""


@lru_cache(1)
def modules() -> dict[str, Path]:
    """All modules of the package by their dotted names; a folder's face is that of its name."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that one imports: deferred, for types alone, and by name (`_HOMES`) as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == PACKAGE:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules() else node.module
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and path == modules()[PACKAGE]:
            yield from (name for name in modules() if name == node.value)


@lru_cache(1)
def edges() -> dict[str, set[str]]:
    return {name: set(imported(path)) - {name} for name, path in modules().items()}


def room_of(module: str) -> str:
    """The module or folder right below the package; the package's own face."""
    return module.split(".")[1] if "." in module else "__init__"


def level_of(module: str) -> int:
    room = room_of(module)
    return next(number for number, level in enumerate(LEVELS) if room in level)


def test_every_module_has_its_level() -> None:
    rooms = {room_of(module) for module in modules()}
    assert rooms == {room for level in LEVELS for room in level}


def test_no_room_imports_one_above_it() -> None:
    upwards = [
        f"{one} -> {other}" for one, others in edges().items() for other in others if level_of(other) < level_of(one)
    ]
    assert upwards == []


def test_rooms_of_one_level_do_not_import_each_other() -> None:
    sideways = [
        f"{one} -> {other}"
        for one, others in edges().items()
        for other in others
        if level_of(other) == level_of(one) and room_of(one) != room_of(other)
    ]
    assert sideways == []


def test_there_is_no_circle() -> None:
    left = {name: set(others) for name, others in edges().items()}
    # A face imports the modules of its folder, which is no circle as long as they do not import the face.
    while free := {name for name, others in left.items() if not others & left.keys()}:
        for name in free:
            del left[name]
    assert left == {}, "these import each other, or what does"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from channels_sqlite.storage import outbox", "channels_sqlite.storage.outbox"),
        ("if 1:\n import channels_sqlite.names", "channels_sqlite.names"),
        ("def f():\n from channels_sqlite.layers import SqliteChannelLayer", "channels_sqlite.layers"),
    ],
)
def test_imports_are_found(source: str, expected: str, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(source)
    assert list(imported(module)) == [expected]


# Constructors


def parameters() -> Iterator[tuple[str, str, str]]:
    """(class, parameter, annotation) of every `__init__`, and of the fields of classes that have none."""
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            label = f"{name}.{node.name}"
            made = next(
                (item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None
            )
            if made is not None:
                for one in (*made.args.posonlyargs, *made.args.args, *made.args.kwonlyargs):
                    yield label, one.arg, "" if one.annotation is None else ast.unparse(one.annotation)
            elif node.decorator_list or any("Tuple" in ast.unparse(base) for base in node.bases):
                for item in node.body:
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                        yield label, item.target.id, ast.unparse(item.annotation)


def test_no_constructor_takes_more_than_two_callables() -> None:
    taken: dict[str, list[str]] = {}
    for label, name, annotation in parameters():
        if "Callable" in annotation:
            taken.setdefault(label, []).append(name)
    assert {label: names for label, names in taken.items() if len(names) > 2} == {}
    assert taken, "there are some"


def test_nobody_is_given_the_lock_of_another() -> None:
    assert [f"{label}: {name}" for label, name, annotation in parameters() if "Lock" in annotation.split(".")] == []
