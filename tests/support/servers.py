"""A server of our own for the length of one run, as a child of this process."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["running_server"]

_START_LIMIT_S = 20.0
_STOP_LIMIT_S = 10.0
_LOOK_EVERY_S = 0.02


@contextmanager
def running_server(
    command: Sequence[str],
    *,
    is_ready: Callable[[], bool],
    log: Path,
    stop_signal: signal.Signals = signal.SIGTERM,
    user: str | None = None,
) -> Iterator[None]:
    """Run ``command`` as long as the block lasts, as ``user`` where one is given; its output goes to ``log``.

    Raises RuntimeError when it ends at once, or is not ready within 20 seconds.
    """
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        try:
            _wait_until_ready(server, command[0], is_ready)
            yield
        finally:
            server.send_signal(stop_signal)
            try:
                server.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_until_ready(server: subprocess.Popen[bytes], name: str, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while True:
        if server.poll() is not None:  # looked at first: what answers may be another one on the same port
            raise RuntimeError(f"{name} ended at once, with status {server.returncode}")
        if is_ready():
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} was not ready within {_START_LIMIT_S:g} s")
        time.sleep(_LOOK_EVERY_S)
