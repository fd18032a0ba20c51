"""Which losses killed readers explain.

A killed reader takes at most one message for each of its waiting receive(), and nothing but what it had claimed when
it was killed. Messages are claimed in order, so that a lost one was claimed before the next one of its sender was
received (unless several readers give messages back, see `NormalChannel.puts_back`). So each loss has a time before
which its reader must have been killed, or stopped for good, and each kill has so many places; they are matched,
earliest end first.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tests.endurance.crew import Death
from tests.endurance.plan import CHANNEL_OF

SLACK_S = 3.0
"""Between claiming a message and writing it down: the loop may be blocked for so long."""


@dataclass(frozen=True)
class Loss:
    """A message that was sent and not received; `next_received` is when a later one of its sender was, or infinity."""

    channel: int
    source: int
    number: int
    began_at: float
    sent_at: float
    next_received: float


def unexplained(losses: Iterable[Loss], deaths: Iterable[Death]) -> list[Loss]:
    """The losses for which no kill of a reader is left."""
    by_channel: defaultdict[int, list[Loss]] = defaultdict(list)
    for loss in losses:
        by_channel[loss.channel].append(loss)
    kills = sorted((death for death in deaths if death.how != "ended"), key=lambda death: death.at)
    left: list[Loss] = []
    for channel, lost in by_channel.items():
        left += _unmatched(channel, lost, kills)
    return left


def _unmatched(channel_id: int, losses: list[Loss], kills: list[Death]) -> list[Loss]:
    channel = CHANNEL_OF.get(channel_id)
    if channel is None:
        return losses
    places = Counter({kill.incarnation: channel.receivers.get(kill.slot, 0) for kill in kills})
    left = []
    for loss in sorted(losses, key=lambda loss: loss.next_received):
        latest = float("inf") if channel.puts_back else loss.next_received + SLACK_S
        for kill in kills:
            if places[kill.incarnation] and kill.at >= loss.began_at and kill.held_since <= latest:
                places[kill.incarnation] -= 1
                break
        else:
            left.append(loss)
    return left
