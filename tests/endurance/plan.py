"""Who takes part in a storm, which channels they use, and what the monkey does when: all of it fixed by the seed."""

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

ActionKind = Literal[
    "kill",
    "stop",
    "freeze",
    "term",
    "fork",
    "close",
    "block",
    "lock",
    "sockets",
    "deafen",
    "folder",
    "trim",
    "vacuum",
]
Role = Literal["observer", "locker", "janitor", "reader", "churner", "worker", "taker", "sender", "caller"]

MAIN, SHORT = "default", "short"
"""Aliases in CHANNEL_LAYERS. The short one has a small capacity, a short expiry and keeps nothing."""

SHORT_EXPIRY_S = 2.0
MAIN_EXPIRY_S = 60.0
"""Also for how long messages are kept."""


@dataclass(frozen=True)
class Slot:
    """A place that one process at a time fills; `suffers` is what the monkey may do to it."""

    name: str
    role: Role
    suffers: frozenset[ActionKind] = frozenset()

    @property
    def mortal(self) -> bool:
        """Whether its processes may end before the storm does."""
        return "kill" in self.suffers


def _slot(name: str, role: Role, *suffers: ActionKind) -> Slot:
    return Slot(name, role, frozenset(suffers))


SLOTS = (
    _slot("observer", "observer"),
    _slot("locker", "locker"),
    _slot("janitor", "janitor", "kill", "stop"),
    _slot("stable-1", "reader", "stop", "fork", "block"),
    _slot("stable-2", "reader", "stop", "fork", "block"),
    _slot("mortal-1", "reader", "kill", "stop", "term", "fork", "block", "close"),
    _slot("mortal-2", "reader", "kill", "stop", "term", "fork", "block", "close"),
    _slot("closer", "reader", "stop", "fork", "block", "close"),
    _slot("churner", "churner", "kill", "stop", "term", "fork", "close"),
    _slot("worker-1", "worker", "kill", "stop", "term", "fork", "close"),
    _slot("worker-2", "worker", "kill", "stop", "term", "fork", "close"),
    _slot("taker", "taker", "stop", "fork", "close"),
    _slot("sender-1", "sender", "kill", "stop", "term", "fork", "close"),
    _slot("sender-2", "sender", "kill", "stop", "term", "fork", "close"),
    _slot("caller-1", "caller", "kill", "stop", "term", "fork", "close"),
    _slot("caller-2", "caller", "kill", "stop", "term", "fork", "close"),
)
SLOT_OF = {slot.name: slot for slot in SLOTS}
LONG_LIVED = ("observer", "stable-1", "stable-2")
"""Never killed and never closed: their members must miss nothing, and they must not grow."""


@dataclass(frozen=True)
class NormalChannel:
    """A channel without `!`, and how many receive() wait on it in a process of each slot."""

    id: int
    name: str
    receivers: dict[str, int]
    alias: str = MAIN
    cancels: bool = True
    """Whether a receive() on it is cancelled now and then."""
    hasty: bool = False
    """Whether receive() is called again while close() runs, so that for a moment one process is two readers."""
    pauses: bool = False
    """Whether its readers rest now and then, so that messages expire."""
    threads: bool = False
    share: float = 1.0
    """Of what is sent: more for those whose readers close, where a close meets messages that are on their way."""

    @property
    def shared(self) -> bool:
        """Whether several processes read it at once."""
        return len(self.receivers) > 1

    @property
    def puts_back(self) -> bool:
        """Whether a message may go to another reader after one had it and gave it up: then that one sees it late.

        This is no fault: while the first reader has it the next message goes to the second. Order is judged elsewhere.
        """
        return self.shared and self.cancels


NORMAL = (
    NormalChannel(1, "solo.stable-1", {"stable-1": 3}),
    NormalChannel(2, "solo.stable-2", {"stable-2": 3}),
    NormalChannel(3, "solo.mortal-1", {"mortal-1": 3}),
    NormalChannel(4, "solo.mortal-2", {"mortal-2": 3}),
    NormalChannel(5, "solo.closer", {"closer": 3}, share=5.0),
    NormalChannel(6, "solo.taker", {"taker": 2}, threads=True, cancels=False),
    NormalChannel(7, "work.worker-1", {"worker-1": 1}, threads=True, cancels=False),
    NormalChannel(8, "work.worker-2", {"worker-2": 1}, threads=True, cancels=False),
    NormalChannel(9, "work.shared", {"worker-1": 1, "worker-2": 1}, threads=True, cancels=False),
    NormalChannel(10, "pool", {"mortal-1": 2, "mortal-2": 2, "closer": 4}, hasty=True, share=5.0),
    NormalChannel(11, "mixed", {"stable-1": 2}),
    NormalChannel(20, "short.rested", {"stable-2": 2}, alias=SHORT, pauses=True),
    NormalChannel(21, "short.shared", {"mortal-1": 1, "closer": 1}, alias=SHORT, pauses=True),
)
CHANNEL_OF = {channel.id: channel for channel in NORMAL}
MIXED = CHANNEL_OF[11]
"""A normal channel that is a member of the group; nobody sends to it directly."""
SENT_TO = tuple(channel for channel in NORMAL if channel.alias == MAIN and channel is not MIXED)
SHARES = tuple(channel.share for channel in SENT_TO)
SENT_TO_SHORT = tuple(channel for channel in NORMAL if channel.alias == SHORT)

