"""What a process of the storm forks off: children that exit at once, or send some messages of their own."""

import faulthandler
import multiprocessing
import os
import signal
import time
import traceback
from multiprocessing.process import BaseProcess
from random import Random

from channels_sqlite import get_sync_channel_layer
from tests.endurance.journal import Journal, Kind, Stuck, journal_path
from tests.endurance.plan import GROUP, GROUP_ID, NORMAL
from tests.endurance.station import SOURCES, Child, Source, Station

END_S = 60.0
LOOK_S = 0.02
DUMP_S = 0.5
MESSAGES = 3


class Fork:
    """One forked child, seen from its parent."""

    def __init__(self, child: Child, incarnation: int, how: str) -> None:
        """Fork it off. Its process counts as `incarnation`."""
        self._child = child
        self._process: BaseProcess | None = None
        began = time.monotonic()
        if how == "multiprocessing":
            process = multiprocessing.get_context("fork").Process(target=_send, args=(child.station, incarnation))
            process.start()
            self._process = process
            self._pid = process.pid or 0
        else:
            self._pid = os.fork()
            if self._pid == 0:
                _live(child.station, incarnation, how)
        child.journal.write(Kind.FORKED, number=int((time.monotonic() - began) * 1e6))

    @property
    def ended(self) -> bool:
        if self._process is not None:
            return not self._process.is_alive()
        try:
            return os.waitpid(self._pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True

    def kill(self) -> None:
        """It does not end: have it say where it is, in the log that it shares with its parent, and kill it."""
        self._child.journal.write(Kind.STUCK, number=Stuck.FORK)
        os.kill(self._pid, signal.SIGUSR1)
        time.sleep(DUMP_S)
        os.kill(self._pid, signal.SIGKILL)


def watch(child: Child, fork: Fork) -> None:
    """Wait for a forked child, in a thread. Looks are counted, not seconds: this process may be stopped meanwhile."""
    for _ in range(int(END_S / LOOK_S)):
        if fork.ended:
            return
        time.sleep(LOOK_S)
    fork.kill()


def _live(station: Station, incarnation: int, how: str) -> None:
    """Be the forked child; does not return."""
    try:
        if how == "send":
            _send(station, incarnation)
    except BaseException:  # noqa: BLE001  # the last frame: nothing above it may run in the fork
        traceback.print_exc()
    finally:
        os._exit(0)


def _send(station: Station, incarnation: int) -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    journal = Journal(journal_path(station.folder, incarnation, "fork"))
    draw = Random(f"{station.seed} fork {incarnation}")
    source = Source(journal, incarnation * SOURCES, draw)
    layer = get_sync_channel_layer()
    channel = draw.choice(NORMAL[:5])
    for _ in range(MESSAGES):
        message = source.message(channel.id)
        layer.send(channel.name, message)
        source.done(message, None)
        message = source.message(GROUP_ID, small=True)
        layer.group_send(GROUP, message)
        source.done(message, None)
    if draw.random() < 0.5:
        layer.close()
