"""What the processes of these tests do. Without pytest, so that they start quickly."""

import asyncio
import dataclasses
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from channels.exceptions import ChannelFull

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.storage.store import Store
from channels_sqlite.sync import SyncChannelLayer
from channels_sqlite.waking.sender import Sender
from tests.processes.evidence import Journal, numbered
from tests.support.child import Parent
from tests.support.databases import registered
from tests.support.waiting import eventually


async def receive_into(layer: SqliteChannelLayer, channel: str, journal: Journal) -> None:
    """Write down what comes on `channel`, for ever."""
    while True:
        journal.write(await layer.receive(channel))


async def read_channel(parent: Parent, *, channel: str, journal: str, receivers: int = 1) -> None:
    """Read a normal channel with so many concurrent `receive()` until told to stop."""
    layer = parent.make_layer()
    own = await layer.new_channel()
    out = Journal(journal)
    tasks = [asyncio.create_task(receive_into(layer, channel, out)) for _ in range(receivers)]
    parent.say(own)
    await parent.ahear()
    await cancel(tasks)
    out.close()


async def read_group(parent: Parent, *, group: str, members: int, journal: str) -> None:
    """Join a group with so many channels, and write down (channel, message) until told to stop."""
    layer = parent.make_layer()
    out = Journal(journal)

    async def read(name: str) -> None:
        while True:
            out.write([name, await layer.receive(name)])

    names = [await layer.new_channel() for _ in range(members)]
    tasks = [asyncio.create_task(read(name)) for name in names]
    for name in names:
        await layer.group_add(group, name)
    parent.say(names)
    await parent.ahear()
    await cancel(tasks)
    out.close()


async def send_numbers(parent: Parent, *, channel: str, sender: str, count: int) -> None:
    """Send 0, 1, 2, … to a channel as fast as it goes, once told to begin."""
    layer = parent.make_layer()
    await layer.group_count("warm-up")
    parent.say("ready")
    await parent.ahear()
    for number in range(count):
        await layer.send(channel, numbered(sender, number))
    parent.say("done")


async def broadcast_numbers(parent: Parent, *, group: str, sender: str, count: int) -> None:
    """The same to a group."""
    layer = parent.make_layer()
    await layer.group_count("warm-up")
    parent.say("ready")
    await parent.ahear()
    for number in range(count):
        await layer.group_send(group, numbered(sender, number))
    parent.say("done")


def hold_write_lock(parent: Parent) -> None:
    """Take the database's write lock whenever told to, until told to let go of it."""
    connection = sqlite3.connect(parent.database.path, isolation_level=None, timeout=10)
    parent.say("ready")
    while True:
        try:
            parent.hear()
        except EOFError:
            break
        connection.execute("BEGIN IMMEDIATE")
        parent.say("held")
        parent.hear()
        connection.execute("ROLLBACK")
        parent.say("free")
    connection.close()


def send_while_suspended(parent: Parent) -> None:
    """Send while the lock is taken; once told to, say when the lock was tried for again, and what became of it."""
    layer = parent.make_layer()
    facade = SyncChannelLayer(layer)
    facade.send("work", {"type": "warm-up"})
    parent.say("ready")
    parent.hear()

    def send() -> None:
        try:
            facade.send("work", {"type": "t"})
        except ChannelDatabaseError as error:
            parent.say(str(error))
        else:
            parent.say("sent")

    thread = threading.Thread(target=send)
    before = layer.counters.retried
    thread.start()
    eventually(lambda: layer.counters.retried > before)
    parent.say("tries")
    parent.hear()
    before = layer.counters.retried
    eventually(lambda: layer.counters.retried > before or not thread.is_alive())
    parent.say("tried again")
    thread.join()
    facade.close()


