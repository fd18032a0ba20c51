"""What a program run has measured so far, and the figures looked up in it by scenario, layer and metric."""

import math
from collections.abc import Sequence

from .layers import OURS
from .measures import Run, Spread
from .scenarios import SCENARIOS

__all__ = ["Results"]


class Results:
    """The runs, in the order in which they were made."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs

    def of(self, scenario: str, layer: str | None = None) -> list[Run]:
        """Return the repetitions of ``scenario``, over one layer or all."""
        return [run for run in self.runs if run.scenario == scenario and layer in (None, run.layer)]

    def spread(self, scenario: str, layer: str, metric: str) -> Spread | None:
        """Return the spread of a figure over the repetitions; None when none of them gave it."""
        values = [run.values[metric] for run in self.of(scenario, layer) if run.outcome == "ok"]
        measured = [value for value in values if not math.isnan(value)]
        return Spread.of(measured) if measured else None

    def median(self, scenario: str, layer: str, metric: str) -> float:
        """Return the median of a figure, NaN when there is none."""
        spread = self.spread(scenario, layer, metric)
        return math.nan if spread is None else spread.median

    def ratio_to_ours(self, scenario: str, layer: str, metric: str) -> float | None:
        """Return how many times our figure it is; None when one of the two is missing."""
        return _quotient(self.median(scenario, layer, metric), self.median(scenario, OURS.key, metric))

    def ratio_to_base(self, scenario: str, layer: str, metric: str) -> float | None:
        """Return how many times the same layer's figure without backlog it is; None when there is none."""
        base = SCENARIOS[scenario].base
        if base is None:
            return None
        return _quotient(self.median(scenario, layer, metric), self.median(base, layer, metric))


def _quotient(above: float, below: float) -> float | None:
    return None if math.isnan(above) or math.isnan(below) or not below else above / below
