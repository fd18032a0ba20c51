"""System checks, `manage.py check`: of the settings, and of the databases that they name."""

from __future__ import annotations

from django.core.checks import Tags, register

from channels_sqlite.checks.database import check_databases
from channels_sqlite.checks.settings import check_settings
from channels_sqlite.checks.tasks import check_tasks, replace_djangos_check

__all__ = ["register_checks"]

TAG = "channels_sqlite"


def register_checks() -> None:
    """Make the checks known to Django."""
    register(check_settings, TAG)
    register(check_databases, Tags.database)
    register(check_tasks, TAG)
    replace_djangos_check()
