"""The two faces of a layer, and the two forms of a handle's methods, say the same: names, parameters, errors."""

import builtins
import inspect
import re
from collections.abc import Callable
from typing import Any

import channels.exceptions
import pytest

import channels_sqlite.exceptions
from channels_sqlite import Channel, Group, Presence, SyncChannelLayer, get_sync_channel_layer
from channels_sqlite.layers import SqliteChannelLayer

SYNC_ALONE = {"send_on_commit", "group_send_on_commit", "listen"}
"""Transactions belong to threads, and a coroutine that listens is a loop around `await receive()`."""

MORE_PARAMETERS = {"receive": ["timeout"]}
"""A coroutine is given its time by asyncio.wait_for()."""

MORE_ERRORS = {
    "receive": {"TimeoutError"},
    "group_subscribe": {"NotImplementedError"},
}

ANY_METHOD = {"ChannelDatabaseError"}
"""The layer's class says once that each of its methods may raise this."""

HANDLES_SYNC_ALONE = {"send_on_commit"}


def methods(kind: type, wanted: Callable[[object], bool]) -> dict[str, Callable[..., Any]]:
    """The public methods that this package defines for a class."""
    ours = [one for one in kind.__mro__ if one.__module__.startswith("channels_sqlite")]
    defined = {name: method for one in reversed(ours) for name, method in vars(one).items()}
    return {name: method for name, method in defined.items() if not name.startswith("_") and wanted(method)}


def is_async(thing: object) -> bool:
    return inspect.iscoroutinefunction(thing) or inspect.isasyncgenfunction(thing)


def async_face() -> dict[str, Callable[..., Any]]:
    return methods(SqliteChannelLayer, is_async)


def sync_face() -> dict[str, Callable[..., Any]]:
    return methods(SyncChannelLayer, inspect.isfunction)


def parameters(method: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(method).parameters.values())


def documented_errors(method: Callable[..., Any]) -> set[str]:
    """The names of errors from where a docstring says "Raises" on."""
    _, _, text = (inspect.getdoc(method) or "").partition("Raises")
    return set(re.findall(r"\b(?:[A-Z]\w+Error|ChannelFull|MessageTooLarge|ImproperlyConfigured)\b", text))


def test_the_sync_face_has_every_method_of_the_async_one() -> None:
    assert set(sync_face()) == set(async_face()) | SYNC_ALONE
    assert len(async_face()) == 24


def test_methods_of_both_faces_have_the_same_parameters() -> None:
    for name, asynchronous in async_face().items():
        more = MORE_PARAMETERS.get(name, [])
        seen = [parameter for parameter in parameters(sync_face()[name]) if parameter.name not in more]
        assert seen == parameters(asynchronous), name
        assert (
            inspect.signature(sync_face()[name]).return_annotation == inspect.signature(asynchronous).return_annotation
        ), name


def test_methods_that_send_on_commit_have_the_parameters_of_those_that_send() -> None:
    for name in ("send", "group_send"):
        *same, using = parameters(sync_face()[f"{name}_on_commit"])
        assert same == parameters(sync_face()[name])
        assert (using.name, using.kind, using.default) == ("using", inspect.Parameter.KEYWORD_ONLY, "default")


def test_methods_of_both_faces_document_the_same_errors() -> None:
    for name, asynchronous in async_face().items():
        expected = documented_errors(asynchronous) | MORE_ERRORS.get(name, set())
        assert documented_errors(sync_face()[name]) | ANY_METHOD == expected | ANY_METHOD, name
    assert {"ChannelFull", "MessageTooLarge", "TypeError"} <= documented_errors(SyncChannelLayer.send)


def test_every_documented_error_exists() -> None:
    places = (builtins, channels.exceptions, channels_sqlite.exceptions)
    for method in (*sync_face().values(), *async_face().values()):
        for error in documented_errors(method):
            assert any(issubclass(getattr(place, error, int), Exception) for place in places), (method, error)
    assert documented_errors(get_sync_channel_layer) == {"ImproperlyConfigured"}


@pytest.mark.parametrize("kind", [Channel, Group, Presence])
def test_handles_have_every_method_in_both_forms(kind: type) -> None:
    forms = methods(kind, inspect.isfunction)
    asynchronous = {name for name, method in forms.items() if is_async(method)}
    synchronous = set(forms) - asynchronous
    assert asynchronous == {f"a{name}" for name in synchronous - HANDLES_SYNC_ALONE}
    for name in synchronous - HANDLES_SYNC_ALONE:
        assert parameters(forms[name]) == parameters(forms[f"a{name}"]), name
    assert all(inspect.getdoc(method) for method in forms.values())


@pytest.mark.parametrize("kind", [Channel, Group, Presence])
def test_handles_have_the_parameters_of_the_facade(kind: type) -> None:
    prefixes: dict[type, str] = {Channel: "", Group: "group_", Presence: "presence_"}
    prefix = prefixes[kind]
    for name, method in methods(kind, inspect.isfunction).items():
        if not is_async(method):
            # A ticket may be of either.
            of_facade = parameters(sync_face()[name if name == "cancel" else prefix + name])
            names = [parameter.name for parameter in of_facade if parameter.name not in {"group", "channels"}]
            if kind is Channel:
                names = [given for given in names if given != "channel"]
            assert [parameter.name for parameter in parameters(method)] == names
