"""The benchmarks' own arithmetic and report, and one run of the smallest effort."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.benchmarks.layers import CANDIDATES
from tests.benchmarks.measures import Account, Counts, Outcome, Run, Spread, count_faults, identity, percentile, rate
from tests.benchmarks.report import to_json, to_markdown
from tests.benchmarks.scenarios import SCENARIOS

RUN_LIMIT_S = 240


def a_run(
    scenario: str,
    layer: str,
    values: Mapping[str, float],
    *,
    outcome: Outcome = "ok",
    remark: str = "",
    counts: Counts | None = None,
    series: Sequence[Mapping[str, float]] = (),
) -> Run:
    return Run(
        scenario=scenario,
        layer=layer,
        repetition=0,
        outcome=outcome,
        remark=remark,
        seconds=1.0,
        values=values,
        counts=counts or Counts(),
        series=series,
    )


def the_row_of(layer: str, report: str) -> list[str]:
    """The cells of a layer's row in the only table that has one."""
    title = CANDIDATES[layer].title
    rows = [line for line in report.splitlines() if line.startswith(f"| {title} |")]
    assert len(rows) == 1
    return [cell.strip() for cell in rows[0].strip("|").split("|")]


def test_a_percentile_is_one_of_the_samples() -> None:
    samples = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert percentile(samples, 50) == 3.0
    assert percentile(samples, 99) == 5.0
    assert percentile(samples, 1) == 1.0
    assert percentile([7.0], 50) == 7.0


def test_a_percentile_of_nothing_is_nan() -> None:
    assert math.isnan(percentile([], 50))


