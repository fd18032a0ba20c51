"""Reading and resizing pictures with Pillow. Nothing here knows of jobs or messages."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps

from thumbnails.messages import Thumbnail

__all__ = ["FORMATS", "MAX_PIXELS", "BadPictureError", "measure", "read_picture", "save_thumbnail"]

# What browsers take pictures in. Pillow reads much more, some of it with the help of other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MAX_PIXELS = 50_000_000

_EXIF_ORIENTATION = 0x0112
_TURNED_SIDEWAYS = {5, 6, 7, 8}


class BadPictureError(ValueError):
    """The file is no picture that this can read; the message says so to whoever uploaded it."""


def measure(file: IO[bytes]) -> tuple[int, int]:
    """Return width and height in pixels, as the picture is meant to be looked at, without decoding it.

    Raises BadPictureError when it is no picture, or one with more than MAX_PIXELS.
    """
    try:
        with Image.open(file, formats=FORMATS) as picture:
            width, height = picture.size
            # Not getexif(), which decodes a whole PNG in search of it.
            exif = Image.Exif()
            exif.load(picture.info.get("exif", b""))
            sideways = exif.get(_EXIF_ORIENTATION) in _TURNED_SIDEWAYS
    except Image.DecompressionBombError as error:
        raise _too_many_pixels() from error
    except Exception as error:  # Pillow raises whatever broken data makes it stumble over.
        raise BadPictureError("This is not a picture that can be read here: send a JPEG, PNG, WebP or GIF.") from error
    finally:
        file.seek(0)
    if width * height > MAX_PIXELS:
        raise _too_many_pixels()
    return (height, width) if sideways else (width, height)


def read_picture(path: Path) -> Image.Image:
    """Return the decoded picture, upright. Raises BadPictureError when it is damaged."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            upright = ImageOps.exif_transpose(picture)
            return upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except FileNotFoundError:
        raise
    except Exception as error:  # as above
        raise BadPictureError("This picture is damaged: a part of it cannot be read.") from error


def save_thumbnail(picture: Image.Image, size: int, path: Path) -> Thumbnail:
    """Shrink ``picture`` in place until its longest side is ``size``, save it as WebP and return what came out."""
    picture.thumbnail((size, size))
    # A page may be reading the file of an earlier start.
    unfinished = path.with_suffix(f".{uuid.uuid4().hex}")
    picture.save(unfinished, format="WEBP", quality=80)
    unfinished.replace(path)
    return {"size": size, "width": picture.width, "height": picture.height, "bytes": path.stat().st_size}


def _too_many_pixels() -> BadPictureError:
    return BadPictureError(f"This picture has too many pixels: {MAX_PIXELS // 1_000_000} million are the most.")
