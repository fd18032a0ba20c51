"""What every template may use."""

import os

from django.http import HttpRequest

__all__ = ["server_process"]


def server_process(request: HttpRequest) -> dict[str, int]:
    """Give templates ``server_pid``, so that a page can tell which server process made it."""
    return {"server_pid": os.getpid()}
