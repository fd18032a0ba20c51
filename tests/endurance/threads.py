"""Processes of the storm without an event loop: they use the sync facade, from several threads."""

import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from django.core.management import CommandError, call_command

from channels_sqlite import get_sync_channel_layer
from channels_sqlite.exceptions import LayerClosedError
from tests.endurance.forking import Fork, watch
from tests.endurance.journal import Kind
from tests.endurance.plan import CHANNEL_OF, GROUP, GROUP_ID, MAIN, NORMAL, SENT_TO, SENT_TO_SHORT, SHARES, SHORT
from tests.endurance.project import LOCK_TIMEOUT_S, database_path
from tests.endurance.station import Child, Command, Directory, Source, Station

CATCH_UP_S = 0.2
CALLER_RATES = {"normal": 40, "specific": 15, "broadcast": 10, "short": 5}
CALLER_THREADS = 2
TAKER_TIMEOUTS_S = (0.0, 0.01, 0.1, 1.0)


class ThreadChild(Child):
    """A process whose main thread works, and another one hears commands: methods named `do_…`."""

    def __init__(self, station: Station) -> None:
        super().__init__(station)
        self.layers = {alias: get_sync_channel_layer(alias) for alias in (MAIN, SHORT)}
        self.ending = False
        self.calm = False
        self.closes = 0
        self.closing = threading.Lock()

    def run(self) -> None:
        threading.Thread(target=self._hear, daemon=True).start()
        self.say(ready=True)
        self.work()
        self.close_layers()

    def work(self) -> None:
        """What the main thread does until SIGTERM."""
        raise NotImplementedError

    def end_on_sigterm(self) -> None:
        def end(*args: object) -> None:
            self.ending = True

        signal.signal(signal.SIGTERM, end)

    def _hear(self) -> None:
        while True:
            for command in self.commands():
                self._obey(command)

    def _obey(self, command: Command) -> None:
        given = dict(command)
        name = given.pop("do")
        try:
            getattr(self, f"do_{name}")(**given)
        except Exception:  # noqa: BLE001  # written down, and judged
            self.unexpected(f"the command {name}")

    def do_fork(self, incarnation: int, how: str) -> None:
        fork = Fork(self, incarnation, how)
        threading.Thread(target=watch, args=(self, fork), daemon=True).start()

    def do_close(self, times: int) -> None:
        for _ in range(times):
            with self.closing:
                self.close_layers()
                self.closes += 1
            time.sleep(self.random.uniform(0, 0.03))

    def do_quiet(self) -> None:
        self.calm = True
        self.say(quiet=True)

    def do_calm(self) -> None:
        self.say(
            waiting=[
                [channel.id, channel.name, channel.alias]
                for channel in NORMAL
                for _ in range(channel.receivers.get(self.slot, 0))
            ],
            own=[],
        )

    def do_explain(self) -> None:
        signal.raise_signal(signal.SIGUSR1)  # faulthandler writes the stacks down

    def close_layers(self) -> None:
        began = time.monotonic()
        with self.calls.call("close"):
            self.layers[MAIN].close()
        self.journal.write(Kind.CLOSED, number=int((time.monotonic() - began) * 1000))
        with self.calls.call("close"):
            self.layers[SHORT].close()


class Worker(ThreadChild):
    """`for message in layer.listen(...)`, begun again when a close ended it."""

    def work(self) -> None:
        names = [channel.name for channel in NORMAL if self.slot in channel.receivers]
        closes = -1
        while self.closes != closes:  # else a SIGTERM has ended it
            closes = self.closes
            for message in self.layers[MAIN].listen(*names):
                target = message.get("t")
                self.note(message, target if isinstance(target, int) else 0)
            with self.closing:  # a close that ended it has been counted
                pass


class Taker(ThreadChild):
    """Threads that call receive() with a time-out."""

    def work(self) -> None:
        self.end_on_sigterm()
        threads = [
            threading.Thread(target=self._take, args=(channel.id, unit + 1), daemon=True)
            for channel in NORMAL
            for unit in range(channel.receivers.get(self.slot, 0))
        ]
        for thread in threads:
            thread.start()
        while not self.ending:
            signal.sigtimedwait([], 0.1)

    def _take(self, place: int, unit: int) -> None:
        name = CHANNEL_OF[place].name
        last = False
        while not (last or self.ending):
            timeout_s = self.random.choice(TAKER_TIMEOUTS_S)
            try:
                with self.calls.call("receive with a time-out"):
                    message = self.layers[MAIN].receive(name, timeout=timeout_s)
                last = self.note(message, place, unit)
            except (TimeoutError, LayerClosedError):
                pass
            except Exception:  # noqa: BLE001  # written down, and judged
                self.unexpected("receive")
                time.sleep(0.1)


