"""Django projects as a user would make them: `startproject`, then the lines of the documentation."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from textwrap import dedent

from tests.support.databases import ROOT, fresh_file

COMMAND_DEADLINE_S = 90

DOCUMENTED = '''
INSTALLED_APPS = [*INSTALLED_APPS, "channels", "channels_sqlite"]

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"},
    "channels": {                                   # a database of its own, for messages only
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "channels.sqlite3",
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": """
                PRAGMA journal_mode=WAL;
                PRAGMA synchronous=NORMAL;
                PRAGMA busy_timeout=20000;
                PRAGMA cache_size=-64000;
                PRAGMA temp_store=MEMORY;
            """,
        },
    },
}

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_sqlite.layers.SqliteChannelLayer",
        "CONFIG": {
            "database": "channels",      # an alias in DATABASES
            "polling_interval": 0.05,
            "message_retention": 86400,
            "capacity": 100,
            "expiry": 30,
            "trim_batch_size": 100,
            "auto_trim": True,
        },
    },
}

DATABASE_ROUTERS = ["channels_sqlite.db_routers.ChannelsRouter"]
'''
"""What the documentation adds to settings.py, exactly as written there."""

BARE = """
DATABASES["channels"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "channels.sqlite3"}
"""
"""An alias without OPTIONS."""

ROUND_TRIP = """
    import asyncio
    from channels_sqlite import get_channel_layer

    async def round_trip():
        layer = get_channel_layer()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.send("jobs", {"n": 1})
        await layer.group_send("room", {"n": 2})
        print(await asyncio.wait_for(layer.receive("jobs"), 10), await asyncio.wait_for(layer.receive(channel), 10))
        await layer.close()

    asyncio.run(round_trip())
"""
"""A script that uses the layer, and prints what it received."""

ROUND_TRIP_OUTPUT = "{'n': 1} {'n': 2}"


class Project:
    """A project on disk. Its commands run in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def settings(self, text: str) -> None:
        """Add lines to settings.py."""
        with (self.folder / "project" / "settings.py").open("a") as settings:
            settings.write(dedent(text))

    def write(self, path: str, text: str) -> None:
        """Write a file of the project."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))

    def manage(self, *arguments: str, expected: int = 0) -> str:
        """Run `manage.py` and return what it printed, errors included."""
        finished = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_DEADLINE_S,
            check=False,
        )
        assert finished.returncode == expected, f"manage.py {' '.join(arguments)}:\n{finished.stdout}"
        return finished.stdout

    def command(self, *arguments: str, warnings: str = "error") -> list[str]:
        """The command line of `manage.py`; `warnings` is an option of Python's -W."""
        return [sys.executable, "-W", warnings, "manage.py", *arguments]

    def environment(self) -> dict[str, str]:
        """The environment without what these tests themselves set."""
        set_here = ("DJANGO_SETTINGS_MODULE", "CHANNELS_SQLITE_TEST_ROOM")
        inherited = {name: value for name, value in os.environ.items() if name not in set_here}
        return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def shell(self, script: str) -> str:
        """Run a script with the project set up."""
        return self.manage("shell", "--no-imports", "-c", dedent(script))

    def migrated(self) -> None:
        """Put the channels database in its place, as `migrate --database=channels` made it once for the whole run."""
        fresh_file(self.folder)

    def tables(self, file: str) -> set[str]:
        """The tables of one of its databases, SQLite's own left out; none where there is no such file."""
        rows = self.query(file, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return {str(name) for (name,) in rows}

    def query(self, file: str, statement: str) -> list[tuple[object, ...]]:
        """Run a statement on one of its databases; nothing where there is no such file."""
        if not (self.folder / file).exists():
            return []
        with closing(sqlite3.connect(self.folder / file, timeout=10)) as connection:
            return connection.execute(statement).fetchall()

    @contextmanager
    def running(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """A `manage.py` that runs until the block ends, if it has not ended by then."""
        with (self.folder / "running.log").open("w") as log:
            process = subprocess.Popen(
                # Channels' own SyncConsumer warns of what it does itself.
                self.command(*arguments, warnings="default:async_to_sync was passed:UserWarning"),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(COMMAND_DEADLINE_S)

    def log(self) -> str:
        """What the running command has printed so far."""
        return (self.folder / "running.log").read_text()


def start_project(folder: Path) -> Project:
    """A new project with the documented settings."""
    subprocess.run(
        [sys.executable, "-m", "django", "startproject", "project", str(folder)],
        check=True,
        timeout=COMMAND_DEADLINE_S,
        env={name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
    )
    project = Project(folder)
    project.settings(DOCUMENTED)
    return project
