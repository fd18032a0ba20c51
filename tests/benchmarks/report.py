"""Turns the runs into a Markdown report and into JSON."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .layers import CANDIDATES, OURS
from .measures import Metric, Run, Spread
from .scenarios import SCENARIOS, Scenario

__all__ = ["is_faulty", "to_json", "to_markdown"]


def to_markdown(
    runs: Sequence[Run], host: Mapping[str, str], command: str, left_out: Mapping[str, str] | None = None
) -> str:
    """Return the head, a summary and one table per scenario. ``left_out`` says why, by the layer's key."""
    legend = (
        "Each cell: median (lowest to highest) of the repetitions, then, behind `x`, how many times the figure of"
        f" {OURS.title} it is. With a backlog, behind `=`, how many times the same layer's figure without backlog."
        " Lost, twice and out of order count deliveries, over all repetitions; retries are sends repeated after"
        " ChannelFull."
    )
    head = [
        "# Channel layers on one machine",
        "",
        f"Made by `{command}`. {legend}",
        "",
        *(f"- {name}: {value}" for name, value in host.items()),
        *(f"- Left out: {CANDIDATES[layer].title} ({reason})" for layer, reason in (left_out or {}).items()),
    ]
    tables = [_table(scenario, runs) for scenario in SCENARIOS.values() if _of(runs, scenario.key)]
    return "\n".join(head) + "\n" + "".join(f"\n{table}" for table in (_summary(runs), *tables))