class Caller(ThreadChild):
    """Threads that send."""

    def __init__(self, station: Station) -> None:
        super().__init__(station)
        self._directory = Directory(station.folder)

    def work(self) -> None:
        self.end_on_sigterm()
        kinds: dict[str, Callable[[Source], None]] = {
            "normal": self._normal,
            "specific": self._specific,
            "broadcast": self._broadcast,
            "short": self._short,
        }
        self._threads = [
            threading.Thread(target=self._send_on, args=(kinds, self.new_source())) for _ in range(CALLER_THREADS)
        ]
        for thread in self._threads:
            thread.start()
        while not self.ending:
            signal.sigtimedwait([], 0.1)
        self.calm = True
        for thread in self._threads:
            thread.join()

    def do_quiet(self) -> None:
        self.calm = True
        for thread in self._threads:
            thread.join()
        self.say(quiet=True)

    def _send_on(self, kinds: dict[str, Callable[[Source], None]], source: Source) -> None:
        rate = sum(CALLER_RATES.values()) * self.station.pace
        due = time.monotonic()
        while not self.calm:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due + self.random.uniform(0.5, 1.5) / rate, time.monotonic() - CATCH_UP_S)
            if self.station.board.lag_s() > 2.0:
                while self.station.board.lag_s() > 1.0 and not self.calm:
                    time.sleep(0.1)
            kind = self.random.choices(list(kinds), [CALLER_RATES[kind] for kind in kinds])[0]
            kinds[kind](source)

    def _normal(self, source: Source) -> None:
        channel = self.random.choices(SENT_TO, SHARES)[0]
        self._send(MAIN, channel.name, source, channel.id)

    def _short(self, source: Source) -> None:
        channel = self.random.choice(SENT_TO_SHORT)
        self._send(SHORT, channel.name, source, channel.id)

    def _specific(self, source: Source) -> None:
        channels = self._directory.channels()
        if channels:
            number, name = self.random.choice(channels)
            self._send(MAIN, name, source, number)

    def _send(self, alias: str, name: str, source: Source, target: int) -> None:
        message = source.message(target)
        self._told("send", source, message, lambda: self.layers[alias].send(name, message))

    def _broadcast(self, source: Source) -> None:
        message = source.message(GROUP_ID, small=True)
        self._told("group_send", source, message, lambda: self.layers[MAIN].group_send(GROUP, message))

    def _told(self, kind: str, source: Source, message: dict[str, object], call: Callable[[], None]) -> None:
        error: BaseException | None = None
        try:
            with self.calls.call(kind):
                call()
        except Exception as raised:  # noqa: BLE001  # written down, and judged
            error = raised
            if not source.done(message, error):
                self.unexpected(kind)
        if error is None:
            source.done(message, None)


class Locker(Child):
    """Holds the write lock from outside, as a shell or a backup tool does. The storm never disturbs it."""

    def run(self) -> None:
        connection = sqlite3.connect(database_path(self.station.folder), isolation_level=None, timeout=LOCK_TIMEOUT_S)
        # It writes nothing. A checkpoint of its own beside that of the layer's elected process could corrupt the file
        # (SQLite before 3.51.3).
        connection.execute("PRAGMA wal_autocheckpoint=0")
        self.say(ready=True)
        while True:
            for command in self.commands():
                if command["do"] == "end":
                    connection.close()
                    return
                if command["do"] == "lock":
                    with self.calls.call("lock"):
                        connection.execute("BEGIN IMMEDIATE")
                    time.sleep(command["seconds"])
                    connection.execute("ROLLBACK")


class Janitor(Child):
    """Trims and vacuums from outside.

    By the package's own command, which takes the housekeeping lock for its checkpoints. A bare PRAGMA wal_checkpoint
    beside the elected process's would test SQLite's bug and not the package (https://www.sqlite.org/wal.html#walresetbug).
    """

    def run(self) -> None:
        self.say(ready=True)
        while True:
            for command in self.commands():
                if command["do"] in ("trim", "vacuum"):
                    self._trim(vacuum=command["do"] == "vacuum")

    def _trim(self, *, vacuum: bool) -> None:
        with self.calls.call("trim"), Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            try:
                call_command("channels_trim", vacuum=vacuum, stdout=nowhere)
            except CommandError as error:
                # It does not vacuum where that would keep others waiting for long.
                if "--may-block" not in str(error):
                    print(f"UNEXPECTED in janitor: {error}", file=sys.stderr)
                    self.journal.write(Kind.UNEXPECTED)
