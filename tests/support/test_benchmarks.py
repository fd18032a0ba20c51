"""The benchmarks' own arithmetic and report, and one run of the smallest effort."""

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import _parser, _steps
from tests.benchmarks.board import LocalBoard
from tests.benchmarks.layers import CANDIDATES
from tests.benchmarks.measures import Account, Counts, Outcome, Run, Spread, count_faults, identity, percentile, rate
from tests.benchmarks.report import to_json, to_markdown
from tests.benchmarks.results import Results
from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.targets import judge

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


def the_row(report: str, *beginning: str) -> list[str]:
    """The other cells of the only row that begins with these."""
    start = f"| {' | '.join(beginning)} | "
    rows = [line for line in report.splitlines() if line.startswith(start)]
    assert len(rows) == 1
    return [cell.strip() for cell in rows[0].removeprefix(start).removesuffix("|").split("|")]


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
    assert "| scenario | figure | channels_sqlite | channels_redis core |" in report
    assert the_row(report, "ping-pong", "p50, us") == ["200 (100 to 300)", "500 [2.5]"]
    assert the_row(report, "ping-pong", "p99, us") == ["400 (200 to 600)", "-"]
    assert "- CPU: fast\n" in report
    assert "`the command`" in report


def test_a_second_table_shows_what_a_backlog_costs_the_same_layer() -> None:
    runs = [
        a_run("ping-pong", "sqlite", {"p50": 100.0, "p99": 100.0}),
        a_run("ping-pong-backlog", "sqlite", {"p50": 110.0, "p99": 150.0}),
    ]
    main, _, second = to_markdown(runs, {}, "").partition("## With a backlog")
    assert the_row(main, "ping-pong", "p50, us") == ["100"]
    assert the_row(second, "ping-pong-backlog", "p50, us") == ["110 =1.1"]
    assert the_row(second, "ping-pong-backlog", "p99, us") == ["150 =1.5"]
    assert the_row(to_markdown(runs[1:], {}, ""), "ping-pong-backlog", "p50, us") == ["110"]


def test_the_report_marks_and_lists_what_went_wrong() -> None:
    runs = [
        a_run("ping-pong", "sqlite", {"p50": 1.0, "p99": 1.0}, counts=Counts(expected=50, lost=1, twice=2)),
        a_run("ping-pong", "sqlite", {"p50": 1.0, "p99": 1.0}, counts=Counts(expected=50)),
        a_run("ping-pong", "memory", {"p50": 1.0, "p99": 1.0}, counts=Counts(expected=50)),
        a_run("ping-pong", "redis-pubsub", {}, outcome="left out", remark="for a reason"),
        a_run("ping-pong", "postgres", {}, outcome="timed out", remark="no end after 50 s"),
    ]
    report = to_markdown(runs, {}, "", {"lite-aio": "not installed: channels_lite"})
    assert the_row(report, "ping-pong", "p50, us") == ["1 !", "1 [1]", "-", "- !"]
    assert the_row(report, "ping-pong", CANDIDATES["sqlite"].title) == ["1 of 100", "2 of 100", "0", "0", ""]
    remark = "1 of 1 timed out, no end after 50 s"
    assert the_row(report, "ping-pong", CANDIDATES["postgres"].title) == ["-", "-", "-", "-", remark]
    assert f"| ping-pong | {CANDIDATES['memory'].title} |" not in report
    assert "- Left out: channels-lite aio (not installed: channels_lite)\n" in report


def test_targets_are_judged_by_medians() -> None:
    runs = [
        *(a_run("ping-pong", "sqlite", {"p50": value, "p99": 100.0}) for value in (50.0, 60.0, 900.0)),
        a_run("ping-pong", "redis-pubsub", {"p50": 100.0, "p99": 99.0}),
    ]
    report = to_markdown(runs, {}, "")
    pubsub, core = CANDIDATES["redis-pubsub"].title, CANDIDATES["redis-core"].title
    assert the_row(report, "ping-pong", f"p50, times that of {pubsub}") == ["at most 0.9", "0.6", "yes"]
    assert the_row(report, "ping-pong", f"p99, times that of {pubsub}") == ["at most 1", "1.01", "**no**"]
    assert the_row(report, "ping-pong", f"p99, times that of {core}") == ["at most 1", "-", "not measured"]
    assert "| send-receive |" not in report


def test_every_target_is_met_or_missed_by_figures_that_its_scenarios_have() -> None:
    rows = [{"p99": float(minute), "file": 1.0, "wal": 1.0} for minute in range(1, 11)]
    runs = [
        a_run(scenario.key, layer, {metric.key: 1.0 for metric in scenario.metrics}, series=rows)
        for scenario in SCENARIOS.values()
        for layer in CANDIDATES
    ]
    verdicts = {(each.scenario, each.figure): each.is_met for each in judge(Results(runs))}
    assert None not in verdicts.values()
    assert verdicts["broadcast-1x10", f"rate, times that of {CANDIDATES['memory'].title}"]
    assert verdicts["work-queue", "lost, twice or out of order"]
    steady = [verdict for (scenario, _), verdict in verdicts.items() if scenario == "steady"]
    assert steady == [False, True, True]


def test_a_long_run_has_a_row_for_each_minute() -> None:
    rows = [{"minute": 1, "rate": 1000.0, "p99": 900.0, "file": 2.0, "wal": math.nan}]
    values = {"rate": 1000.0, "p50": 300.0, "p99": 900.0, "length": 60.0}
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
    assert {each["is_met"] for each in document["targets"]} == {None}


