"""Turns the runs into a Markdown report and into JSON."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .layers import CANDIDATES, OURS
from .measures import Metric, Run
from .results import Results
from .scenarios import SCENARIOS, Scenario
from .targets import judge

__all__ = ["is_faulty", "to_json", "to_markdown"]


def to_markdown(
    runs: Sequence[Run], host: Mapping[str, str], command: str, left_out: Mapping[str, str] | None = None
) -> str:
    """Return the head, the targets, the figures and what went wrong. ``left_out`` says why, by the layer's key."""
    results = Results(runs)
    lines = [
        "# Channel layers on one machine",
        "",
        f"Made by `{command}`:",
        "",
        *(f"- {name}: {value}" for name, value in host.items()),
        *(f"- Left out: {CANDIDATES[layer].title} ({reason})" for layer, reason in (left_out or {}).items()),
    ]
    measured = [scenario for scenario in SCENARIOS.values() if results.of(scenario.key)]
    parts = (
        _section("Targets", "", _targets(results)),
        _section(
            "Figures",
            f"Median (lowest to highest) of the repetitions; in brackets how many times the figure of {OURS.title}."
            " `!`: something was lost, doubled, out of order or went wrong; see below.",
            _figures(results, [each for each in measured if not each.is_variation and not each.of_tasks]),
        ),
        _section(
            "Tasks",
            "Likewise; behind `=`, how many times the same figure without what is stored beside.",
            _figures(results, [each for each in measured if each.of_tasks]),
        ),
        _section(
            "With a backlog, and with more processes",
            "Likewise; behind `=`, how many times the same layer's figure without backlog.",
            _figures(results, [each for each in measured if each.is_variation and not each.of_tasks]),
        ),
        _section(
            "What went wrong",
            "Deliveries lost, twice and out of order, over all repetitions; retries are sends repeated after"
            " ChannelFull. Layers that are not listed had none.",
            _faults(results, measured),
        ),
        *(_section(scenario.title, "", _series(results, scenario)) for scenario in measured if scenario.series),
    )
    return "".join([*(f"{line}\n" for line in lines), *parts])


def to_json(
    runs: Sequence[Run], host: Mapping[str, str], command: str, left_out: Mapping[str, str] | None = None
) -> str:
    """Return command, host, left_out, targets, summary and runs as an object; figures without a value are null."""
    results = Results(runs)
    summary = [
        {
            "scenario": scenario.key,
            "layer": layer,
            "metric": metric.key,
            "unit": metric.unit,
            "higher_is_better": metric.higher_is_better,
            **dataclasses.asdict(spread),
            "ratio_to_ours": results.ratio_to_ours(scenario.key, layer, metric.key),
            "ratio_to_base": results.ratio_to_base(scenario.key, layer, metric.key),
        }
        for scenario in SCENARIOS.values()
        for layer in CANDIDATES
        for metric in scenario.metrics
        if (spread := results.spread(scenario.key, layer, metric.key)) is not None
    ]
    document = {
        "command": command,
        "host": dict(host),
        "left_out": dict(left_out or {}),
        "targets": [
            {**dataclasses.asdict(target), "seen": _or_none(target.seen), "is_met": target.is_met}
            for target in judge(results)
        ],
        "summary": summary,
        "runs": [_without_nan(dataclasses.asdict(run)) for run in runs],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _without_nan(run: dict[str, Any]) -> dict[str, Any]:
    """Return the run with None for NaN, which JSON has not. Any: what dataclasses.asdict makes of a Run."""
    run["values"] = {key: _or_none(value) for key, value in run["values"].items()}
    run["series"] = [{key: _or_none(value) for key, value in row.items()} for row in run["series"]]
    return run


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def is_faulty(run: Run) -> bool:
    """Return whether a run did not end well, or lost, doubled or reordered something."""
    if run.outcome == "left out":
        return False
    return run.outcome != "ok" or bool(run.remark or run.counts.lost or run.counts.twice or run.counts.disordered)


def _targets(results: Results) -> list[list[str]]:
    rows = [["scenario", "figure", "wanted", "seen", "met"], ["---", "---", "---", "---:", "---"]]
    verdicts = {True: "yes", False: "**no**", None: "not measured"}
    for each in judge(results):
        wanted = f"{each.bound} {_round(each.limit)}"
        rows.append([each.scenario, each.figure, wanted, _round(each.seen), verdicts[each.is_met]])
    return rows


def _figures(results: Results, scenarios: Sequence[Scenario]) -> list[list[str]]:
    """Return a row for each figure, with a column for each layer."""
    keys = {scenario.key for scenario in scenarios}
    layers = [layer for layer in CANDIDATES if any(run.layer == layer for run in results.runs if run.scenario in keys)]
    rows = [
        ["scenario", "figure", *(CANDIDATES[layer].title for layer in layers)],
        ["---", "---", *["---:"] * len(layers)],
    ]
    for scenario in scenarios:
        for metric in (each for each in scenario.metrics if not each.detail):
            cells = [_cell(results, scenario.key, layer, metric) for layer in layers]
            rows.append([scenario.key, f"{metric.title}, {metric.unit}", *cells])
    return rows


def _cell(results: Results, scenario: str, layer: str, metric: Metric) -> str:
    spread = results.spread(scenario, layer, metric.key)
    if spread is None:
        cell = "-"
    elif spread.lowest == spread.highest:
        cell = _round(spread.median)
    else:
        cell = f"{_round(spread.median)} ({_round(spread.lowest)} to {_round(spread.highest)})"
    ratio = results.ratio_to_ours(scenario, layer, metric.key)
    if ratio is not None and layer != OURS.key and metric.compared:
        cell += f" [{_round(ratio)}]"
    to_base = results.ratio_to_base(scenario, layer, metric.key)
    if to_base is not None:
        cell += f" ={_round(to_base)}"
    return cell + (" !" if any(is_faulty(run) for run in results.of(scenario, layer)) else "")


def _faults(results: Results, scenarios: Sequence[Scenario]) -> list[list[str]]:
    rows = [
        ["scenario", "layer", "lost", "twice", "out of order", "retries", "remarks"],
        ["---", "---", *["---:"] * 4, "---"],
    ]
    for scenario in scenarios:
        for layer, candidate in CANDIDATES.items():
            runs = results.of(scenario.key, layer)
            if any(run.remark or run.counts.retries or is_faulty(run) for run in runs):
                rows.append([scenario.key, candidate.title, *_counts(runs), _remarks(runs)])
    return rows


def _counts(runs: Sequence[Run]) -> list[str]:
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
    reasons = Counter(
        run.remark if run.outcome == "ok" else f"{run.outcome}, {run.remark}" for run in runs if run.remark
    )
    return "; ".join(
        f"{number} of {len(runs)} {reason}".replace("|", "/").replace("\n", " ") for reason, number in reasons.items()
    )


def _series(results: Results, scenario: Scenario) -> list[list[str]]:
    """Return what a long run did over time, a row for each minute."""
    titles = [f"{metric.title}, {metric.unit}" if metric.unit else metric.title for metric in scenario.series]
    rows = [["layer", *titles], ["---", *["---:"] * len(titles)]]
    for run in results.of(scenario.key):
        for values in run.series:
            cells = [_round(values.get(metric.key, math.nan)) for metric in scenario.series]
            rows.append([CANDIDATES[run.layer].title, *cells])
    return rows


def _section(title: str, legend: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a heading and a table; nothing when the table has but its head."""
    if len(rows) <= 2:
        return ""
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"\n## {title}\n\n" + (f"{legend}\n\n" if legend else "") + table


def _round(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
