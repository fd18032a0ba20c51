"""What a scenario is made of."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.measures import Account, Metric
from tests.benchmarks.player import Player
from tests.benchmarks.stores import Limits

__all__ = ["START_LIMIT_S", "Accounts", "Role", "Scenario"]

START_LIMIT_S = 60.0
"""A busy machine takes its time to start five processes."""

Accounts = Mapping[str, Sequence[Account]]
"""Role name to the accounts of its players, in the order of their index."""


def _nothing(accounts: Accounts) -> Sequence[Mapping[str, float]]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Role:
    """A part that ``count`` processes play.

    Before anyone plays, the processes open their layers one after another, in the order of the scenario's roles. Those
    that prepare the store for the others (``prepares``) have finished by then; what one of that name has stored is kept
    and copied, where a layer can, so that it plays once for all runs. ``opens`` is false for a role that does not use
    the layer.
    """

    name: str
    play: Callable[[Player], Awaitable[Account]]
    count: int = 1
    prepares: bool = False
    opens: bool = True


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One thing to measure. ``figures`` makes a value for each of ``metrics`` from what the players saw.

    ``stretch`` multiplies the seconds of the effort, for what sends slowly on purpose; ``start_limit_s`` is the time
    that getting ready may take. ``series`` are figures minute by minute, made by ``make_series``. ``base`` is the key
    of the scenario without backlog that this one is compared with. ``varies``: it is a variation of another scenario
    without being compared with it. ``open_ended`` is explained at ``count_faults``.
    ``layers``: the keys of those that it is for, all layers where there are none. ``of_tasks``: it is about tasks, and
    its figures have a table of their own.
    ``once``: not repeated, and of a length of its own; ``in_quick``: whether the quick variant has it.
    """

    key: str
    title: str
    roles: tuple[Role, ...]
    metrics: tuple[Metric, ...]
    figures: Callable[[Accounts], Mapping[str, float]]
    stretch: float = 1.0
    start_limit_s: float = START_LIMIT_S
    limits: Limits = field(default_factory=Limits)
    series: tuple[Metric, ...] = ()
    make_series: Callable[[Accounts], Sequence[Mapping[str, float]]] = _nothing
    base: str | None = None
    varies: bool = False
    open_ended: bool = False
    layers: tuple[str, ...] = ()
    of_tasks: bool = False
    once: bool = False
    in_quick: bool = True

    @property
    def is_variation(self) -> bool:
        """Whether it comes in the table behind the main one."""
        return self.varies or self.base is not None

    @property
    def processes(self) -> int:
        """How many processes it takes with a layer that crosses them."""
        return sum(role.count for role in self.roles)

    @property
    def turns(self) -> dict[tuple[str, int], int]:
        """Which place each player that opens the layer has in the order of opening."""
        opening = [role for role in self.roles if role.opens and not role.prepares]
        players = [(role.name, index) for role in opening for index in range(role.count)]
        return {player: turn for turn, player in enumerate(players)}

    @property
    def preparers(self) -> int:
        """How many players prepare the store."""
        return sum(role.count for role in self.roles if role.prepares)