@pytest.mark.parametrize(
    ("arguments", "seconds"), [([], [600, 120]), (["--minutes=1"], [60, 60]), (["--peer-minutes=5"], [600, 300])]
)
def test_the_steady_scenario_is_shorter_over_other_layers(arguments: list[str], seconds: list[float]) -> None:
    options = _parser().parse_args(["--scenario=steady", *arguments])
    steps = _steps(options, ["sqlite", "memory"])
    assert [(step.layer, step.effort.seconds) for step in steps] == list(
        zip(["sqlite", "memory"], seconds, strict=True)
    )


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (a_run("ping-pong", "memory", {}, outcome="timed out"), True),
        (a_run("ping-pong", "memory", {}, outcome="failed"), False),
        (a_run("ping-pong", "memory", {"p50": math.nan, "p99": math.nan}), True),
        (a_run("ping-pong", "memory", {"p50": 1.0, "p99": math.nan}), False),
    ],
)
def test_a_run_without_a_figure_ran_out_of_time(run: Run, expected: bool) -> None:
    assert run.ran_out_of_time is expected


async def test_a_wish_is_answered_once_enough_was_published() -> None:
    board = LocalBoard()
    board.publish("key", 1)
    first = asyncio.ensure_future(board.wait_for("key"))
    second = asyncio.ensure_future(board.wait_for("key", 2))
    assert await first == [1]
    assert not second.done()
    board.publish("key", 2)
    assert await second == [1, 2]


async def test_a_wish_that_was_given_up_disturbs_nobody() -> None:
    board = LocalBoard()
    given_up = asyncio.ensure_future(board.wait_for("key"))
    await asyncio.sleep(0)
    given_up.cancel()
    board.publish("key", 1)
    assert await board.wait_for("key") == [1]


def steps_of(*arguments: str) -> list[tuple[str, str]]:
    """Scenarios and layers that are run once."""
    steps = _steps(_parser().parse_args(["--repetitions=1", *arguments]), list(CANDIDATES))
    return [(step.scenario, step.layer) for step in steps]


def test_a_beginning_stands_for_all_scenarios_that_have_it() -> None:
    steps = steps_of("websockets-2x300")
    layers = ["sqlite", "redis-core", "redis-pubsub"]
    assert sorted(steps) == sorted(
        (key, at) for key in ("websockets-2x300", "websockets-2x300-direct") for at in layers
    )
    assert {scenario for scenario, _ in steps_of("websockets")} == {key for key in SCENARIOS if "websockets" in key}
    assert {scenario for scenario, _ in steps_of("ping-pong-deep", "--scenario=idle")} == {"ping-pong-deep", "idle"}
    assert ("websockets-1x300", "memory") in steps_of("websockets")


def test_an_unknown_beginning_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        steps_of("webs")
    assert "no scenario's name is or begins with 'webs'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(
    "scenarios", [("websockets-1x100-direct", "websockets-1x100"), ("websockets-echo-100-direct",)]
)
def test_web_sockets_are_served_and_measured(scenarios: tuple[str, ...], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.benchmarks", *scenarios, "--layer=sqlite", "--repetitions=1"]
    done = subprocess.run([*command, "--seconds=0.3", f"--json={report}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs = json.loads(report.read_text())["runs"]
    assert {run["scenario"] for run in runs} == set(scenarios)
    for run in runs:
        assert (run["outcome"], run["remark"]) == ("ok", "")
        assert all(value > 0 for key, value in run["values"].items() if key != "memory")


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
    scenarios = ["send-receive", "ping-pong", "send-receive-backlog"]
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
        assert f"| {scenario} | p50, us | " in done.stdout


def test_scenarios_of_tasks_run_over_queues_of_tasks_and_the_others_over_layers() -> None:
    queues = {key for key, candidate in CANDIDATES.items() if not candidate.is_layer}
    assert {at for _, at in steps_of("tasks")} == {"sqlite", *queues}
    assert not {at for _, at in steps_of("send-receive", "idle")} & queues
    assert {at for _, at in steps_of("tasks-claim")} == {"sqlite"}


def test_tasks_have_a_table_of_their_own() -> None:
    runs = [
        a_run("ping-pong", "sqlite", {"p50": 100.0, "p99": 100.0}),
        a_run("tasks-run-2", "sqlite", {"rate": 1000.0}),
        a_run("tasks-run-2", "huey", {"rate": 500.0}),
    ]
    main, _, second = to_markdown(runs, {}, "").partition("## Tasks")
    assert "| scenario | figure | channels_sqlite |\n" in main
    assert "| scenario | figure | channels_sqlite | huey, SQLite |\n" in second
    assert the_row(second, "tasks-run-2", "rate, tasks/s") == ["1,000", "500 [0.5]"]
    assert the_row(main, "tasks-run-2", "rate, times that of huey, SQLite") == ["at least 1", "2", "yes"]


def test_what_is_stored_beside_may_cost_tasks_half_as_much_again() -> None:
    runs = [
        a_run("tasks-claim", "sqlite", {"p50": 100.0, "p99": 100.0, "rate": 1.0}),
        a_run("tasks-claim-beside", "sqlite", {"p50": 151.0, "p99": 100.0, "rate": 1.0}),
    ]
    figure = "enqueue, look and claim, p50, times that without backlog"
    assert the_row(to_markdown(runs, {}, ""), "tasks-claim-beside", figure) == ["at most 1.5", "1.51", "**no**"]
