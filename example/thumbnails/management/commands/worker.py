"""``manage.py worker``: makes thumbnails until it is told to stop."""

from __future__ import annotations

import logging
import os

from django.core.management.base import BaseCommand, CommandParser
from django.db import close_old_connections
from typing_extensions import override

from thumbnails.messages import thumbnails_to_make
from thumbnails.work import do

__all__ = ["Command"]

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    """Takes one job after another. Start as many as you like: each job goes to one of them."""

    help = "Make thumbnails of uploaded pictures. SIGTERM or Ctrl-C ends it after the job in hand."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        """Take the time to rest after each step."""
        parser.add_argument(
            "--pause",
            type=float,
            default=0.0,
            metavar="SECONDS",
            help="rest after each thumbnail, so that there is something to watch (default: 0)",
        )

    @override
    def handle(self, *args: object, pause: float, verbosity: int, **options: object) -> None:
        """Work until SIGTERM or SIGINT."""
        self._verbosity = verbosity
        self._say(f"Worker {os.getpid()} waits for pictures. Ctrl-C stops it.")
        for message in thumbnails_to_make.listen():
            close_old_connections()
            try:
                do(message, pause_s=pause)
            except Exception:
                # The next job may go well. This one has made no progress, which its page says after a while.
                logger.exception("Job %s failed", message["job"])
            else:
                self._say(f"Job {message['job']} done.")
        self._say(f"Worker {os.getpid()} stopped.")

    def _say(self, line: str) -> None:
        if self._verbosity:
            self.stdout.write(line)
            self.stdout.flush()
