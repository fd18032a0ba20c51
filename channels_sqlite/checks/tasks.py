"""System checks of TASKS, where Django knows tasks.

Django's own check makes every backend, and ours refuses to be made of OPTIONS with faults. So this one takes its place:
it reports those faults, and has all other backends made and checked as Django does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import django
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks.registry import registry
from django.utils.module_loading import import_string

from channels_sqlite.checks import ids
from channels_sqlite.checks.pages import TASK_OPTIONS_PAGE

__all__ = ["check_tasks", "replace_djangos_check"]


def replace_djangos_check() -> None:
    """Have `check_tasks` run instead of Django's check of TASKS."""
    if django.VERSION >= (6, 0):
        from django.tasks import checks

        registry.registered_checks.discard(checks.check_tasks)


def check_tasks(
    *,
    app_configs: Sequence[AppConfig] | None = None,
    **kwargs: object,
) -> list[CheckMessage]:
    """Check the OPTIONS of this package's backends, and have the others check themselves."""
    if django.VERSION < (6, 0):
        return []
    written: object = getattr(settings, "TASKS", None)
    entries = written if isinstance(written, Mapping) else {}
    return [
        message
        for alias, params in entries.items()
        for message in _check(alias, params if isinstance(params, Mapping) else {}, app_configs, kwargs)
    ]


def _check(
    alias: str, params: Mapping[str, object], app_configs: Sequence[AppConfig] | None, kwargs: Mapping[str, object]
) -> Iterator[CheckMessage]:
    from django.tasks import task_backends

    from channels_sqlite.tasks.backend import SqliteTaskBackend
    from channels_sqlite.tasks.options import faults_in
    from channels_sqlite.tasks.schedules import faults_of

    setting = f"TASKS[{alias!r}]"
    if _is_ours(params.get("BACKEND"), SqliteTaskBackend):
        faults = faults_in(params)
        for fault in faults:
            yield Error(
                f"A task backend's setting is wrong: {fault}.",
                hint=f"Change it in {setting}; see {TASK_OPTIONS_PAGE} for all options.",
                obj=setting,
                id=ids.TASKS_IMPOSSIBLE,
            )
        if faults:
            return
    backend = task_backends[alias]
    if isinstance(backend, SqliteTaskBackend):
        for fault in faults_of(backend):
            yield Error(
                f"The schedule cannot be followed: {fault}.",
                hint=f'Give the dotted path of a task of this backend in {setting}["OPTIONS"]["schedule"].',
                obj=setting,
                id=ids.TASKS_SCHEDULE,
            )
    yield from backend.check(app_configs=app_configs, **kwargs)


def _is_ours(path: object, ours: type) -> bool:
    try:
        found: object = import_string(path) if isinstance(path, str) else None
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, ours)