async def cancel(tasks: list["asyncio.Task[None]"]) -> None:
    """End tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def time_arrivals(parent: Parent, *, kind: str) -> None:
    """Say for each message how long it was under way; one clock serves all processes of a machine."""
    layer = parent.make_layer()
    channel = "work" if kind == "normal" else await layer.new_channel()
    if kind == "group":
        await layer.group_add("room", channel)
    parent.say(channel)
    while True:
        message = await layer.receive(channel)
        parent.say(time.monotonic() - message["sent_at"])


def switch_off(patch: Callable[[object, str, object], None]) -> None:
    """Take Unix datagram sockets and flock away from the package, wherever it has imported them."""
    switched = set()
    for name, module in list(sys.modules.items()):
        for attribute, value in (("have_unix_datagrams", lambda: False), ("fcntl", None)):
            if name.startswith("channels_sqlite.") and hasattr(module, attribute):
                patch(module, attribute, value)
                switched.add(attribute)
    assert switched == {"have_unix_datagrams", "fcntl"}


async def serve_by_polling(parent: Parent) -> None:
    """Answer whatever asks on a normal channel, on a channel of its own, or in a group."""
    switch_off(setattr)
    layer = parent.make_layer()
    own = await layer.new_channel()
    await layer.group_add("room", own)

    async def answer(channel: str) -> None:
        while True:
            message = await layer.receive(channel)
            await layer.send(message["reply_to"], {"type": "answer", "on": channel, "number": message["number"]})

    tasks = [asyncio.create_task(answer(channel)) for channel in ("work", own)]
    parent.say(own)
    await parent.ahear()
    await cancel(tasks)


async def stay_member(parent: Parent, *, normal: str) -> None:
    """Be in the group `room`, and tell of what comes on the own channel and on a normal one."""
    layer = parent.make_layer()
    own = await layer.new_channel()

    async def tell(kind: str, channel: str) -> None:
        while True:
            parent.say([kind, (await layer.receive(channel))["n"]])

    tasks = [asyncio.create_task(tell("own", own)), asyncio.create_task(tell("normal", normal))]
    await layer.group_add("room", own)
    parent.say(own)
    try:
        await parent.ahear()
    except EOFError:
        await cancel(tasks)


async def die_before_waking(parent: Parent, *, kind: str, channel: str) -> None:
    """Send one message, and die between its commit and its wake-up."""

    def die(sender: object, *args: object) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    layer = parent.make_layer()
    await layer.group_count("room")
    setattr(Sender, "wake", die)  # noqa: B010  # mypy would have it a type error
    if kind == "group":
        await layer.group_send("room", {"type": "last words"})
    else:
        await layer.send(channel, {"type": "last words"})


async def join_with_many(parent: Parent, *, members: int) -> None:
    """Join with so many channels, receive one message on each, and say how many came and how they read."""
    layer = parent.make_layer()
    names = [await layer.new_channel() for _ in range(members)]
    receivers = [asyncio.create_task(layer.receive(name)) for name in names]
    for start in range(0, members, 500):
        await asyncio.gather(*(layer.group_add("everybody", name) for name in names[start : start + 500]))
    parent.say("joined")
    messages = await asyncio.gather(*receivers)
    parent.say([len(messages), sorted({message["text"] for message in messages})])
    await parent.ahear()


async def echo_under_prefix(parent: Parent) -> None:
    """Repeat what comes on all kinds of channels of the layer of this prefix, saying where it came."""
    layer = parent.make_layer()
    own = await layer.new_channel()
    await layer.group_add("room", own)
    parent.say(own)

    async def echo(channel: str) -> None:
        while True:
            parent.say([channel, (await layer.receive(channel))["text"]])

    await asyncio.gather(echo("work"), echo(own))


async def receive_when_told(parent: Parent) -> None:
    layer: SqliteChannelLayer = parent.make_layer()
    parent.say("ready")
    while True:
        channel = await parent.ahear()
        parent.say(await layer.receive(channel))


async def live_in_a_group(parent: Parent, *, group: str, normal: str) -> None:
    """Be a member, wait on three channels, and say what comes until told to stop."""
    layer = parent.make_layer()
    own = await layer.new_channel()
    await layer.group_add(group, own)

    async def tell(channel: str) -> None:
        while True:
            parent.say((await layer.receive(channel))["text"])

    tasks = [asyncio.create_task(tell(channel)) for channel in (own, normal)]
    parent.say(own)
    await parent.ahear()
    await cancel(tasks)


async def die_while_keeping_house(parent: Parent, *, moment: str) -> None:
    """Keep house until a certain moment of it, and die there; the test makes it come to that moment.

    `moment`: a method of `Store` and whether to die before or after it, inside of the transaction that it is part of.
    """
    method, _, place = moment.partition(" ")
    original = getattr(Store, method)

    def die(store: Store, *args: object, **kwargs: object) -> object:
        if place == "after":
            original(store, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    setattr(Store, method, die)
    layer = parent.make_layer()
    parent.say(await layer.new_channel())
    await parent.ahear()


async def open_and_use(parent: Parent) -> None:
    """For each database that the test names, open it when all others do, send, and say how that went."""
    parent.say("ready")
    while True:
        path, start_at = (await parent.ahear()).split("|")
        database = dataclasses.replace(parent.database, path=Path(path))
        with registered(database):
            layer = SqliteChannelLayer(database=database.alias)
            await asyncio.sleep(float(start_at) - time.monotonic())
            outcome = "sent"
            try:
                await layer.send("work", {"type": "t"})
                await layer.new_channel()
            except Exception as error:  # noqa: BLE001  # the test wants to see it
                outcome = repr(error)
            await layer.close()
        parent.say(outcome)


async def send_until_full(parent: Parent) -> None:
    """For each channel that the test names, send till it is full, and say how many were accepted."""
    layer = parent.make_layer()
    await layer.group_count("warm-up")
    parent.say("ready")
    while True:
        channel, start_at = (await parent.ahear()).split("|")
        await asyncio.sleep(float(start_at) - time.monotonic())
        accepted = refused = 0
        while refused < 3:
            try:
                await layer.send(channel, {"type": "t", "sender": os.getpid(), "number": accepted})
            except ChannelFull:
                refused += 1
            else:
                accepted += 1
            await asyncio.sleep(0)
        parent.say(accepted)


async def wait_on_channels(parent: Parent, *, channels: int, waiting: int, journal: str) -> None:
    """Have channels, receive on the first so many of them, and on all when told to; write down what comes."""
    layer = parent.make_layer()
    out = Journal(journal)
    names = [await layer.new_channel() for _ in range(channels)]
    tasks = [asyncio.create_task(receive_into(layer, name, out)) for name in names[:waiting]]
    parent.say(names)
    await parent.ahear()
    tasks += [asyncio.create_task(receive_into(layer, name, out)) for name in names[waiting:]]
    try:
        await parent.ahear()
    finally:
        await cancel(tasks)
        out.close()


async def hold_beside_each_other(parent: Parent) -> None:
    """Have channels in two queues, read what comes for them, and receive it only when told to."""
    layer = parent.make_layer()
    names = [await layer.new_channel("http.response"), await layer.new_channel()]
    waiting = asyncio.create_task(layer.receive(await layer.new_channel("idle")))
    parent.say(names)
    try:
        await parent.ahear()
        parent.say([(await layer.receive(names[0]))["number"] for _ in range(2)])
        await parent.ahear()
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
