"""The other side of `processes.py`: runs one function in a process of its own and talks JSON lines with the test.

A job arrives as the only argument. The function gets a `Parent` as its first argument, and the job's `arguments` by
name; it may be a coroutine function. Whatever it prints goes to stderr, so that stdout carries messages alone.
"""

import asyncio
import importlib
import inspect
import json
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tests.support import locks

if TYPE_CHECKING:
    from channels_sqlite.layers import SqliteChannelLayer
    from tests.support.databases import ChannelDatabase


if os.environ.get(locks.VARIABLE):
    locks.install()


class Parent:
    """What a function in a child process knows about the test that started it."""

    def __init__(self, job: dict[str, Any], to_test: TextIO) -> None:
        self.job = job
        self.to_test = to_test
        self._layers: list[SqliteChannelLayer] = []
        self._lines: asyncio.StreamReader | None = None

    @property
    def database(self) -> "ChannelDatabase":
        """The database that the test passed. Raises LookupError when it passed none."""
        from tests.support.databases import ChannelDatabase

        if self.job["database"] is None:
            raise LookupError("the test gave this process no database")
        given = self.job["database"]
        return ChannelDatabase(alias=given["alias"], path=Path(given["path"]), options=given["options"])

    def make_layer(self, **overrides: Any) -> "SqliteChannelLayer":
        """A layer over the test's database with the test's CONFIG; closed when a coroutine function ends."""
        from channels_sqlite.layers import SqliteChannelLayer

        layer = SqliteChannelLayer(database=self.database.alias, **{**self.job["config"], **overrides})
        self._layers.append(layer)
        return layer

    def say(self, value: object) -> None:
        """Send one JSON value to the test."""
        self.to_test.write(json.dumps(value) + "\n")
        self.to_test.flush()

    def hear(self) -> Any:
        """The next value from the test. Blocks; raises EOFError when the test has gone."""
        return _decoded(sys.stdin.readline())

    async def ahear(self) -> Any:
        """The next value from the test, without blocking the loop. Do not mix with `hear`."""
        if self._lines is None:
            lines = asyncio.StreamReader()
            await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer
            )
            self._lines = lines
        return _decoded((await self._lines.readline()).decode())

    async def close_layers(self) -> None:
        while self._layers:
            await self._layers.pop().close()


def _decoded(line: str) -> Any:
    if not line:
        raise EOFError("the test closed its end")
    return json.loads(line)


def main() -> None:
    """Run the job."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    # Stray prints must not be taken for messages.
    to_test = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if isinstance(sys.stdout, TextIOWrapper):
        # A killed process should have shown what it printed.
        sys.stdout.reconfigure(line_buffering=True)

    import django
    from django.conf import settings

    parent = Parent(job, to_test)
    if job["database"] is not None:
        database = parent.database
        settings.DATABASES[database.alias] = database.settings()
    if job["django"]:
        django.setup()

    module_name, _, function_name = job["function"].partition(":")
    function = getattr(importlib.import_module(module_name), function_name)
    if inspect.iscoroutinefunction(function):

        async def run() -> None:
            try:
                await function(parent, **job["arguments"])
            finally:
                await parent.close_layers()

        asyncio.run(run())
    else:
        function(parent, **job["arguments"])


if __name__ == "__main__":
    main()
