"""What the processes of `test_forks.py` do: use a layer, fork, and use it again on both sides.

Everything here runs in a fresh interpreter of its own, because a test run has threads that no fork should meet.
"""

import asyncio
import faulthandler
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from unittest.mock import patch

from asgiref.sync import async_to_sync

from channels_sqlite.concurrency import forks
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.processes import flocks
from channels_sqlite.sync import SyncChannelLayer
from channels_sqlite.waking import pace as pacing
from channels_sqlite.waking.sender import Sender
from tests.support import inside
from tests.support.child import Parent
from tests.support.locks import CheckedLock, held_elsewhere
from tests.support.waiting import aeventually

CHILD_DEADLINE_S = 20.0
RECEIVE_DEADLINE_S = 10.0
HANGS_AFTER_S = 15.0


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
    with patch.object(pacing, "REST_S", 3600 if resting else pacing.REST_S):
        waiting = asyncio.ensure_future(receive(layer, own))
        await asyncio.sleep(0)
        if resting:
            pace = engine_of(layer).watches.of(asyncio.get_running_loop()).pace
            await aeventually(lambda: pace.resting, RECEIVE_DEADLINE_S)

    async def in_child() -> None:
        mine = await layer.new_channel()
        await layer.send(mine, {"type": "t", "text": "mine"})
        assert (await receive(layer, mine))["text"] == "mine"
        await layer.send(own, {"type": "t", "text": "from the child"})

    def child() -> None:
        if resting:
            patch.object(Sender, "wake", lambda sender, clients: 0).start()
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


def fork_while_all_is_in_use(parent: Parent, *, forks: int) -> None:
    """Fork while threads send, receive, listen, begin and end to wait, and an event loop works; all that takes locks.

    Say how the children ended that did not end well, and what went wrong beside them. A child that hangs shows where.
    """
    layer = parent.make_layer(capacity=10_000)
    facade = SyncChannelLayer(layer)
    own = facade.new_channel()
    stop = threading.Event()
    failures: list[str] = []

    def send() -> None:
        while not stop.is_set():
            facade.send("work", {"type": "t"})
            facade.send(own, {"type": "t"})

    def receive_briefly() -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                facade.receive(own, timeout=0.0005)

    def listen() -> None:
        for _ in facade.listen("work", own):
            pass

    async def on_a_loop() -> None:
        mine = await layer.new_channel()
        await layer.group_add("all", mine)
        while not stop.is_set():
            await layer.group_send("all", {"type": "t"})
            await receive(layer, mine)
            with suppress(asyncio.TimeoutError):  # leaves the line, which takes locks
                await asyncio.wait_for(layer.receive(mine), 0.001)
        await layer.group_discard("all", mine)

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # said to the test
            failures.append(repr(error))

    def child() -> None:
        faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
        mine = facade.new_channel()
        facade.send(mine, {"type": "t"})
        facade.receive(mine, timeout=RECEIVE_DEADLINE_S)
        facade.close()

    works = (send, receive_briefly, receive_briefly, listen, lambda: asyncio.run(on_a_loop()))
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    # Whatever lock a thread holds at the fork, nobody releases it in the child.
    outcomes = [wait_for(fork(child)) for _ in range(forks)]
    stop.set()
    for thread in threads:
        if thread is not threads[3]:
            thread.join()
    facade.close()  # ends `listen`
    threads[3].join()
    parent.say([outcome for outcome in outcomes if outcome != "ended with 0"])
    parent.say(failures)


TAKEN_BY_FORKS = ("BackgroundThread.working", "OpenDatabase.writing", "OpenDatabase.reading")


def all_locks() -> list[Any]:  # which stand in the place of threading.Lock's
    """Every lock of the package that is waited for, but those that a fork takes itself."""
    checked = [lock for lock in gc.get_objects() if isinstance(lock, CheckedLock)]
    return [lock for lock in checked if lock.is_waited_for and not lock.name.endswith(TAKEN_BY_FORKS)]


def fork_and_exit() -> str:
    """Fork while other threads hold locks. The child raises SystemExit; how it has ended is returned in the parent."""
    with held_elsewhere(all_locks()):
        pid = os.fork()
        if pid != 0:
            return wait_for(pid)
    faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
    sys.exit(3)


def exit_while_listening(parent: Parent) -> None:
    """Fork in the body of listen(); the child leaves by way of all that its parent was about to do afterwards."""
    facade = SyncChannelLayer(parent.make_layer())
    facade.send("work", {"type": "t"})
    for _ in facade.listen("work", facade.new_channel()):
        parent.say(fork_and_exit())
        break
    facade.close()


async def exit_while_receiving(parent: Parent) -> None:
    """The same in a coroutine, beside others that receive, and a thread that waits."""
    layer = parent.make_layer()
    own = await layer.new_channel()
    await layer.group_add("all", own)
    receiving = [asyncio.ensure_future(layer.receive(channel)) for channel in (own, "jobs", "jobs")]
    waiting = threading.Thread(target=lambda: SyncChannelLayer(layer).receive("jobs"), daemon=True)
    waiting.start()
    engine = engine_of(layer)
    await aeventually(lambda: inside.sleepers(engine.watches.threads) == 1)
    await aeventually(lambda: all(inside.box(engine.inbox, channel).waiters for channel in (own, "jobs")))
    parent.say(fork_and_exit())
    # The child has closed what its event loop shared with this one.
    os._exit(len([task for task in receiving if task.done()]))