GROUP_ID, GROUP = 30, "room"
FIRST_SPECIFIC_ID = 1000
SPECIFIC_IDS = 500_000  # a process that closes its layers again and again makes thousands
"""A process numbers its own channels from its incarnation times this."""


@dataclass(frozen=True)
class Furniture:
    """The process-specific channels of a reader: how many are read by name, and how many by the part up to the `!`."""

    named: int = 0
    pooled: int = 0
    pool_receivers: int = 0


FURNITURE = {
    "observer": Furniture(named=1),
    "stable-1": Furniture(named=30),
    "stable-2": Furniture(named=20, pooled=10, pool_receivers=4),
    "mortal-1": Furniture(named=4),
    "mortal-2": Furniture(named=2, pooled=2, pool_receivers=2),
    "closer": Furniture(named=4),
}


@dataclass(frozen=True)
class Action:
    """One thing that the monkey does, `at_s` seconds after the storm began; what each needs is in the other fields.

    To freeze is to stop whoever holds the housekeeping lock, at a moment when it does, for long. To deafen is to remove
    all wake-up sockets while a loop is blocked.
    """

    at_s: float
    kind: ActionKind
    slot: str = ""
    seconds: float = 0.0
    times: int = 1
    how: str = ""
    draw: float = field(default=0.0, compare=False)


MEAN_PAUSE_S = 0.3
WEIGHTS: dict[ActionKind, float] = {
    "kill": 10,
    "stop": 14,
    "freeze": 1,
    "term": 5,
    "fork": 14,
    "close": 14,
    "block": 5,
    "lock": 8,
    "sockets": 5,
    "deafen": 3,
    "folder": 1,
    "trim": 3,
    "vacuum": 1,
}
LONG_STOPS, LONG_STOP_S = 0.06, (9.0, 14.0)
"""Of all stops these are longer than what a patient process waits for."""
CLOSER_SHARE = 0.4
"""Of all closes: those of a reader that is never killed, so that nothing else explains what is lost there."""
FORKS = ("exit", "send", "send", "multiprocessing")


def plan(seed: int, duration_s: float, without: Collection[str] = ()) -> Iterator[Action]:
    """What the monkey does, in order of time; `without` names kinds that it leaves out."""
    draw = random.Random(f"plan {seed}")
    at_s = 0.0
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    while True:
        at_s += draw.expovariate(1 / MEAN_PAUSE_S)
        if at_s >= duration_s:
            return
        action = _action(draw, at_s, draw.choices(kinds, weights)[0])
        if action.kind not in without:
            yield action


def _action(draw: random.Random, at_s: float, kind: ActionKind) -> Action:
    if kind == "lock":
        return Action(at_s, kind, "locker", seconds=0.05 + 1.95 * draw.random() ** 3)
    if kind in ("trim", "vacuum"):
        return Action(at_s, kind, "janitor")
    if kind == "freeze":
        return Action(at_s, kind, seconds=draw.uniform(*LONG_STOP_S))
    if kind == "folder":
        return Action(at_s, kind)
    if kind == "sockets":
        return Action(at_s, kind, draw=draw.random())
    suffering: ActionKind = "block" if kind == "deafen" else kind
    slot = draw.choice([slot.name for slot in SLOTS if suffering in slot.suffers])
    if kind == "close" and draw.random() < CLOSER_SHARE:
        slot = "closer"
    if kind == "stop":
        return Action(at_s, kind, slot, seconds=_stop_s(draw))
    if kind in ("block", "deafen"):
        return Action(at_s, kind, slot, seconds=draw.uniform(0.2, 2.0))
    if kind == "close":
        return Action(at_s, kind, slot, times=draw.choice((1, 2, 4, 8)))
    if kind == "fork":
        return Action(at_s, kind, slot, how=draw.choice(FORKS))
    return Action(at_s, kind, slot)


def _stop_s(draw: random.Random) -> float:
    return draw.uniform(*LONG_STOP_S) if draw.random() < LONG_STOPS else draw.uniform(0.05, 4.0)
