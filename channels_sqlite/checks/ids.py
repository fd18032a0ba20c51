"""The ids of all system checks of this package. An id is never used again for something else."""

from __future__ import annotations

__all__ = [
    "ALIAS_MISSING",
    "BACKEND_MISSING",
    "DEFAULT_USED",
    "HISTORY_OF_NOTHING",
    "IMPOSSIBLE_VALUE",
    "IN_MEMORY",
    "NETWORK_FILE_SYSTEM",
    "NOT_MIGRATED",
    "NOT_SQLITE",
    "NOT_WAL",
    "NOT_WAL_YET",
    "NOT_WRITABLE",
    "NO_ENCRYPTION",
    "NO_WAKE_FOLDER",
    "OPTIONS_MISPLACED",
    "PRAGMA_REFUSED",
    "ROUTER_HIDDEN",
    "ROUTER_MISSING",
    "SAME_PLACE",
    "SIDE_FILE_UNUSABLE",
    "SQLITE_TOO_OLD",
    "TASKS_IMPOSSIBLE",
    "TASKS_SCHEDULE",
    "UNKNOWN_OPTION",
    "UNUSABLE_DATABASE",
    "WAKE_FOLDER_ELSEWHERE",
    "WAL_RESET_BUG",
]

ALIAS_MISSING = "channels_sqlite.E001"
NOT_SQLITE = "channels_sqlite.E002"
IN_MEMORY = "channels_sqlite.E003"
UNKNOWN_OPTION = "channels_sqlite.E004"
IMPOSSIBLE_VALUE = "channels_sqlite.E005"
SQLITE_TOO_OLD = "channels_sqlite.E006"
BACKEND_MISSING = "channels_sqlite.E007"
NO_ENCRYPTION = "channels_sqlite.E008"
UNUSABLE_DATABASE = "channels_sqlite.E009"
NOT_WRITABLE = "channels_sqlite.E010"
NO_WAKE_FOLDER = "channels_sqlite.E011"
PRAGMA_REFUSED = "channels_sqlite.E012"
TASKS_IMPOSSIBLE = "channels_sqlite.E020"
TASKS_SCHEDULE = "channels_sqlite.E021"

DEFAULT_USED = "channels_sqlite.W001"
ROUTER_MISSING = "channels_sqlite.W002"
ROUTER_HIDDEN = "channels_sqlite.W003"
OPTIONS_MISPLACED = "channels_sqlite.W004"
SAME_PLACE = "channels_sqlite.W005"
NOT_MIGRATED = "channels_sqlite.W006"
NOT_WAL = "channels_sqlite.W007"
NETWORK_FILE_SYSTEM = "channels_sqlite.W008"
WAKE_FOLDER_ELSEWHERE = "channels_sqlite.W009"
SIDE_FILE_UNUSABLE = "channels_sqlite.W010"
HISTORY_OF_NOTHING = "channels_sqlite.W011"

WAL_RESET_BUG = "channels_sqlite.I001"
NOT_WAL_YET = "channels_sqlite.I002"
