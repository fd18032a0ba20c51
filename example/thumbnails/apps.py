"""The thumbnails app."""

from django.apps import AppConfig

__all__ = ["ThumbnailsConfig"]


class ThumbnailsConfig(AppConfig):
    """Uploads, jobs, the worker and the pages that show them."""

    name = "thumbnails"
