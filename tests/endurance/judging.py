"""From the journals of a storm to what went wrong in it. The journals are streamed; a message costs some 30 bytes.

What is judged, and what is not:

- Doubled: a message that was written down twice, for any channel, and for each member of the group. None may be.
- Lost: a message for a normal channel whose send() returned and that nobody has written down, beyond what killed
  readers can have held: one for each receive() that waited there, and only such as were on their way when the reader
  was killed (see `losses`). One for a process-specific channel, where that lived until the end.
- Swapped: two messages of one sender in the wrong order, among what one reader of a channel saw; and where a channel
  has one reader at a time, among what all of them saw. Where several processes read and give messages back (a cancelled
  receive(), a close), the next reader may see a message late: there order is not judged.
- Missed: a broadcast whose group_send() returned, and began after a long-lived member's group_add() had returned.
- Delivered to later members: a broadcast to a channel whose group_add() began only after the group_send() had returned.
- Delivered after expiry: a message received more than `LATE_S` after it had expired, counting from when its send()
  returned, unless the reader was stopped meanwhile: it may have taken the message before, and written it down after.
- Refused and delivered: send() raised ChannelFull, and yet somebody received it.
"""

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.endurance.crew import Death
from tests.endurance.journal import OUTCOMES, JournalFile, Kind, Record, Stuck, journals
from tests.endurance.losses import Loss, unexplained
from tests.endurance.plan import (
    CHANNEL_OF,
    FIRST_SPECIFIC_ID,
    GROUP_ID,
    LONG_LIVED,
    MAIN,
    MAIN_EXPIRY_S,
    SHORT,
    SHORT_EXPIRY_S,
)
from tests.endurance.station import SOURCES

LATE_S = 2.5
"""Longer than a loop is blocked for."""
SHOWN = 5


class Stream:
    """What one source sent to one target: for each number the call's state and times, and when it was received."""

    __slots__ = ("began", "ended", "received", "state")

    def __init__(self) -> None:
        self.state = bytearray()
        self.began = array("d")
        self.ended = array("d")
        self.received = array("d")

    def sending(self, number: int, at: float) -> None:
        while len(self.state) <= number:
            self.state.append(0)
            self.began.append(0.0)
            self.ended.append(0.0)
            self.received.append(0.0)
        self.state[number] = Kind.SENDING
        self.began[number] = at

    def outcome(self, number: int, kind: int, at: float) -> None:
        self.state[number] = kind
        self.ended[number] = at


class Seen:
    """Which broadcasts of one source one member has received."""

    __slots__ = ("base", "flags", "last")

    def __init__(self, first: int) -> None:
        self.base = first
        self.last = -1
        self.flags = bytearray()

    def add(self, number: int) -> bool:
        """Note one; return whether it was there before."""
        if number < self.base:
            self.flags = bytearray(self.base - number) + self.flags
            self.base = number
        at = number - self.base
        if at >= len(self.flags):
            self.flags.extend(bytes(at + 1 - len(self.flags)))
        before = self.flags[at]
        self.flags[at] = 1
        return bool(before)

    def __contains__(self, number: int) -> bool:
        return 0 <= number - self.base < len(self.flags) and bool(self.flags[number - self.base])


@dataclass
class Found:
    """Faults of one kind: how many where, and what the first ones were."""

    count: int = 0
    where: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, where: str, example: str = "") -> None:
        self.count += 1
        self.where[where] += 1
        if example and len(self.examples) < SHOWN:
            self.examples.append(example)

    def told(self) -> list[str]:
        """Where they are, and the first ones."""
        return [f"{count} x {where}" for where, count in self.where.most_common(SHOWN)] + self.examples


@dataclass(frozen=True)
class Times:
    """What the judge knows about the processes: how they ended, and when they could not run (seconds since 1970)."""

    deaths: list[Death]
    stops: dict[int, list[tuple[float, float]]]
    """By incarnation."""
    living: set[int]
    """Process-specific channels that were there at the end."""


