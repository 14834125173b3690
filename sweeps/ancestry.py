"""Ancestry: by which trials of a population one was made, and with which numbers, in words."""

from collections.abc import Mapping, Sequence

from .condition import Scalar
from .lineage import ancestors
from .objective import Objectives
from .record import TrialRecord


def line_of_descent(trial: TrialRecord, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that made one, the first ancestor first, itself last.

    Args:
        trial: A trial of a population.
        trials: All that have ended, its ancestors among them.
    """
    by_number = {one.number: one for one in trials}
    lineages = {k: one.lineage for k, one in by_number.items() if one.lineage is not None}
    return [by_number[number] for number in ancestors(trial.number, lineages)]


def ancestry(
    trial: TrialRecord, trials: Sequence[TrialRecord], objectives: Objectives
) -> list[str]:
    """What each ancestor of a trial did, one sentence each.

    Args:
        trial: A trial of a population.
        trials: All that have ended.
        objectives: The numbers to improve.

    Returns:
        The sentences, from the first sample to the last.
    """
    found: list[str] = []
    since, before = 0, dict[str, Scalar]()
    for one in line_of_descent(trial, trials):
        assert one.lineage is not None
        named = zip(objectives.all, one.results, strict=True)
        results = ", ".join(f"{objective} {number}" for objective, number in named)
        found.append(
            f"samples {since:,} to {one.samples:,}: trial {one.number} of member "
            f"{one.lineage.member}, {_numbers(before, one.values)}: {results}"
        )
        since, before = one.samples, dict(one.values)
    return found


def _numbers(before: Mapping[str, Scalar], now: Mapping[str, Scalar]) -> str:
    if before == now:
        return "with the same numbers"
    return "with " + ", ".join(
        f"{key} {_shown(value)}"
        + (f" (was {_shown(before[key])})" if key in before and before[key] != value else "")
        for key, value in now.items()
    )


def _shown(value: Scalar) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
