"""Turns the runs into a Markdown report and into JSON."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from .layers import CANDIDATES, OURS
from .measures import Metric, Run, Spread
from .scenarios import SCENARIOS, Scenario

__all__ = ["to_json", "to_markdown"]


def to_markdown(runs: Sequence[Run], host: Mapping[str, str], command: str) -> str:
    """Return the head and one table per scenario."""
    legend = (
        "Each cell: median (lowest to highest) of the repetitions, then, behind `x`, how many times the figure of"
        f" {OURS.title} it is. Lost, twice and out of order count deliveries, over all repetitions; retries are sends"
        " repeated after ChannelFull."
    )
    head = [
        "# Channel layers on one machine",
        "",
        f"Made by `{command}`. {legend}",
        "",
        *(f"- {name}: {value}" for name, value in host.items()),
    ]
    tables = [_table(scenario, runs) for scenario in SCENARIOS.values() if _of(runs, scenario.key)]
    return "\n".join(head) + "\n" + "".join(f"\n{table}" for table in tables)


def to_json(runs: Sequence[Run], host: Mapping[str, str], command: str) -> str:
    """Return ``{"command", "host", "summary": [...], "runs": [...]}``; figures without a value are null."""
    summary = [
        {
            "scenario": scenario.key,
            "layer": layer,
            "metric": metric.key,
            "unit": metric.unit,
            "higher_is_better": metric.higher_is_better,
            **dataclasses.asdict(spread),
            "ratio_to_ours": _ratio(runs, scenario.key, layer, metric),
        }
        for scenario in SCENARIOS.values()
        for layer in CANDIDATES
        for metric in scenario.metrics
        if (spread := _spread(_of(runs, scenario.key, layer), metric)) is not None
    ]
    plain_runs = [_without_nan(dataclasses.asdict(run)) for run in runs]
    document = {"command": command, "host": dict(host), "summary": summary, "runs": plain_runs}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _without_nan(run: dict[str, object]) -> dict[str, object]:
    values = run["values"]
    if isinstance(values, dict):
        run["values"] = {key: None if math.isnan(value) else value for key, value in values.items()}
    return run


def _of(runs: Sequence[Run], scenario: str, layer: str | None = None) -> list[Run]:
    return [run for run in runs if run.scenario == scenario and layer in (None, run.layer)]


def _spread(runs: Sequence[Run], metric: Metric) -> Spread | None:
    values = [run.values[metric.key] for run in runs if run.outcome == "ok"]
    measured = [value for value in values if not math.isnan(value)]
    return Spread.of(measured) if measured else None


def _ratio(runs: Sequence[Run], scenario: str, layer: str, metric: Metric) -> float | None:
    ours = _spread(_of(runs, scenario, OURS.key), metric)
    theirs = _spread(_of(runs, scenario, layer), metric)
    if ours is None or theirs is None or not ours.median:
        return None
    return theirs.median / ours.median


def _table(scenario: Scenario, runs: Sequence[Run]) -> str:
    titles = [f"{metric.title}, {metric.unit}" for metric in scenario.metrics]
    header = ["layer", *titles, "lost", "twice", "out of order", "retries", "remarks"]
    rows = [header, ["---", *["---:"] * (len(header) - 2), "---"]]
    for layer, candidate in CANDIDATES.items():
        mine = _of(runs, scenario.key, layer)
        if not mine:
            continue
        cells = [_cell(runs, scenario.key, layer, metric) for metric in scenario.metrics]
        rows.append([candidate.title, *cells, *_faults(mine), _remarks(mine)])
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"## {scenario.title}\n\n{lines}"


def _cell(runs: Sequence[Run], scenario: str, layer: str, metric: Metric) -> str:
    spread = _spread(_of(runs, scenario, layer), metric)
    if spread is None:
        return "-"
    figures = f"{_round(spread.median)} ({_round(spread.lowest)} to {_round(spread.highest)})"
    ratio = None if layer == OURS.key else _ratio(runs, scenario, layer, metric)
    return figures if ratio is None else f"{figures} x{ratio:.3g}"


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _faults(runs: Sequence[Run]) -> list[str]:
    finished = [run.counts for run in runs if run.outcome == "ok"]
    if not finished:
        return ["-"] * 4
    expected = sum(counts.expected for counts in finished)
    sums = (
        sum(counts.lost for counts in finished),
        sum(counts.twice for counts in finished),
        sum(counts.disordered for counts in finished),
    )
    return [
        *(f"{each:,} of {expected:,}" if each else "0" for each in sums),
        f"{sum(counts.retries for counts in finished):,}",
    ]


def _remarks(runs: Sequence[Run]) -> str:
    """Return how many repetitions did not end well, and why."""
    reasons = Counter(f"{run.outcome}, {run.remark}" for run in runs if run.remark)
    return "; ".join(
        f"{number} of {len(runs)} {reason}".replace("|", "/").replace("\n", " ") for reason, number in reasons.items()
    )
