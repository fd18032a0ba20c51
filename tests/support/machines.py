"""Running Hypothesis's state machines: sequences of operations, compared with a model."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

__all__ = ["run_histories"]


def run_histories(machine: type[RuleBasedStateMachine], examples: int) -> None:
    """Run so many sequences of up to 40 operations; a failure is made smaller again and again, which takes minutes."""
    run: Callable[..., Any] = run_state_machine_as_test  # without types in the hypothesis for older Pythons
    run(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
