"""What the worker processes of these tests do. Without pytest, so that they start quickly."""

from __future__ import annotations

import multiprocessing
import signal
import time
from typing import Any

from django.core.management import BaseCommand, call_command

from channels_sqlite.sync import SyncChannelLayer
from tests.facade.setup import DEADLINE_S, facade_in
from tests.processes.evidence import Journal
from tests.support.child import Parent
from tests.support.waiting import eventually


def handlers() -> list[Any]:
    """Who gets SIGTERM and SIGINT."""
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


class Worker(BaseCommand):
    """A management command as users write it, which tells the test what it does.

    A message with "wait" keeps it busy until the test says something, one with "until signalled" until a signal has
    come in.
    """

    def __init__(self, parent: Parent, layer: SyncChannelLayer, channels: list[str]) -> None:
        super().__init__()
        self._parent = parent
        self._layer = layer
        self._channels = channels

    def handle(self, *args: object, **options: object) -> None:
        for message in self._layer.listen(*self._channels):
            before = handlers()
            self._parent.say(["began", message["number"]])
            if message.get("until signalled"):
                eventually(lambda before=before: handlers() != before, DEADLINE_S)  # type: ignore[misc]
                self._parent.say("signalled")
            if message.get("wait"):
                self._parent.hear()
            if message.get("fork"):
                self._parent.say(["child ended with", exit_code_of_a_terminated_child()])
            if message.get("fail"):
                raise ValueError("what a job may raise")
            self._parent.say(["done", message["number"]])


def exit_code_of_a_terminated_child() -> int | None:
    """What a job gets that forks and ends the child, as `multiprocessing.Pool` does; None when it does not end."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    child.terminate()
    child.join(DEADLINE_S)
    code = child.exitcode
    if code is None:
        child.kill()
        child.join()
    return code


def run_worker(parent: Parent, *, channels: list[str]) -> None:
    """Run a worker until it ends by itself, and say whether the signals' handlers are what they were."""
    layer = facade_in(parent)
    before = handlers()
    call_command(Worker(parent, layer, channels))
    parent.say(["ended", handlers() == before])
    layer.close()


def run_worker_often(parent: Parent, *, channels: list[str], ignore_sigint: bool = False) -> None:
    """Run a worker again whenever the test says so, and say how it ended and whether the handlers are back."""
    if ignore_sigint:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    layer = facade_in(parent)
    before = handlers()
    while True:
        try:
            parent.hear()
        except EOFError:
            break
        try:
            call_command(Worker(parent, layer, channels))
        except (KeyboardInterrupt, ValueError) as error:
            how = type(error).__name__
        else:
            how = "ended"
        parent.say([how, handlers() == before])
    layer.close()


def share_work(parent: Parent, *, channel: str, journal: str) -> None:
    """Write down what comes; after the first message, go on only when the test says so."""
    layer = facade_in(parent)
    out = Journal(journal)
    first = True
    parent.say("ready")
    for message in layer.listen(channel):
        out.write(message)
        if first:
            first = False
            parent.say("first")
            parent.hear()
    out.close()
    layer.close()
    parent.say("ended")


def time_waking(parent: Parent, *, channel: str) -> None:
    """Say for each message how long it was under way, and the CPU seconds of this process since the one before."""
    layer = facade_in(parent)
    parent.say("ready")
    used_s = time.process_time()
    for message in layer.listen(channel):
        latency_s = time.monotonic() - message["sent_at"]
        used_before_s, used_s = used_s, time.process_time()
        parent.say([latency_s, used_s - used_before_s])
        used_s = time.process_time()
    layer.close()
