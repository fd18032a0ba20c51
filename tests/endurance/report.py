"""Prints what came out."""

from tests.endurance.verdict import Verdict


def print_report(verdicts: list[Verdict]) -> None:
    """One column for each seed."""
    names = list(dict.fromkeys(name for verdict in verdicts for name in verdict.figures))
    kinds = list(dict.fromkeys(kind for verdict in verdicts for kind in verdict.faults))
    width = max(len(name) for name in (*names, *kinds)) + 2
    print("".ljust(width) + "".join(f"seed {verdict.seed}".rjust(14) for verdict in verdicts))
    for name in names:
        print(name.ljust(width) + "".join(_number(verdict.figures.get(name)).rjust(14) for verdict in verdicts))
    print("\njudged, all of which should be 0:")
    for kind in kinds:
        print(kind.ljust(width) + "".join(_number(verdict.faults.get(kind)).rjust(14) for verdict in verdicts))
    if len(verdicts) > 1:
        total = sum(verdict.figures["messages"] for verdict in verdicts)
        print(f"\n{total:,.0f} messages in {sum(verdict.minutes for verdict in verdicts):g} minutes")


def print_faults(verdict: Verdict) -> None:
    """What was wrong in one storm, with examples."""
    for kind, count in verdict.faults.items():
        if count:
            print(f"\nseed {verdict.seed}: {kind}: {count}")
            for example in verdict.examples.get(kind, []):
                print(f"    {example}")
    if verdict.remarks:
        print(f"\nseed {verdict.seed}: also logged")
        for remark in verdict.remarks:
            print(f"    {remark}")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