async def fork_while_layers_wait(parent: Parent, *, layers: int) -> None:
    """Fork from a coroutine while so many layers wait for the database's lock; say how long it took."""
    waiting = [parent.make_layer(prefix=f"p{number}") for number in range(layers)]
    for layer in waiting:
        await layer.group_count("warm-up")
    parent.say("ready")
    await parent.ahear()
    sending = [asyncio.ensure_future(layer.send("work", {"type": "t"})) for layer in waiting]
    outboxes = [engine_of(layer).outbox for layer in waiting]
    await aeventually(lambda: all(map(inside.is_waiting_for_the_lock, outboxes)))
    started = time.monotonic()
    pid = fork(lambda: None)
    parent.say(time.monotonic() - started)
    await asyncio.gather(*sending)
    parent.say(wait_for(pid))


class BeforeForks:
    """Has something called before each fork while it lives, in the middle of what the package does then."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        forks.register(self._in_child, self._locks)

    def _locks(self) -> tuple[()]:
        self._call()
        return ()

    def _in_child(self) -> None:
        pass


class SignalsItself:
    """Sends this process SIGUSR1, once."""

    def __init__(self) -> None:
        self._done = False

    def __call__(self) -> None:
        if not self._done:
            self._done = True
            os.kill(os.getpid(), signal.SIGUSR1)


def fork_in_a_fork(parent: Parent) -> None:
    """Fork in a signal handler that comes in the middle of another fork; say how the children ended."""
    layer = parent.make_layer()
    facade = SyncChannelLayer(layer)
    facade.send("work", {"type": "t"})
    inner: list[str] = []

    def handler(number: int, frame: object) -> None:
        inner.append(wait_for(fork(lambda: None)))

    signal.signal(signal.SIGUSR1, handler)

    participant = BeforeForks(SignalsItself())
    try:
        outer = wait_for(fork(lambda: facade.send("work", {"type": "child"})))
    finally:
        del participant
    facade.send("work", {"type": "t"})
    parent.say([outer, *inner])
    facade.close()


def fork_four_times_as_many(parent: Parent) -> None:
    """Fork in a signal handler in the middle of another fork, and go on in every process; say how the others ended."""
    layer = parent.make_layer()
    facade = SyncChannelLayer(layer)
    facade.send("work", {"type": "t"})
    inner: list[int] = []

    signal.signal(signal.SIGUSR1, lambda number, frame: inner.append(os.fork()))
    participant = BeforeForks(SignalsItself())
    outer = os.fork()
    del participant
    children = [pid for pid in (outer, *inner) if pid] if outer else []
    first = len(children) == 2
    if not first:
        faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
    facade.send("work", {"type": "t"})
    # Whoever holds what forks take keeps another thread from forking.
    thread = threading.Thread(target=lambda: children.append(fork(lambda: None)))
    thread.start()
    thread.join()
    outcomes = [wait_for(pid) for pid in children]
    if not first:
        os._exit(int(any(outcome != "ended with 0" for outcome in outcomes)))
    parent.say(outcomes)
    facade.close()


def fork_while_suspended(parent: Parent) -> None:
    """Fork while a thread is inside SQLite; say whether the fork was over before that thread came out."""
    _participant = BeforeForks(lambda: parent.say("forking"))  # the layer's locks are taken next
    layer = parent.make_layer()
    facade = SyncChannelLayer(layer)
    facade.send("work", {"type": "t"})
    inside, forked = threading.Event(), threading.Event()

    def be_inside() -> None:
        with engine_of(layer).database.writing:
            inside.set()
            parent.hear()
            parent.say(forked.wait(0.3))

    def fork_beside() -> None:
        pid = fork(lambda: None)
        forked.set()
        parent.say(wait_for(pid))

    threads = [threading.Thread(target=target) for target in (be_inside, fork_beside)]
    threads[0].start()
    inside.wait()
    threads[1].start()
    for thread in threads:
        thread.join()
    facade.close()


def fork_while_a_job_opens_files(parent: Parent) -> None:
    """Fork while a job of the layer's thread is about to lock a file; say whether it was over when the fork came."""
    forking = threading.Event()
    _participant = BeforeForks(forking.set)  # the layer's locks are taken next
    layer = parent.make_layer()
    facade = SyncChannelLayer(layer)
    facade.send("work", {"type": "t"})
    begun, over = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        forking.wait()
        fd = flocks.take(f"{parent.database.path}.test.lock", create=True)
        assert fd is not None
        flocks.give(fd)
        over.set()

    inside.background(engine_of(layer)).submit(job)
    begun.wait()
    pid = fork(lambda: parent.say(over.is_set()))
    parent.say(wait_for(pid))
    facade.close()


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
