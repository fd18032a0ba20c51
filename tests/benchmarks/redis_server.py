"""A redis-server for the length of one run: on loopback, a free port, nothing written to disk."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .servers import free_port, running_server

__all__ = ["find_redis_server", "running_redis"]


def find_redis_server() -> str | None:
    """Return the path of redis-server, None where there is none."""
    return shutil.which("redis-server")


@contextmanager
def running_redis(folder: Path) -> Iterator[int]:
    """Start redis-server and yield its port; RuntimeError when it does not answer in time."""
    program = find_redis_server()
    if program is None:
        raise RuntimeError("redis-server is not on PATH")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with running_server([program, *options], is_ready=lambda: _answers(port), log=folder / "redis.log"):
        yield port


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