def test_a_spread_is_median_lowest_and_highest() -> None:
    assert Spread.of([3.0, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0)
    with pytest.raises(ValueError, match="no repetition"):
        Spread.of([])


def test_the_rate_counts_each_delivery_once_from_the_first_send_to_the_last_receive() -> None:
    sender = Account(sent=[1, 2, 3, 4], first_ns=1_000_000_000)
    readers = [Account(received=[1, 2, 3], last_ns=2_000_000_000), Account(received=[3, 4], last_ns=3_000_000_000)]
    assert rate([sender, *readers]) == pytest.approx(2.0)


def test_the_rate_of_what_never_arrived_is_nan() -> None:
    assert math.isnan(rate([Account(sent=[1], first_ns=1)]))


def test_a_clean_run_has_no_faults() -> None:
    accounts = [Account(sent=[1, 2, 3]), Account(received=[1, 3]), Account(received=[2])]
    assert count_faults(accounts) == Counts(expected=3)


def test_lost_and_doubled_deliveries_are_counted_over_all_readers() -> None:
    accounts = [Account(sent=[1, 2, 3, 4], retries=5), Account(received=[1, 2]), Account(received=[2, 2])]
    assert count_faults(accounts) == Counts(expected=4, lost=2, twice=2, retries=5)


def test_disorder_is_judged_within_a_stream_and_a_reader() -> None:
    two_streams = Account(received=[identity(1, 0), identity(0, 5), identity(1, 1), identity(0, 6)])
    another_reader = Account(received=[identity(0, 4)])
    late = Account(received=[identity(2, 3), identity(2, 2), identity(2, 4)])
    assert count_faults([two_streams, another_reader]).disordered == 0
    assert count_faults([late]).disordered == 1


def test_an_open_ended_run_misses_only_what_was_overtaken() -> None:
    accounts = [
        Account(sent=[identity(0, number) for number in range(10)]),
        Account(sent=[identity(1, 0)]),
        Account(received=[identity(0, 0), identity(0, 2), identity(0, 3)]),
    ]
    assert count_faults(accounts, open_ended=True) == Counts(expected=4, lost=1)
    assert count_faults(accounts) == Counts(expected=11, lost=8)


def test_the_table_shows_the_spread_of_the_repetitions_and_the_ratio_to_ours() -> None:
    runs = [
        *(a_run("ping-pong", "sqlite", {"p50": value, "p99": 2 * value}) for value in (300.0, 100.0, 200.0)),
        a_run("ping-pong", "redis-core", {"p50": 500.0, "p99": math.nan}),
    ]
    report = to_markdown(runs, {"CPU": "fast"}, "the command")
    assert the_row_of("sqlite", report)[1] == "200 (100 to 300)"
    assert the_row_of("redis-core", report)[1:3] == ["500 (500 to 500) x2.5", "-"]
    assert "- CPU: fast\n" in report
    assert "`the command`" in report


def test_the_table_shows_what_a_backlog_costs_the_same_layer() -> None:
    runs = [
        a_run("ping-pong", "sqlite", {"p50": 100.0, "p99": 100.0}),
        a_run("ping-pong-backlog", "sqlite", {"p50": 110.0, "p99": 150.0}),
    ]
    plain, _, with_backlog = to_markdown(runs, {}, "").partition("(`ping-pong-backlog`)")
    assert the_row_of("sqlite", plain)[1] == "100 (100 to 100)"
    assert the_row_of("sqlite", with_backlog)[1:3] == ["110 (110 to 110) =1.1", "150 (150 to 150) =1.5"]
    assert the_row_of("sqlite", to_markdown(runs[1:], {}, ""))[1] == "110 (110 to 110)"


def test_the_table_says_what_went_wrong() -> None:
    runs = [
        a_run("ping-pong", "sqlite", {"p50": 1.0, "p99": 1.0}, counts=Counts(expected=50, lost=1, twice=2)),
        a_run("ping-pong", "sqlite", {"p50": 1.0, "p99": 1.0}, counts=Counts(expected=50)),
        a_run("ping-pong", "postgres", {}, outcome="timed out", remark="no end after 50 s"),
    ]
    report = to_markdown(runs, {}, "", {"lite-aio": "not installed: channels_lite"})
    assert the_row_of("sqlite", report)[3:6] == ["1 of 100", "2 of 100", "0"]
    assert the_row_of("postgres", report)[1:] == ["-"] * 6 + ["1 of 1 timed out, no end after 50 s"]
    assert "- Left out: channels-lite aio (not installed: channels_lite)\n" in report


def test_the_summary_has_a_column_for_each_layer_and_marks_what_went_wrong() -> None:
    runs = [
        a_run("ping-pong", "sqlite", {"p50": 200.0, "p99": 400.0}),
        a_run("ping-pong", "redis-core", {"p50": 500.0, "p99": 400.0}, counts=Counts(expected=9, twice=1)),
        a_run("ping-pong", "postgres", {}, outcome="timed out", remark="no end after 50 s"),
        a_run("ping-pong", "redis-pubsub", {}, outcome="left out", remark="for a reason"),
    ]
    summary = to_markdown(runs, {}, "").partition("## Summary")[2].partition("\n## ")[0]
    assert "| ping-pong | p50, us | 200 | 500 [2.5] ! | - | - ! |\n" in summary
    assert "| ping-pong | p99, us | 400 | 400 [1] ! | - | - ! |\n" in summary


def test_a_long_run_has_a_row_for_each_minute() -> None:
    rows = [{"minute": 1, "rate": 1000.0, "p99": 900.0, "file": 2.0, "wal": math.nan}]
    values = {"rate": 1000.0, "p50": 300.0, "p99": 900.0}
    report = to_markdown([a_run("steady", "memory", values, series=rows)], {}, "")
    assert f"| {CANDIDATES['memory'].title} | 1 | 1,000 | 900 | 2 | - |\n" in report


def test_the_json_holds_runs_and_summary_and_null_where_there_is_no_figure() -> None:
    runs = [
        a_run("ping-pong", "sqlite", {"p50": 100.0, "p99": math.nan}),
        a_run("ping-pong", "memory", {"p50": 10.0, "p99": 20.0}),
    ]
    document = json.loads(to_json(runs, {"CPU": "fast"}, "the command", {"postgres": "why"}))
    assert document["left_out"] == {"postgres": "why"}
    assert [run["values"] for run in document["runs"]] == [{"p50": 100.0, "p99": None}, {"p50": 10.0, "p99": 20.0}]
    summary = {(each["layer"], each["metric"]): each for each in document["summary"]}
    assert summary["memory", "p50"]["ratio_to_ours"] == pytest.approx(0.1)
    assert summary["memory", "p99"]["ratio_to_ours"] is None
    assert ("sqlite", "p99") not in summary


@pytest.mark.parametrize("key", SCENARIOS)
def test_what_a_scenario_is_compared_with_has_the_same_metrics(key: str) -> None:
    scenario = SCENARIOS[key]
    assert scenario.key == key
    if scenario.base is not None:
        assert SCENARIOS[scenario.base].metrics == scenario.metrics


@pytest.mark.processes
@pytest.mark.timeout(RUN_LIMIT_S + 20)
def test_the_smallest_run_measures_ours_and_in_memory_without_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    scenarios = ["send-receive", "ping-pong"]
    options = [f"--scenario={scenario}" for scenario in scenarios]
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--seconds=0.02", f"--json={file}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(file.read_text())
    assert [(run["scenario"], run["layer"], run["outcome"]) for run in document["runs"]] == [
        (scenario, layer, "ok") for scenario in scenarios for layer in ("sqlite", "memory")
    ]
    for run in document["runs"]:
        counts = run["counts"]
        assert counts["expected"] > 0
        assert (counts["lost"], counts["twice"], counts["disordered"]) == (0, 0, 0)
        assert run["values"]["p50"] > 0
    for scenario in scenarios:
        assert f"(`{scenario}`)" in done.stdout
