"""What a scenario is made of."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.measures import Account, Metric
from tests.benchmarks.player import Player

__all__ = ["Accounts", "Role", "Scenario"]

Accounts = Mapping[str, Sequence[Account]]
"""Role name to the accounts of its players, in the order of their index."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """A part that ``count`` processes play."""

    name: str
    play: Callable[[Player], Awaitable[Account]]
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One thing to measure. ``figures`` makes a value for each of ``metrics`` from what the players saw.

    ``stretch`` multiplies the seconds of the effort, for what sends slowly on purpose.
    """

    key: str
    title: str
    roles: tuple[Role, ...]
    metrics: tuple[Metric, ...]
    figures: Callable[[Accounts], Mapping[str, float]]
    stretch: float = 1.0

    @property
    def processes(self) -> int:
        """How many processes it takes with a layer that crosses them."""
        return sum(role.count for role in self.roles)
