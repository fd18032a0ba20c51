"""The demo app."""

from django.apps import AppConfig

__all__ = ["DemoConfig"]


class DemoConfig(AppConfig):
    """Holds the command ``manage.py demo`` and nothing else."""

    name = "demo"
