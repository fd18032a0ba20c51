"""What is kept of a picture. How far the work on it is, its task knows."""

from __future__ import annotations

import uuid
from pathlib import Path

from django.db import models, transaction
from django.utils import timezone
from typing_extensions import override

from thumbnails.messages import Thumbnail

__all__ = ["SIZES", "Job"]

# The longest side of each thumbnail in pixels.
SIZES = (1280, 960, 640, 320, 160, 80)


def new_path(job: Job, filename: str) -> str:
    """Return where an upload is stored: a folder of its own, and nothing of the name that its sender gave it."""
    return f"thumbnails/{uuid.uuid4().hex}/picture"


class Job(models.Model):
    """A picture, and the thumbnails that have been made of it so far."""

    name = models.CharField(max_length=100, help_text="the file's name where it came from")
    picture = models.FileField(upload_to=new_path)
    size_bytes = models.PositiveIntegerField()
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    thumbnails = models.JSONField(default=list)
    error = models.CharField(max_length=200, blank=True, help_text="why the latest start failed, for its sender")
    task = models.CharField(max_length=64, blank=True, help_text="the id of the latest task; see receivers.py")
    created_at = models.DateTimeField(default=timezone.now)

    @override
    def __str__(self) -> str:
        """Return the number and the name."""
        return f"{self.pk}: {self.name}"

    @property
    def sizes(self) -> list[int]:
        """The thumbnails to make: those smaller than the picture, and at least one."""
        longest = max(self.width, self.height)
        return [size for size in SIZES if size < longest] or [SIZES[-1]]

    @property
    def sizes_to_make(self) -> list[int]:
        """Those of them that are not there yet."""
        made = {thumbnail["size"] for thumbnail in self.thumbnails}
        return [size for size in self.sizes if size not in made]

    def path_of(self, size: int) -> Path:
        """Return where the thumbnail of that size is, or will be."""
        return Path(self.picture.path).with_name(f"{size}.webp")

    def add(self, thumbnail: Thumbnail) -> None:
        """Note that a thumbnail is there. Doing so twice is doing it once."""
        with transaction.atomic():
            self.refresh_from_db()
            others = [one for one in self.thumbnails if one["size"] != thumbnail["size"]]
            self.thumbnails = sorted([*others, thumbnail], key=lambda one: -one["size"])
            self.save(update_fields=["thumbnails"])

    def explain(self, error: str) -> None:
        """Note why a start failed; "": it did not."""
        self.error = error
        self.save(update_fields=["error"])
