"""The ids of all system checks."""

from channels_sqlite.checks import ids

__all__ = ["IDS"]

IDS = sorted(
    value
    for value in vars(ids).values()
    if isinstance(value, str) and value.startswith(("channels_sqlite.E", "channels_sqlite.W", "channels_sqlite.I"))
)
IDS.sort(key=lambda check_id: "EWI".index(check_id.partition(".")[2][0]))
