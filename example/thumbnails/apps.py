"""The thumbnails app."""

from django.apps import AppConfig
from typing_extensions import override

__all__ = ["ThumbnailsConfig"]


class ThumbnailsConfig(AppConfig):
    """Uploads, the tasks that make thumbnails of them, and the pages that show both."""

    name = "thumbnails"

    @override
    def ready(self) -> None:
        """Connect the receivers."""
        import thumbnails.receivers  # noqa: F401
