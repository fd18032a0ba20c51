"""What the processes of `test_forks.py` do: use a layer, fork, and use it again on both sides.

Everything here runs in a fresh interpreter of its own, because a test run has threads that no fork should meet.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

from asgiref.sync import async_to_sync

from channels_sqlite import wakeup, watches
from channels_sqlite.layers import SqliteChannelLayer
from tests.support.child import Parent
from tests.support.waiting import aeventually

CHILD_DEADLINE_S = 20.0
RECEIVE_DEADLINE_S = 10.0


def fork(function: Callable[[], object]) -> int:
    """Run `function` in a forked child, which then ends as multiprocessing's children do, and return its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:  # noqa: BLE001  # the last frame of the child: nothing above it may run there
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def wait_for(pid: int, deadline_s: float = CHILD_DEADLINE_S) -> str:
    """How a child ended; one that does not is killed."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return f"ended with {os.waitstatus_to_exitcode(status)}"
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


async def receive(layer: SqliteChannelLayer, channel: str) -> dict[str, Any]:
    return await asyncio.wait_for(layer.receive(channel), RECEIVE_DEADLINE_S)


def use_on_both_sides(parent: Parent, *, how: str) -> None:
    """Use a layer, fork, use it in the child, and go on in the parent, saying what was seen in each."""
    layer = parent.make_layer()

    async def begin() -> str:
        own = await layer.new_channel()
        await layer.group_add("room", own)
        await layer.send(own, {"type": "t", "text": "to myself"})
        await receive(layer, own)
        # Unread when the fork comes: the parent's, not the child's.
        await layer.send(own, {"type": "t", "text": "from before the fork"})
        return own

    async def in_child() -> None:
        own = await layer.new_channel()
        await layer.group_add("room", own)
        await layer.send(theirs, {"type": "t", "text": "from the child"})
        await layer.group_send("room", {"type": "t", "text": "to all"})
        parent.say({"child": own, "received": (await receive(layer, own))["text"]})
        try:
            await layer.receive(theirs)
        except ValueError:
            parent.say("not the parent's channels")

    def child() -> None:
        asyncio.run(in_child())

    async def go_on() -> None:
        parent.say([(await receive(layer, theirs))["text"] for _ in range(3)])
        await layer.group_send("room", {"type": "t", "text": "after the child"})
        parent.say((await receive(layer, theirs))["text"])

    theirs = asyncio.run(begin())
    parent.say({"parent": theirs})
    if how == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(CHILD_DEADLINE_S)
        parent.say(f"ended with {process.exitcode}")
        process.close()
    else:
        parent.say(wait_for(fork(child)))
    asyncio.run(go_on())
    parent.hear()
    asyncio.run(layer.close())


async def fork_in_a_running_loop(parent: Parent, *, resting: bool) -> None:
    """Fork from inside a coroutine, while receivers of that loop wait.

    `resting`: polling rests for good, and the child wakes nobody, so that only the parent's alarm tells of its message.
    """
    layer = parent.make_layer()
    own = await layer.new_channel()
    with patch.object(watches, "REST_S", 3600 if resting else watches.REST_S):
        waiting = asyncio.ensure_future(receive(layer, own))
        await asyncio.sleep(0)
        if resting:
            pace = layer.here().watches.of(asyncio.get_running_loop()).pace
            await aeventually(lambda: pace.resting, RECEIVE_DEADLINE_S)

    async def in_child() -> None:
        mine = await layer.new_channel()
        await layer.send(mine, {"type": "t", "text": "mine"})
        assert (await receive(layer, mine))["text"] == "mine"
        await layer.send(own, {"type": "t", "text": "from the child"})

    def child() -> None:
        if resting:
            patch.object(wakeup.Sender, "wake", lambda sender, clients: 0).start()
        # The loop that the child inherits is its parent's; a thread without one stands for what servers do.
        thread = threading.Thread(target=asyncio.run, args=(in_child(),))
        thread.start()
        thread.join()

    pid = fork(child)
    parent.say((await waiting)["text"])
    parent.say(await asyncio.get_running_loop().run_in_executor(None, wait_for, pid))
    await layer.send(own, {"type": "t", "text": "after"})
    parent.say((await receive(layer, own))["text"])


def serve_preloaded(parent: Parent, *, workers: int) -> None:
    """Use the layer while loading, as `gunicorn --preload` does, and fork workers that serve; stay idle beside them."""
    layer = parent.make_layer()
    async_to_sync(layer.send)("loaded", {"type": "t"})
    own = async_to_sync(layer.new_channel)()

    async def serve() -> None:
        mine = await layer.new_channel()
        await layer.group_add("workers", mine)
        parent.say([os.getpid(), mine])

        async def answer(channel: str) -> None:
            while True:
                message = await layer.receive(channel)
                await layer.send(message["reply_to"], {"type": "answer", "pid": os.getpid(), "on": channel})

        await asyncio.gather(answer(mine), answer("jobs"))

    pids = [fork(lambda: asyncio.run(serve())) for _ in range(workers)]
    parent.say([os.getpid(), own])
    try:
        while True:
            parent.hear()
    except EOFError:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def fork_under_load(parent: Parent, *, forks: int, forkers: int) -> None:
    """Fork many times while threads use the layer as fast as they can; say how each child ended."""
    layer = parent.make_layer(capacity=10_000)
    stop = threading.Event()
    # Large enough to be written by the layer's own thread.
    large = {"type": "t", "filling": "x" * 300_000}

    async def load() -> None:
        own = await layer.new_channel()
        await layer.group_add("load", own)
        while not stop.is_set():
            await asyncio.gather(*(layer.send(own, {"type": "t"}) for _ in range(10)))
            await layer.send(own, large)
            for _ in range(11):
                await receive(layer, own)
            await layer.group_send("load", {"type": "t"})
            await receive(layer, own)

    async def use(number: int) -> None:
        own = await layer.new_channel()
        await layer.send(own, {"type": "t", "number": number})
        assert (await receive(layer, own))["number"] == number
        await layer.close()

    outcomes: list[str] = []
    failures: list[str] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # said to the test
            failures.append(repr(error))

    def in_child(number: int) -> None:
        asyncio.run(use(number))

    def fork_often() -> None:
        outcomes.extend(wait_for(fork(partial(in_child, number))) for number in range(forks // forkers))

    loading = [threading.Thread(target=guarded, args=(lambda: asyncio.run(load()),)) for _ in range(2)]
    forking = [threading.Thread(target=guarded, args=(fork_often,)) for _ in range(forkers)]
    for thread in (*loading, *forking):
        thread.start()
    for thread in forking:
        thread.join()
    stop.set()
    for thread in loading:
        thread.join()
    parent.say(outcomes)
    parent.say(failures)
    asyncio.run(layer.close())


async def fork_with_writes_under_way(parent: Parent, *, writes: int) -> None:
    """Fork while writes wait for the database's lock, and say how long that took and how the child ended."""
    layer = parent.make_layer()
    await layer.group_count("warm-up")
    parent.say("ready")
    await parent.ahear()
    sending = [asyncio.ensure_future(layer.send("work", {"type": "parent", "number": n})) for n in range(writes)]
    # Two turns of the loop bring them to the lock, and some time has the layer's thread try for it.
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in sending)

    def child() -> None:
        thread = threading.Thread(target=lambda: asyncio.run(layer.send("work", {"type": "child"})))
        thread.start()
        thread.join()

    started = time.monotonic()
    pid = fork(child)
    parent.say(time.monotonic() - started)
    await asyncio.gather(*sending)
    parent.say(await asyncio.get_running_loop().run_in_executor(None, wait_for, pid))


def fork_when_told(parent: Parent) -> None:
    """Live with a layer; at the test's word fork a child that never uses it and lives until it is killed."""
    layer = parent.make_layer(expiry=1)
    own = async_to_sync(layer.new_channel)()
    async_to_sync(layer.group_add)("room", own)
    parent.say(own)
    parent.hear()

    def live() -> None:
        parent.say(os.getpid())
        signal.pause()

    fork(live)
    parent.hear()