class Judge:
    """Reads the journals of a folder; `figures` and `faults` are the verdict."""

    def __init__(self, folder: Path, times: Times) -> None:
        self._files = journals(folder)
        self._times = times
        self._streams: dict[tuple[int, int], Stream] = {}
        self._last: dict[tuple[int, ...], int] = {}
        self._joining: dict[int, float] = {}
        self.figures: Counter[str] = Counter()
        self.faults: defaultdict[str, Found] = defaultdict(Found)
        self.longest_close_ms = 0
        self.longest_fork_us = 0
        self._slot_of: dict[int, str] = {}

    def judge(self) -> None:
        for file in self._files:
            self._slot_of[file.incarnation] = file.slot
            self._read_sends(file)
        for file in self._files:
            self._read_receipts(file)
        self._look_for_losses()

    # What was sent

    def _read_sends(self, file: JournalFile) -> None:
        for kind, _, _, source, target, number, place, at in file:
            if kind == Kind.SENDING:
                stream = self._streams.get((source, target))
                if stream is None:
                    stream = self._streams[source, target] = Stream()
                stream.sending(number, at)
                self.figures["calls"] += 1
            elif kind in OUTCOMES:
                self._streams[source, target].outcome(number, kind, at)
                self.figures[Kind(kind).name.lower()] += 1
            elif kind == Kind.JOINING:
                self._joining[place] = at
            elif kind == Kind.CANCELLED:
                self.figures["cancelled"] += 1
            elif kind == Kind.CLOSED:
                self.figures["closes"] += 1
                self.longest_close_ms = max(self.longest_close_ms, number)
            elif kind == Kind.FORKED:
                self.figures["forks"] += 1
                self.longest_fork_us = max(self.longest_fork_us, number)
            elif kind == Kind.STUCK:
                what = "receive() of a closed layer" if number == Stuck.RECEIVE else "a forked child"
                self.faults["hanging calls"].add(f"{what} in {file.path.stem}", f"{what} in {file.path.stem}, {at:.3f}")
            elif kind == Kind.UNEXPECTED:
                self.faults["calls that failed"].add(f"in {file.path.stem}; see its log")

    # What was received

    def _read_receipts(self, file: JournalFile) -> None:
        members: dict[tuple[int, int], Seen] = {}
        joined: dict[int, float] = {}
        for record in file:
            kind = record[0]
            if kind == Kind.RECEIVED:
                if record[4] == GROUP_ID:
                    self._broadcast(file, record, members)
                else:
                    self._received(file, record)
            elif kind == Kind.JOINED:
                joined[record[6]] = record[7]
        if file.slot in LONG_LIVED:
            for place, joined_at in joined.items():
                self._look_for_missed(file, place, joined_at, members)

    def _received(self, file: JournalFile, record: Record) -> None:
        _, _, _, source, target, number, place, at = record
        self.figures["delivered"] += 1
        where = f"{_name(target)} in {file.path.stem}"
        which = f"{_name(target)} in {file.path.stem}: number {number} of {self._sender(source)}"
        stream = self._streams.get((source, target))
        if stream is None or number >= len(stream.state):
            self.faults["never sent"].add(where, which)
            return
        if place != target:
            self.faults["wrong channel"].add(where, f"{which} on channel {place}")
        if stream.received[number]:
            self.faults["doubled"].add(where, which)
            return
        stream.received[number] = at
        if stream.state[number] == Kind.REFUSED:
            self.faults["refused and delivered"].add(where, which)
        self._check_order(file, record, which)
        alias = CHANNEL_OF[target].alias if target in CHANNEL_OF else MAIN
        expiry_s = SHORT_EXPIRY_S if alias == SHORT else MAIN_EXPIRY_S
        if stream.ended[number] and at > stream.ended[number] + expiry_s + LATE_S:
            expired_at = stream.ended[number] + expiry_s
            if not self._was_stopped(file.incarnation, expired_at, at):
                self.faults["delivered after expiry"].add(where, f"{which}, {at - expired_at:.1f} s late")

    def _check_order(self, file: JournalFile, record: Record, which: str) -> None:
        _, unit, _, source, target, number, _, _ = record
        channel = CHANNEL_OF.get(target)
        key: tuple[int, ...]
        if channel is not None and channel.puts_back:
            return
        if channel is not None and (channel.shared or unit):
            key = (source, target, file.incarnation, unit)
        else:
            key = (source, target)
        if number < self._last.get(key, -1):
            self.faults["swapped"].add(_name(target), f"{which} after {self._last[key]}")
        else:
            self._last[key] = number

    def _was_stopped(self, incarnation: int, since: float, until: float) -> bool:
        return any(begin <= until and end >= since for begin, end in self._times.stops.get(incarnation, ()))

    # Broadcasts

    def _broadcast(self, file: JournalFile, record: Record, members: dict[tuple[int, int], Seen]) -> None:
        _, _, _, source, _, number, place, _ = record
        self.figures["delivered"] += 1
        self.figures["broadcasts delivered"] += 1
        seen = members.get((place, source))
        if seen is None:
            seen = members[place, source] = Seen(number)
        where = f"broadcasts in {file.path.stem}"
        which = f"broadcast {number} of {self._sender(source)} to {place} in {file.path.stem}"
        if seen.add(number):
            self.faults["doubled"].add(where, which)
            return
        if number < seen.last:
            self.faults["swapped"].add(where, f"{which} after {seen.last}")
        seen.last = max(seen.last, number)
        stream = self._streams.get((source, GROUP_ID))
        if stream is None or number >= len(stream.state):
            self.faults["never sent"].add(where, which)
        elif 0 < stream.ended[number] < self._joining.get(place, 0.0):
            self.faults["delivered to later members"].add(where, which)

    def _look_for_missed(
        self, file: JournalFile, place: int, joined_at: float, members: dict[tuple[int, int], Seen]
    ) -> None:
        for (source, target), stream in self._streams.items():
            if target != GROUP_ID:
                continue
            seen = members.get((place, source))
            for number, state in enumerate(stream.state):
                if state == Kind.SENT and stream.began[number] > joined_at and (seen is None or number not in seen):
                    self.faults["broadcasts missed"].add(
                        f"in {file.path.stem}",
                        f"{number} of {self._sender(source)} by {place} in {file.path.stem}, "
                        f"sent at {stream.ended[number]:.3f}",
                    )

    # Losses

    def _look_for_losses(self) -> None:
        lost: list[Loss] = []
        for (source, target), stream in self._streams.items():
            if target == GROUP_ID:
                continue
            channel = CHANNEL_OF.get(target)
            if channel is not None and channel.alias == SHORT:
                continue  # they expire
            if target >= FIRST_SPECIFIC_ID and target not in self._times.living:
                continue  # they went with their channel
            lost += _lost(stream, source, target)
        self.figures["not delivered"] = len(lost)
        left = unexplained(lost, self._times.deaths)
        self.figures["held by killed readers"] = len(lost) - len(left)
        for loss in left:
            which = f"number {loss.number} of {self._sender(loss.source)}"
            self.faults["lost"].add(_name(loss.channel), f"{_name(loss.channel)}: {which}, sent at {loss.sent_at:.3f}")

    def _sender(self, source: int) -> str:
        return f"{source} ({self._slot_of.get(source // SOURCES, '?')})"


def _lost(stream: Stream, source: int, target: int) -> list[Loss]:
    lost: list[Loss] = []
    next_received = float("inf")
    for number in range(len(stream.state) - 1, -1, -1):
        if stream.received[number]:
            next_received = stream.received[number]
        elif stream.state[number] == Kind.SENT:
            lost.append(Loss(target, source, number, stream.began[number], stream.ended[number], next_received))
    return lost


def _name(target: int) -> str:
    channel = CHANNEL_OF.get(target)
    return channel.name if channel is not None else f"channel {target}"
