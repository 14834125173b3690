"""What replays of recorded trials come to: costs, winners, fronts, and how much is noise."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from statistics import fmean
from typing import Any, Final

import numpy as np

from onestep.benchmarks.sweep_noise import fresh_values, wholes, within
from onestep.benchmarks.sweep_record import Recorded, Stored, trials_of
from onestep.benchmarks.sweep_replay import (
    Replay,
    Table,
    cost,
    halved,
    hypervolume,
    rank_correlation,
    stopped,
)
from onestep.sweeps.ranking import Values, fronts_of
from onestep.sweeps.stopping import StoppingKind

ORDERS: Final = 400
FRONT_ORDERS: Final = 100
FEW: Final = 3
"""Orders whose runs are kept one by one, so that they can be replayed again."""
Costs = dict[str, dict[tuple[int, int], float]]


def table(
    recorded: Recorded, stored: Stored, budgets: Sequence[int], places: Sequence[int]
) -> Table:
    """Some of the numbers of planned runs, by trial and rung; of failed ones they are infinite."""
    rungs = [recorded.budgets.index(samples) for samples in budgets]
    return [
        [_values(trial["runs"][rung]["numbers"], places) for rung in rungs]
        for trial in trials_of(stored)
    ]


def on_the_way(stored: Stored, place: int) -> Table:
    """One number of whole runs, where a rule without plans looks at them."""
    return [
        [
            _values(numbers, [place])
            for numbers in (*each["on_the_way"], each["runs"][-1]["numbers"])
        ]
        for each in trials_of(stored)
    ]


def _values(numbers: Sequence[Sequence[float]] | None, places: Sequence[int]) -> tuple[float, ...]:
    return tuple(inf if numbers is None else numbers[place][0] for place in places)


def orders(count: int, trials: int) -> list[list[int]]:
    """Random orders of arrival."""
    rng = np.random.default_rng(0)
    return [rng.permutation(trials).tolist() for _ in range(count)]


def costs(recorded: Recorded, stored: Stored, budgets: Sequence[int]) -> Costs:
    """What planned runs cost, by trial and rung: in samples, and in seconds of processor time."""
    found: Costs = {name: {} for name in ("samples", "training_s", "seconds")}
    for number, trial in enumerate(trials_of(stored)):
        for rung, samples in enumerate(budgets):
            run = trial["runs"][recorded.budgets.index(samples)]
            found["samples"][number, rung] = run["samples"]
            found["training_s"][number, rung] = run["training_s"]
            found["seconds"][number, rung] = run["training_s"] + run["evaluation_s"]
    return found


def costs_on_the_way(stored: Stored, budgets: Sequence[int]) -> Costs:
    """The same of whole runs up to a rung; one that ends early takes its share of the seconds."""
    found: Costs = {name: {} for name in ("samples", "training_s", "seconds")}
    for number, trial in enumerate(trials_of(stored)):
        run = trial["runs"][-1]
        for rung, samples in enumerate(budgets):
            share = samples / budgets[-1]
            found["samples"][number, rung] = share * run["samples"]
            found["training_s"][number, rung] = share * run["training_s"]
            looked = (rung + 1) * run["evaluation_s"]
            found["seconds"][number, rung] = share * run["training_s"] + looked
    return found


def shares(replays: Sequence[Replay], paid: Costs, whole: Costs) -> dict[str, float]:
    """What replays cost on the average, over every trial on the whole budget.

    Args:
        replays: The replays.
        paid: What their runs cost.
        whole: What planned runs cost.
    """
    found = {}
    for name, each in whole.items():
        last = max(rung for _, rung in each)
        everything = sum(value for (_, rung), value in each.items() if rung == last)
        found[name] = round(fmean(cost(one, paid[name]) for one in replays) / everything, 4)
    return found


def winners(
    replays: Sequence[Replay], values: Table, stored: Stored, place: int
) -> dict[str, float | None]:
    """How good the winners of replays are on the whole budget.

    Args:
        replays: The replays.
        values: What they saw.
        stored: The record.
        place: The number that decides.
    """
    first = wholes(stored, place)
    best = min(range(len(first)), key=lambda number: first[number][0])
    found = [replay.winner(values) for replay in replays]
    fresh = fresh_values(stored, place)
    inside = within(fresh, best)
    known = [fresh[one][0] - fresh[best][0] for one in found if one in fresh]
    return {
        "inside_fresh": round(fmean(one in inside for one in found), 4) if fresh else None,
        "regret_fresh": round(fmean(known), 4) if known else None,
        "inside": round(fmean(first[one][0] <= first[best][2] for one in found), 4),
        "is_best": round(fmean(one == best for one in found), 4),
        "regret": round(fmean(first[one][0] for one in found) - first[best][0], 4),
    }


def replayed(
    recorded: Recorded,
    stored: Stored,
    places: Sequence[int],
    reduction: int,
    at_once: int,
    arrivals: Sequence[Sequence[int]],
    *,
    fill: bool,
) -> list[Replay]:
    """Halving in which each rung is planned on its samples.

    Args:
        recorded: The sweep.
        stored: Its record.
        places: The numbers that trials are judged by.
        reduction: Of this many trials one goes on.
        at_once: How many run at once.
        arrivals: Orders of arrival.
        fill: Whether rungs are filled before anybody goes on.

    Returns:
        A replay for each order.
    """
    budgets = recorded.ladders[reduction]
    values, paid = table(recorded, stored, budgets, places), costs(recorded, stored, budgets)
    return [
        halved(
            values,
            order,
            reduction=reduction,
            at_once=at_once,
            fill=fill,
            lasts=lambda number, rung: paid["seconds"][number, rung],
        )
        for order in arrivals
    ]


def fair(
    recorded: Recorded,
    stored: Stored,
    place: int,
    reduction: int,
    at_once: int,
    *,
    fill: bool = False,
) -> dict[str, Any]:
    """What halving comes to in which each rung is planned on its samples, by one number."""
    budgets, count = recorded.ladders[reduction], len(trials_of(stored))
    arrivals = orders(ORDERS, count)
    replays = replayed(recorded, stored, [place], reduction, at_once, arrivals, fill=fill)
    paid = costs(recorded, stored, budgets)
    return {
        "record": recorded.name,
        "rule": "fair",
        "fill": fill,
        "number": recorded.settings.objectives.labels[place],
        "reduction": reduction,
        "at_once": at_once,
        "rungs": list(budgets),
        "cost": shares(replays, paid, paid),
        "trials": count,
        **winners(replays, table(recorded, stored, budgets, [place]), stored, place),
        "first": [[list(run) for run in replay.runs] for replay in replays[:FEW]],
    }


def replayed_on_the_way(
    recorded: Recorded, stored: Stored, kind: StoppingKind, arrivals: Sequence[Sequence[int]]
) -> list[Replay]:
    """The platform's rules on the way of whole runs, by the first number, as if not refused.

    Args:
        recorded: The sweep.
        stored: Its record.
        kind: The rule.
        arrivals: Orders of arrival.

    Returns:
        A replay for each order.
    """
    rule = replace(recorded.stopping(recorded.reductions[0], kind), replan=False)
    budgets, values = recorded.ladders[rule.reduction], on_the_way(stored, 0)
    return [stopped(values, order, stopping=rule, budgets=budgets) for order in arrivals]


def naive(recorded: Recorded, stored: Stored, kind: StoppingKind) -> dict[str, Any]:
    """What these come to."""
    reduction, count = recorded.reductions[0], len(trials_of(stored))
    budgets = recorded.ladders[reduction]
    replays = replayed_on_the_way(recorded, stored, kind, orders(ORDERS, count))
    paid, whole = costs_on_the_way(stored, budgets), costs(recorded, stored, budgets)
    return {
        "record": recorded.name,
        "rule": f"naive {kind}",
        "fill": False,
        "number": recorded.settings.objectives.labels[0],
        "reduction": reduction,
        "at_once": 1,
        "rungs": list(budgets),
        "cost": shares(replays, paid, whole),
        "trials": count,
        **winners(replays, on_the_way(stored, 0), stored, 0),
        "first": [[list(run) for run in replay.runs] for replay in replays[:FEW]],
    }


def agreement(recorded: Recorded, stored: Stored, place: int) -> dict[str, dict[str, float]]:
    """Rank correlation of what is seen at each rung with what the whole budget gives."""
    every = table(recorded, stored, recorded.budgets, [place])
    planned = [[each[rung][0] for each in every] for rung in range(len(recorded.budgets))]
    found = {
        "planned": {
            str(samples): round(rank_correlation(one, planned[-1]), 4)
            for samples, one in zip(recorded.budgets[:-1], planned, strict=False)
        }
    }
    seen, rungs = on_the_way(stored, place), recorded.ladders[recorded.reductions[0]][:-1]
    found["on_the_way"] = {
        str(samples): round(rank_correlation([each[k][0] for each in seen], planned[-1]), 4)
        for k, samples in enumerate(rungs)
    }
    return found


def fronts(
    recorded: Recorded, stored: Stored, reduction: int, at_once: int, *, fill: bool
) -> dict[str, Any]:
    """Halving by two numbers at once."""
    budgets = recorded.ladders[reduction]
    values = table(recorded, stored, budgets, [0, 1])
    paid, everything = costs(recorded, stored, budgets), np.array([each[-1] for each in values])
    arrivals = orders(FRONT_ORDERS, len(values))
    replays = replayed(recorded, stored, [0, 1], reduction, at_once, arrivals, fill=fill)
    found: dict[str, Any] = {
        "reduction": reduction,
        "at_once": at_once,
        "fill": fill,
        "rungs": list(budgets),
        "cost": shares(replays, paid, paid),
        "first": [[list(run) for run in replay.runs] for replay in replays[:FEW]],
        "found": sorted(replays[0].whole),
    }
    for name, is_strict in (("volume", False), ("volume_strict", True)):
        whole = hypervolume(everything, everything, is_strict=is_strict)
        ratios = [
            hypervolume(everything[list(one.whole)], everything, is_strict=is_strict) / whole
            for one in replays
        ]
        found[name] = round(fmean(ratios), 4)
        found[f"{name}_low"] = round(float(np.quantile(ratios, 0.05)), 4)
        share, count = found["cost"]["training_s"], len(values)
        fewest = [order[: round(share * count)] for order in arrivals]
        chance = [hypervolume(everything[one], everything, is_strict=is_strict) for one in fewest]
        found[f"{name}_of_fewer"] = round(fmean(chance) / whole, 4)
    return found


def conflict(recorded: Recorded, stored: Stored) -> dict[str, float]:
    """How far the two numbers of a sweep are from agreeing on the whole budget."""
    first, second = zip(*points(recorded, stored), strict=True)
    front = fronts_of(dict(enumerate(zip(first, second, strict=True))))
    return {
        "correlation": round(rank_correlation(first, second), 4),
        "front": sum(place == 0 for place in front.values()),
    }


def points(recorded: Recorded, stored: Stored) -> list[Values]:
    """The first two numbers of every trial on the whole budget."""
    return [each[0] for each in table(recorded, stored, recorded.budgets[-1:], [0, 1])]


def curves(recorded: Recorded, stored: Stored) -> list[list[float]]:
    """The first number of every trial at each rung."""
    every = table(recorded, stored, recorded.budgets, [0])
    return [[value for (value,) in each] for each in every]


def took(records: Sequence[Stored], first: Stored) -> dict[str, float]:
    """What all records took, and whole runs of one on the average."""
    runs = [run for stored in records for each in trials_of(stored) for run in each["runs"]]
    last = [each["runs"][-1] for each in trials_of(first)]
    lower = [run for each in trials_of(first) for run in each["runs"][:-1]]
    seconds = sum(run["training_s"] + run["evaluation_s"] for run in runs)
    return {
        "runs": len(runs),
        "hours": round(seconds / 3600, 2),
        "training": round(fmean(run["training_s"] for run in last), 2),
        "measuring": round(fmean(run["evaluation_s"] for run in last), 2),
        "comparing": round(fmean(run["evaluation_s"] for run in lower), 2),
    }
