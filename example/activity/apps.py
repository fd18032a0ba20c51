"""The activity app."""

from django.apps import AppConfig

__all__ = ["ActivityConfig"]


class ActivityConfig(AppConfig):
    """The feed. It has no models: the channel layer keeps what the page shows."""

    name = "activity"
