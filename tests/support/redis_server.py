"""A redis-server for the length of one run, on loopback and on a port of its own."""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.programs import HOST, free_port
from tests.support.servers import running_server

__all__ = ["find_redis_server", "running_redis"]

_ATTEMPTS = 3


def find_redis_server() -> str | None:
    """Return the path of redis-server, or None when it is not installed."""
    return shutil.which("redis-server")


@contextmanager
def running_redis(folder: Path) -> Iterator[int]:
    """Run redis-server, keeping nothing, as long as the block lasts; gives the port. Its log goes to `folder`.

    Raises RuntimeError when redis-server is not installed or does not start.
    """
    program = find_redis_server()
    if program is None:
        raise RuntimeError("redis-server is not on PATH")
    with ExitStack() as running:
        yield _start(program, folder, running)


def _start(program: str, folder: Path, running: ExitStack) -> int:
    """Start it on a free port. Somebody else may have taken that one meanwhile, so try others."""
    for attempt in range(1, _ATTEMPTS + 1):
        port = free_port()
        options = ["--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--dir", str(folder)]
        server = running_server([program, *options], is_ready=_answers_on(port), log=folder / "redis.log")
        try:
            running.enter_context(server)
        except RuntimeError:
            if attempt == _ATTEMPTS:
                raise
        else:
            return port
    raise AssertionError("not reached")


def _answers_on(port: int) -> Callable[[], bool]:
    def answers() -> bool:
        try:
            with socket.create_connection((HOST, port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    return answers
