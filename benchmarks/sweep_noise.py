"""What the values of recorded trials are worth: other noise, fresh seeds, and chance."""

from collections.abc import Callable, Mapping, Sequence
from math import comb, inf, sqrt
from statistics import fmean, median, variance
from typing import Any

from scipy import stats

from onestep.benchmarks.sweep_record import Stored, trials_of
from onestep.benchmarks.sweep_replay import expected_best, rank_correlation


def wholes(stored: Stored, place: int, *, other_noise: bool = False) -> list[list[float]]:
    """Value and interval of every trial on the whole budget."""
    whole = [
        each["other_noise"] if other_noise else each["runs"][-1]["numbers"]
        for each in trials_of(stored)
    ]
    return [numbers[place] if numbers else [inf, inf, inf] for numbers in whole]


def fresh_values(stored: Stored, place: int) -> dict[int, tuple[float, float]]:
    """Mean of each of the best trials over trainings from fresh seeds, and half its 95 % interval.

    The trainings that chose the trials are left out. The deviation is that of all trials together,
    since a few seeds say little of one.
    """
    runs = {
        int(number): [numbers[place][0] for numbers in each if numbers]
        for number, each in stored["again"].items()
    }
    freedom = sum(len(each) - 1 for each in runs.values())
    if not freedom:
        return {}
    deviation = sqrt(sum((len(each) - 1) * variance(each) for each in runs.values()) / freedom)
    reach = float(stats.t.ppf(0.975, freedom)) * deviation
    return {number: (fmean(each), reach / sqrt(len(each))) for number, each in runs.items()}


def within(fresh: Mapping[int, tuple[float, float]], best: int) -> set[int]:
    """The trials whose mean lies within the interval of one, or is better."""
    if not fresh:
        return set()
    mean, half = fresh[best]
    return {number for number, (value, _) in fresh.items() if value <= mean + half}


def fewer(stored: Stored, place: int) -> dict[str, list[float | None]]:
    """As many trials as some share of the compute pays for, chosen at random and trained whole."""
    first = wholes(stored, place)
    values = [each[0] for each in first]
    order = sorted(range(len(values)), key=values.__getitem__)
    fresh = fresh_values(stored, place)
    inside = within(fresh, order[0])
    chances = [_chances(len(values), k) for k in range(1, len(values) + 1)]
    return {
        "regret": [round(value - values[order[0]], 4) for value in expected_best(values)],
        "inside": [
            _mass(each, lambda one: first[order[one]][0] <= min(first)[2]) for each in chances
        ],
        "inside_fresh": [
            _mass(each, lambda one: order[one] in inside) if fresh else None for each in chances
        ],
    }


def _chances(count: int, drawn: int) -> list[float]:
    """The chance that the best of some trials, drawn at random, is that of each place."""
    return [comb(count - 1 - place, drawn - 1) / comb(count, drawn) for place in range(count)]


def _mass(chances: Sequence[float], holds: Callable[[int], bool]) -> float:
    return round(sum(chance for place, chance in enumerate(chances) if holds(place)), 4)


def noise(stored: Stored, place: int) -> dict[str, Any]:
    """What the values on the whole budget are worth."""
    first, second = wholes(stored, place), wholes(stored, place, other_noise=True)
    best = min(range(len(first)), key=lambda number: first[number][0])
    fresh = fresh_values(stored, place)
    return {
        "winner": best,
        "value": first[best],
        "other_noise": second[best],
        "place_again": sorted(second).index(second[best]) + 1,
        "inside": sum(value <= first[best][2] for value, _, _ in first),
        "range": [min(first)[0], median(each[0] for each in first), max(first)[0]],
        "interval": round(median((high - low) / 2 / value for value, low, high in first), 4),
        "noise": round(rank_correlation([v for v, *_ in first], [v for v, *_ in second]), 4),
        "fresh": {
            str(number): [first[number][0], *(round(each, 4) for each in fresh[number])]
            for number in sorted(fresh, key=lambda number: first[number][0])
        },
        "inside_fresh": len(within(fresh, best)),
    }
