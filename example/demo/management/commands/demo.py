"""``manage.py demo``: the example with all of its set-up in one command."""

from __future__ import annotations

import asyncio

import django
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from typing_extensions import override

from demo.processes import Server, StartError, Worker, free_ports, serve

__all__ = ["Command"]

SERVERS = 2


class Command(BaseCommand):
    """Migrates both databases and runs two servers and a worker, processes that share one SQLite file.

    With a Django before 6.0, which knows no tasks, there is no worker.
    """

    help = (
        "Migrate both databases, start two server processes and a worker with two processes on this machine, and print "
        "where to look. Ctrl-C stops them."
    )

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        """Take the first port to try."""
        parser.add_argument(
            "--port", type=int, default=8000, help="first port to try (default: 8000); the next free ones are taken"
        )

    @override
    def handle(self, *args: object, port: int, **options: object) -> None:
        """Set up, serve until stopped. Raises CommandError when a server does not start or both have ended."""
        self.stdout.write("Preparing the databases ...")
        self.stdout.flush()
        call_command("migrate", verbosity=0, interactive=False)
        call_command("migrate", database="channels", verbosity=0, interactive=False)
        servers = [
            Server(number, port, settings.BASE_DIR) for number, port in enumerate(free_ports(port, SERVERS), start=1)
        ]
        worker = Worker(settings.BASE_DIR) if settings.HAS_TASKS else None
        try:
            stopped = asyncio.run(serve(servers, worker, self._say, _greeting(servers, worker)))
        except StartError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            stopped = True
        if not stopped:
            raise CommandError("Both server processes have ended.")
        self._say("Stopped.")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _greeting(servers: list[Server], worker: Worker | None) -> str:
    """Return what to do now, with an address per server."""
    addresses = "\n".join(f"  {server.url}/chat" for server in servers)
    running = (
        "Two server processes are running." if worker is None else "Two server processes and a worker are running."
    )
    pictures = "Then upload a picture under Thumbnails, and watch it at both."
    if worker is None:
        pictures = f"Thumbnails are tasks, which need Django 6.0 or newer; this is {django.get_version()}."
    advice = "Open both addresses, side by side, and enter the same room:"
    return f"\n{running} {advice}\n\n{addresses}\n\n{pictures}\nCtrl-C stops them."
