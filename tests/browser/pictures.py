"""Pictures to upload."""

import io

from PIL import Image


def jpeg(width: int, height: int) -> bytes:
    """A JPEG with colours that run from corner to corner."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    even = Image.new("L", (width, height), 120)
    file = io.BytesIO()
    Image.merge("RGB", (across, down, even)).save(file, format="JPEG")
    return file.getvalue()
