"""What the processes of these tests do that look for what is due. Without pytest, so that they start quickly."""

import os
import signal
from typing import Any

from channels_sqlite.delivery.schedule import Schedule
from channels_sqlite.layers import engine_of
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.transactions import Transaction
from tests.support import inside
from tests.support.child import Parent


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(step: str) -> None:
    """Have this process killed when it sends what is due: before, inside or after the transaction that sends some."""
    send_due, run_patiently, hand_over = Schedule.send_due, Outbox.run_patiently, Transaction.hand_over
    has_sent = []

    def sending(schedule: Schedule, transaction: Transaction) -> bool:
        more = send_due(schedule, transaction)
        has_sent.append(transaction.sent)
        if step == "inside":
            die()
        return more

    def running(outbox: Outbox, apply: Any, *more: Any) -> Any:
        if step == "before" and getattr(apply, "__func__", None) is sending:
            die()
        return run_patiently(outbox, apply, *more)

    def handing_over(transaction: Transaction, counters: Any) -> None:
        if step == "after" and any(has_sent):
            die()
        hand_over(transaction, counters)

    changes = (
        (Schedule, "send_due", sending),
        (Outbox, "run_patiently", running),
        (Transaction, "hand_over", handing_over),
    )
    for owner, name, changed in changes:
        setattr(owner, name, changed)


async def look_until_killed(parent: Parent, *, step: str) -> None:
    """Be the one that looks, and die at a step of sending what is due."""
    layer = parent.make_layer()
    await layer.new_channel()
    die_at(step)
    parent.say("ready")
    await parent.ahear()


async def look_all_the_time(parent: Parent) -> None:
    """Look again and again, until told to stop; say how much was sent."""
    layer = parent.make_layer()
    await layer.new_channel()
    engine = engine_of(layer)
    parent.say("ready")
    await parent.ahear()
    while engine.database.connections is not None:
        await inside.background(engine).acall(inside.due_messages(engine).look)
        if not await inside.background(engine).acall(lambda: _is_left(engine)):
            break
    parent.say(layer.counters.sent)
    await parent.ahear()


def _is_left(engine: Any) -> bool:
    return bool(engine.database.connections.patient.store.count_scheduled())
