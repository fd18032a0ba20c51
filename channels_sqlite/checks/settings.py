"""System checks of what can be seen in the settings alone: `manage.py check`, and before most other commands.

What needs the database is in `checks.database`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's names
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, router

from channels_sqlite.channel_layers import LayerEntry, entries, layer_aliases, our_entries
from channels_sqlite.checks import ids
from channels_sqlite.checks.pages import OPTIONS_PAGE
from channels_sqlite.codec import Codec
from channels_sqlite.db_routers import APP_LABEL, ChannelsRouter
from channels_sqlite.exceptions import UnusableAliasError
from channels_sqlite.options import Options, faults_in
from channels_sqlite.storage.database import Database, require_sqlite

__all__ = ["check_settings"]

ROUTER_PATH = "channels_sqlite.db_routers.ChannelsRouter"
BACKEND_PATH = "channels_sqlite.layers.SqliteChannelLayer"
GLOB_SYNTAX = re.compile(r"\[!?\]?[^\]]*\]|[*?]")
NAMES_OF_GROUPS = re.compile(r"[a-zA-Z0-9\-_.]*")
TEST_DATABASE_PREFIX = "file:memorydb_"  # what Django's test runner calls a database in memory

# What Django reads in OPTIONS alone, and ignores beside it; the rest are arguments of sqlite3.connect.
OPTION_KEYS = frozenset(
    {
        "cached_statements",
        "check_same_thread",
        "detect_types",
        "factory",
        "init_command",
        "isolation_level",
        "timeout",
        "transaction_mode",
        "uri",
    }
)


def check_settings(
    *,
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001  # Django's signature
    **kwargs: object,  # noqa: ARG001  # the same
) -> list[CheckMessage]:
    """Check CHANNEL_LAYERS, the DATABASES entries that its layers of ours use, and the routers; open nothing."""
    messages = [message for entry in entries() for message in _check_backend(entry)]
    ours = our_entries()
    if not ours:
        return messages
    messages += _check_sqlite()
    for entry in ours:
        messages += _check_config(entry)
    messages += _check_prefixes(ours)
    for alias in layer_aliases():
        messages += _check_alias(alias)
    messages += _check_routers()
    return messages


def database_setting(alias: str) -> str:
    """Return the entry of DATABASES as written in the settings module, for messages."""
    return f"DATABASES[{alias!r}]"


# CHANNEL_LAYERS


def _check_backend(entry: LayerEntry) -> Iterator[CheckMessage]:
    if entry.backend_error and entry.backend.startswith("channels_sqlite"):
        yield Error(
            f"BACKEND is {entry.backend!r}, which cannot be imported: {entry.backend_error}",
            hint=f'Set {entry.setting}["BACKEND"] to "{BACKEND_PATH}".',
            obj=entry.setting,
            id=ids.BACKEND_MISSING,
        )


def _check_config(entry: LayerEntry) -> Iterator[CheckMessage]:
    faults = faults_in(entry.config)
    for fault in faults:
        if fault.unknown:
            hint = f"{_sentence(fault.remedy)} " if fault.remedy else ""
            yield Error(
                f"CONFIG has {fault.option!r}, which {fault.problem} of a SqliteChannelLayer.",
                hint=f"{hint}See {OPTIONS_PAGE} for all options.",
                obj=entry.setting,
                id=ids.UNKNOWN_OPTION,
            )
        else:
            yield Error(
                f"CONFIG's {fault.option!r} {fault.problem}.",
                hint=f'Set {entry.setting}["CONFIG"]["{fault.option}"] to {fault.remedy}, or remove it.',
                obj=entry.setting,
                id=ids.IMPOSSIBLE_VALUE,
            )
    if not faults:
        yield from _check_encryption(entry)
        yield from _check_history(entry)


def _check_encryption(entry: LayerEntry) -> Iterator[CheckMessage]:
    options = Options.from_config(entry.config)
    try:
        Codec(max_message_size=options.max_message_size, keys=options.symmetric_encryption_keys)
    except ImproperlyConfigured as error:
        yield Error(
            f"CONFIG asks for encryption, which is not installed: {error}",
            hint='Run "pip install channels_sqlite[cryptography]", or remove "symmetric_encryption_keys".',
            obj=entry.setting,
            id=ids.NO_ENCRYPTION,
        )


def _check_history(entry: LayerEntry) -> Iterator[CheckMessage]:
    patterns = entry.config.get("history") or {}
    for pattern in patterns if isinstance(patterns, Mapping) else ():
        if isinstance(pattern, str) and not NAMES_OF_GROUPS.fullmatch(GLOB_SYNTAX.sub("", pattern)):
            yield Warning(
                f"CONFIG's 'history' has the pattern {pattern!r}, which matches no group: names of groups have ASCII "
                f"letters, digits, hyphens, underscores and periods.",
                hint=f'Correct the pattern in {entry.setting}["CONFIG"]["history"], or remove it.',
                obj=entry.setting,
                id=ids.HISTORY_OF_NOTHING,
            )


def _check_prefixes(ours: Sequence[LayerEntry]) -> Iterator[CheckMessage]:
    seen: dict[tuple[str, str], LayerEntry] = {}
    for entry in ours:
        place = (entry.database, str(entry.config.get("prefix", Options.prefix)))
        first = seen.setdefault(place, entry)
        if first is not entry:
            yield Warning(
                f"uses the same database {place[0]!r} with the same prefix {place[1]!r} as {first.setting}: the two "
                f"are one layer, and share their messages and groups.",
                hint=f'Give {entry.setting}["CONFIG"] a "prefix" of its own, or remove one of the two.',
                obj=entry.setting,
                id=ids.SAME_PLACE,
            )


# DATABASES


def _check_sqlite() -> Iterator[CheckMessage]:
    try:
        require_sqlite()
    except UnusableAliasError as error:
        yield _error(error, "SQLite", ids.SQLITE_TOO_OLD)


def _check_alias(alias: str) -> Iterator[CheckMessage]:
    try:
        database = Database(alias)
    except UnusableAliasError as error:
        users = ", ".join(entry.setting for entry in our_entries() if entry.database == alias)
        yield _error(error, users, ids.ALIAS_MISSING)
        return
    setting = database_setting(alias)
    try:
        database.require_engine()
    except UnusableAliasError as error:
        yield _error(error, setting, ids.NOT_SQLITE)
        return
    yield from _check_in_memory(database)
    try:
        database.require_sharing()
    except UnusableAliasError as error:
        yield _error(error, setting, ids.PRAGMA_REFUSED)
    if alias == DEFAULT_DB_ALIAS:
        yield Warning(
            'a channel layer uses the database "default": every message waits while anything else writes to it, and '
            "the other way round.",
            hint=(
                'Add an alias for messages only to DATABASES, name it in the layer\'s CONFIG as "database", and run '
                '"python manage.py migrate --database=<alias>".'
            ),
            obj=setting,
            id=ids.DEFAULT_USED,
        )
    for key in database.settings:
        if key.lower() in OPTION_KEYS:
            yield Warning(
                f"{key!r} stands beside OPTIONS, where Django ignores it.",
                hint=f'Move it into {setting}["OPTIONS"].',
                obj=setting,
                id=ids.OPTIONS_MISPLACED,
            )


def _check_in_memory(database: Database) -> Iterator[CheckMessage]:
    setting = database_setting(database.alias)
    try:
        database.require_file()
    except UnusableAliasError as error:
        yield _error(error, setting, ids.IN_MEMORY)
        return
    if not database.path and not database.name.startswith(TEST_DATABASE_PREFIX):
        yield Error(
            f"a channel layer uses {setting}, whose NAME is {database.name!r}: a database in memory, which no other "
            f"process can see.",
            hint='Give NAME the path of a file, such as BASE_DIR / "channels.sqlite3".',
            obj=setting,
            id=ids.IN_MEMORY,
        )


def _error(error: UnusableAliasError, obj: str, check_id: str) -> Error:
    return Error(f"{error.problem}.", hint=_sentence(error.remedy), obj=obj, id=check_id)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


# DATABASE_ROUTERS


def _check_routers() -> Iterator[CheckMessage]:
    aliases = layer_aliases()
    position = next((at for at, one in enumerate(router.routers) if isinstance(one, ChannelsRouter)), None)
    if position is None:
        if aliases != [DEFAULT_DB_ALIAS]:
            yield Warning(
                "DATABASE_ROUTERS has no ChannelsRouter: migrate puts the tables of all apps into the database of the "
                "channel layer, and those of channels_sqlite into the others.",
                hint=f'Add "{ROUTER_PATH}" to DATABASE_ROUTERS, first.',
                obj="DATABASE_ROUTERS",
                id=ids.ROUTER_MISSING,
            )
        return
    ours = router.routers[position]
    for other in router.routers[:position]:
        difference = _first_difference(other, ours, aliases)
        if difference:
            name = f"{type(other).__module__}.{type(other).__qualname__}"
            yield Warning(
                f"{name} stands before ChannelsRouter and answers for it: {difference}.",
                hint=f'Put "{ROUTER_PATH}" first in DATABASE_ROUTERS, or have {name} return None here.',
                obj="DATABASE_ROUTERS",
                id=ids.ROUTER_HIDDEN,
            )


def _first_difference(other: object, ours: ChannelsRouter, aliases: Sequence[str]) -> str:
    """Return where a router that is asked first decides otherwise than ours would, or ""."""
    message = apps.get_model(APP_LABEL, "Message")
    for method in ("db_for_read", "db_for_write"):
        answer = getattr(other, method, _no_opinion)(message)
        if answer is not None and answer not in aliases:
            return f"its {method}() sends the models of channels_sqlite to {answer!r}"
    for alias in dict.fromkeys([*aliases, DEFAULT_DB_ALIAS]):
        for config in apps.get_app_configs():
            for model in config.get_models():
                label, hints = model._meta.app_label, {"model_name": model._meta.model_name, "model": model}
                wanted = ours.allow_migrate(alias, label, **hints)
                answer = getattr(other, "allow_migrate", _no_opinion)(alias, label, **hints)
                if wanted is not None and answer is not None and bool(answer) is not wanted:
                    verb = "lets" if answer else "does not let"
                    return f"its allow_migrate() {verb} migrate put the tables of {label!r} into {alias!r}"
    return ""


def _no_opinion(*args: object, **hints: object) -> None:  # noqa: ARG001  # a router need not have every method
    return None