def to_json(
    runs: Sequence[Run], host: Mapping[str, str], command: str, left_out: Mapping[str, str] | None = None
) -> str:
    """Return ``{"command", "host", "left_out", "summary": [...], "runs": [...]}``; figures without a value are null."""
    summary = [
        {
            "scenario": scenario.key,
            "layer": layer,
            "metric": metric.key,
            "unit": metric.unit,
            "higher_is_better": metric.higher_is_better,
            **dataclasses.asdict(spread),
            "ratio_to_ours": _ratio(runs, scenario.key, layer, metric),
            "ratio_to_base": _ratio_to_base(runs, scenario, layer, metric),
        }
        for scenario in SCENARIOS.values()
        for layer in CANDIDATES
        for metric in scenario.metrics
        if (spread := _spread(_of(runs, scenario.key, layer), metric)) is not None
    ]
    plain_runs = [_without_nan(dataclasses.asdict(run)) for run in runs]
    document = {
        "command": command,
        "host": dict(host),
        "left_out": dict(left_out or {}),
        "summary": summary,
        "runs": plain_runs,
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _without_nan(run: dict[str, Any]) -> dict[str, Any]:
    """Return the run with None for NaN, which JSON has not. Any: what dataclasses.asdict makes of a Run."""
    run["values"] = _known(run["values"])
    run["series"] = [_known(row) for row in run["series"]]
    return run


def _known(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def _of(runs: Sequence[Run], scenario: str, layer: str | None = None) -> list[Run]:
    return [run for run in runs if run.scenario == scenario and layer in (None, run.layer)]


def _spread(runs: Sequence[Run], metric: Metric) -> Spread | None:
    values = [run.values[metric.key] for run in runs if run.outcome == "ok"]
    measured = [value for value in values if not math.isnan(value)]
    return Spread.of(measured) if measured else None


def _ratio(runs: Sequence[Run], scenario: str, layer: str, metric: Metric) -> float | None:
    return _quotient(_of(runs, scenario, layer), _of(runs, scenario, OURS.key), metric)


def _ratio_to_base(runs: Sequence[Run], scenario: Scenario, layer: str, metric: Metric) -> float | None:
    if scenario.base is None:
        return None
    return _quotient(_of(runs, scenario.key, layer), _of(runs, scenario.base, layer), metric)


def _quotient(runs: Sequence[Run], others: Sequence[Run], metric: Metric) -> float | None:
    above, below = _spread(runs, metric), _spread(others, metric)
    if above is None or below is None or not below.median:
        return None
    return above.median / below.median


def _summary(runs: Sequence[Run]) -> str:
    """Return one table of all medians: a row for each figure, a column for each layer."""
    layers = [layer for layer in CANDIDATES if any(run.layer == layer for run in runs)]
    rows = [
        ["scenario", "figure", *(CANDIDATES[layer].title for layer in layers)],
        ["---", "---", *["---:"] * len(layers)],
    ]
    for scenario in SCENARIOS.values():
        if not _of(runs, scenario.key):
            continue
        for metric in scenario.metrics:
            cells = [_short_cell(runs, scenario.key, layer, metric) for layer in layers]
            rows.append([scenario.key, f"{metric.title}, {metric.unit}", *cells])
    legend = (
        f"Medians, and in brackets how many times the figure of {OURS.title}. `!`: something was lost, doubled, out of"
        " order or went wrong; the scenario's own table says what."
    )
    return f"## Summary\n\n{legend}\n\n{_lines(rows)}"


def _short_cell(runs: Sequence[Run], scenario: str, layer: str, metric: Metric) -> str:
    mine = _of(runs, scenario, layer)
    spread = _spread(mine, metric)
    figure = "-" if spread is None else _round(spread.median)
    ratio = None if layer == OURS.key else _ratio(runs, scenario, layer, metric)
    mark = " !" if any(is_faulty(run) for run in mine) else ""
    return figure + (f" [{ratio:.3g}]" if ratio is not None else "") + mark


def is_faulty(run: Run) -> bool:
    """Return whether a run did not end well, or lost, doubled or reordered something."""
    if run.outcome == "left out":
        return False
    return run.outcome != "ok" or bool(run.remark or run.counts.lost or run.counts.twice or run.counts.disordered)


def _table(scenario: Scenario, runs: Sequence[Run]) -> str:
    titles = [f"{metric.title}, {metric.unit}" for metric in scenario.metrics]
    header = ["layer", *titles, "lost", "twice", "out of order", "retries", "remarks"]
    rows = [header, ["---", *["---:"] * (len(header) - 2), "---"]]
    for layer, candidate in CANDIDATES.items():
        mine = _of(runs, scenario.key, layer)
        if not mine:
            continue
        cells = [_cell(runs, scenario, layer, metric) for metric in scenario.metrics]
        rows.append([candidate.title, *cells, *_faults(mine), _remarks(mine)])
    return f"## {scenario.title} (`{scenario.key}`)\n\n{_lines(rows)}" + _series_table(scenario, runs)


def _series_table(scenario: Scenario, runs: Sequence[Run]) -> str:
    """Return what a long run did over time, a row for each minute; nothing for other scenarios."""
    if not scenario.series:
        return ""
    titles = [f"{metric.title}, {metric.unit}" if metric.unit else metric.title for metric in scenario.series]
    rows = [["layer", *titles], ["---", *["---:"] * len(titles)]]
    for run in _of(runs, scenario.key):
        for values in run.series:
            known = [values.get(metric.key, math.nan) for metric in scenario.series]
            cells = ["-" if math.isnan(value) else _round(value) for value in known]
            rows.append([CANDIDATES[run.layer].title, *cells])
    return f"\n{_lines(rows)}"


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(runs: Sequence[Run], scenario: Scenario, layer: str, metric: Metric) -> str:
    spread = _spread(_of(runs, scenario.key, layer), metric)
    if spread is None:
        return "-"
    figures = f"{_round(spread.median)} ({_round(spread.lowest)} to {_round(spread.highest)})"
    ratio = None if layer == OURS.key else _ratio(runs, scenario.key, layer, metric)
    to_base = _ratio_to_base(runs, scenario, layer, metric)
    if ratio is not None:
        figures += f" x{ratio:.3g}"
    if to_base is not None:
        figures += f" ={to_base:.3g}"
    return figures


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
