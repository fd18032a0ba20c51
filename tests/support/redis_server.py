"""A redis-server of our own for the length of one run: on loopback, a free port, nothing written to disk."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["find_redis_server", "running_redis"]

_ATTEMPTS = 3
_START_LIMIT_S = 10.0
_STOP_LIMIT_S = 10.0


def find_redis_server() -> str | None:
    """Return the path of redis-server, None where there is none."""
    return shutil.which("redis-server")


@contextmanager
def running_redis(folder: Path) -> Iterator[int]:
    """Start redis-server and yield its port; RuntimeError when it does not answer in time, also on other ports."""
    program = find_redis_server()
    if program is None:
        raise RuntimeError("redis-server is not on PATH")
    with (folder / "redis.log").open("wb") as log:
        server, port = _start(program, folder, log)
        try:
            yield port
        finally:
            server.terminate()
            try:
                server.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _start(program: str, folder: Path, log: IO[bytes]) -> tuple[subprocess.Popen[bytes], int]:
    """Start it on a free port. Somebody else may have taken that one meanwhile, so try others."""
    for attempt in range(1, _ATTEMPTS + 1):
        port = _free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
        server = subprocess.Popen([program, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_until_ready(server, port)
        except RuntimeError:
            server.kill()
            server.wait()
            if attempt == _ATTEMPTS:
                raise
        else:
            return server, port
    raise AssertionError("not reached")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while not _answers(port):
        if server.poll() is not None:
            raise RuntimeError(f"redis-server ended at once, with status {server.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"redis-server did not answer on port {port} within {_START_LIMIT_S:g} s")
        time.sleep(0.01)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
