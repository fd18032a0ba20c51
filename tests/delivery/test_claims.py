"""Claiming from normal channels: when a process looks first, and when it just claims."""

import asyncio
import math

import pytest

from channels_sqlite.delivery.claims import Claims
from channels_sqlite.delivery.entries import Entry
from channels_sqlite.layers import engine_of
from channels_sqlite.storage.store import Store
from tests.faults.support import receive_numbers
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

DEADLINE_S = 30
NEVER_S = 3600


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked for before claiming: JSON arrays of channels."""
    found: list[str] = []
    channels_with_waiting = Store.channels_with_waiting

    def noted(store: Store, channels_json: str, now: float) -> list[str]:
        found.append(channels_json)
        return channels_with_waiting(store, channels_json, now)

    monkeypatch.setattr(Store, "channels_with_waiting", noted)
    return found


async def test_where_more_waits_it_is_claimed_without_a_look(make_layer: LayerFactory, looks: list[str]) -> None:
    worker, sender = make_layer(polling_interval=NEVER_S), make_layer()
    for number in range(30):
        await sender.send("jobs", {"n": number})
    assert await receive_numbers(worker, "jobs", 2) == [0, 1]
    looks.clear()
    assert await receive_numbers(worker, "jobs", 28) == list(range(2, 30))
    assert looks == []


async def test_after_a_lone_message_nothing_is_claimed_without_a_look(
    make_layer: LayerFactory, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    claims: list[str] = []
    claim = Claims.claim

    def noted(self: Claims, channel: str) -> None:
        claims.append(channel)
        claim(self, channel)

    monkeypatch.setattr(Claims, "claim", noted)
    worker, sender = make_layer(polling_interval=NEVER_S), make_layer()
    await sender.send("jobs", {"n": 0})
    assert await receive_numbers(worker, "jobs", 1) == [0]
    looks.clear()
    claims.clear()
    receiving = asyncio.create_task(receive_numbers(worker, "jobs", 1))
    await aeventually(lambda: looks, DEADLINE_S)
    assert claims == []
    await sender.send("jobs", {"n": 1})
    assert await asyncio.wait_for(receiving, DEADLINE_S) == [1]


async def test_only_the_first_message_that_waits_wakes_and_receivers_get_all(make_layer: LayerFactory) -> None:
    worker, sender = make_layer(polling_interval=NEVER_S), make_layer()
    await sender.send("jobs", {"n": 0})
    assert await receive_numbers(worker, "jobs", 1) == [0]
    listeners = engine_of(worker).inbox.reader.query
    await aeventually(lambda: listeners(lambda store: store.listeners("jobs")), DEADLINE_S)
    before = sender.counters.wakeups_sent
    for number in range(1, 7):
        await sender.send("jobs", {"n": number})
    assert sender.counters.wakeups_sent == before + 1
    receiving = [asyncio.create_task(receive_numbers(worker, "jobs", 1)) for _ in range(8)]
    await sender.send("jobs", {"n": 7})
    await sender.send("jobs", {"n": 8})
    received = await asyncio.wait_for(asyncio.gather(*receiving), DEADLINE_S)
    assert sorted(numbers[0] for numbers in received) == list(range(1, 9))


async def test_who_claimed_in_vain_is_woken_for_the_next_message(make_layer: LayerFactory) -> None:
    worker, sender = make_layer(polling_interval=NEVER_S), make_layer()
    for number in range(20):
        await sender.send("jobs", {"n": number})
        receiving = asyncio.create_task(receive_numbers(worker, "jobs", 2 if number % 3 == 0 else 1))
        if number % 3 == 0:
            await asyncio.sleep(0)
            await sender.send("jobs", {"n": -1})
        assert (await asyncio.wait_for(receiving, DEADLINE_S))[0] == number


async def test_two_channels_take_turns_however_much_waits_on_one(make_layer: LayerFactory) -> None:
    worker, sender = make_layer(polling_interval=NEVER_S), make_layer()
    for number in range(50):
        await sender.send("many", {"n": number})
    await receive_numbers(worker, "many", 5)
    await sender.send("few", {"n": 0})
    assert await receive_numbers(worker, "few", 1) == [0]
    assert await receive_numbers(worker, "many", 45) == list(range(5, 50))


async def test_a_flush_by_another_process_drops_what_was_claimed_and_not_received(make_layer: LayerFactory) -> None:
    worker, other = make_layer(), make_layer()
    receiving = asyncio.create_task(worker.receive("jobs"))
    claimed = engine_of(worker).inbox.claimed
    await aeventually(lambda: claimed.in_use(["jobs"]), DEADLINE_S)
    claimed.arrived("jobs", 0, [Entry(1, math.inf, b"")])  # its receiver has not come yet
    await other.flush()
    await aeventually(lambda: not claimed.hold_any(), DEADLINE_S)
    await other.send("jobs", {"n": "afterwards"})
    assert await asyncio.wait_for(receiving, DEADLINE_S) == {"n": "afterwards"}
