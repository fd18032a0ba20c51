"""What the processes of this folder do, each with the facade of CHANNEL_LAYERS' default layer."""

import signal
import threading
from typing import Any

from channels.layers import channel_layers

from channels_sqlite import get_sync_channel_layer
from tests.facade.threads import DEADLINE_S, until_waiting
from tests.processes.forking import fork, wait_for
from tests.support import inside
from tests.support.child import Parent


def send_when_told(parent: Parent) -> None:
    """Send to channels as the test says, until it closes its end."""
    facade = get_sync_channel_layer()
    parent.say("ready")
    while True:
        try:
            channels, message = parent.hear()
        except EOFError:
            break
        for channel in channels:
            facade.send(channel, message)
    facade.close()


def be_interrupted(parent: Parent) -> None:
    """Wait in `receive()` of the main thread until Ctrl-C, and receive again; for each kind of channel.

    First it is the main thread that watches the wake-up socket, then another one that waits as well.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    facade = get_sync_channel_layer()
    for channel in ("normal", facade.new_channel()):
        _be_interrupted(parent, channel, waiting=1)
    other = threading.Thread(target=facade.receive, args=("other",))
    other.start()
    until_waiting(facade)
    for channel in ("normal", facade.new_channel()):
        _be_interrupted(parent, channel, waiting=2)
    facade.send("other", {})
    other.join()
    facade.close()


def _be_interrupted(parent: Parent, channel: str, *, waiting: int) -> None:
    facade = get_sync_channel_layer()

    def tell() -> None:
        until_waiting(facade, waiting)
        parent.say(channel)

    telling = threading.Thread(target=tell)
    telling.start()
    try:
        facade.receive(channel)
    except KeyboardInterrupt:
        parent.say("interrupted")
    telling.join()
    parent.hear()  # the test has sent
    parent.say([facade.receive(channel, timeout=DEADLINE_S)["n"] for _ in range(2)])


def fork_after_use(parent: Parent) -> None:
    """Use the facade, fork while another thread waits in it, and go on in both."""
    facade = get_sync_channel_layer()
    own = facade.new_channel()
    facade.group_add("room", own)
    listening = facade.listen("jobs")
    facade.send("jobs", {"n": 0})
    next(listening)
    received: list[dict[str, Any]] = []

    def wait() -> None:
        received.append(facade.receive("for-the-parent", timeout=DEADLINE_S))

    waiting = threading.Thread(target=wait)
    waiting.start()
    until_waiting(facade)

    def child() -> None:
        mine = facade.new_channel()
        assert get_sync_channel_layer() is facade
        facade.group_add("room", mine)
        facade.group_send("room", {"to": "room"})
        facade.send(mine, {"to": "child"})
        parent.say([mine, facade.receive(mine, timeout=DEADLINE_S), facade.receive(mine, timeout=DEADLINE_S)])
        try:
            facade.receive(own, timeout=0)
        except ValueError:
            parent.say("not the parent's channel")
        facade.send("jobs", {"n": 1})
        parent.say([next(facade.listen("jobs")), facade.group_count("room")])
        facade.send("for-the-parent", {"from": "child"})
        facade.close()
        channel_layers.backends.clear()
        get_sync_channel_layer().send("jobs", {"n": 2})  # of a layer made here

    parent.say(own)
    with inside.making_of_layers():  # as other threads may just then
        pid = fork(child)
    parent.say(wait_for(pid))
    waiting.join(DEADLINE_S)
    parent.say([facade.receive(own, timeout=DEADLINE_S), received, facade.receive("jobs", timeout=DEADLINE_S)])
    parent.say(facade.group_channels("room") == [own])
    facade.close()
