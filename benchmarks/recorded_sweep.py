"""Early stopping judged on recorded trials: python benchmarks/recorded_sweep.py.

    python benchmarks/recorded_sweep.py --at-once 2            train what is missing, and judge
    python benchmarks/recorded_sweep.py --record curricula     train what one record is missing
    python benchmarks/recorded_sweep.py --judge                train nothing

Trials of a shipped space are trained on digits at every rung of every ladder, once. On these
numbers the decisions of the platform are replayed in many random orders of arrival, and compared
with what the whole budget for every trial finds. A record that was broken off goes on.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from onestep.benchmarks.record import Bars, at_least, at_most, judged, save
from onestep.benchmarks.recorded_sweep_page import PAGE, PICTURE, page, picture
from onestep.benchmarks.sweep_findings import (
    FRONT_ORDERS,
    ORDERS,
    Stored,
    agreement,
    conflict,
    curves,
    fair,
    fewer,
    fronts,
    naive,
    noise,
    points,
    took,
)
from onestep.benchmarks.sweep_record import (
    CURRICULA,
    RECORDED,
    SIZES,
    SLOW_CURRICULA,
    Recorded,
    record,
)
from onestep.platform.evaluation.figures import save_png
from onestep.sweeps.plan import Plan
from onestep.sweeps.stopping import StoppingKind

NAME: Final = "recorded_sweep"
JUDGED: Final = (CURRICULA.name, SIZES.name)
"""Records that have to be whole."""
AT_ONCE: Final = (1, 4)
INSIDE: Final = 0.95
"""Share of the orders in which the winner has to lie within the interval of the best."""
MOST_COST: Final = 0.4
"""Of the processor time of training every trial on the whole budget."""
LEAST_VOLUME: Final = 0.95


def refusal(recorded: Recorded) -> str:
    """What the platform says of comparing the trials on the way of whole runs."""
    settings = recorded.settings
    rule = replace(settings.scheduler, replan=False)
    try:
        Plan.of(replace(settings, scheduler=rule))
    except ValueError as error:
        return str(error)
    return ""


def measure(curricula: Stored, slow: Stored, sizes: Stored) -> dict[str, Any]:
    """All that is made of the records."""
    quality, deviation = 0, CURRICULA.settings.objectives.labels.index("deviation")
    rules = [
        fair(CURRICULA, curricula, quality, reduction, at_once)
        for reduction in sorted(CURRICULA.reductions)
        for at_once in AT_ONCE
    ]
    kinds = (StoppingKind.ASHA, StoppingKind.HYPERBAND)
    rules += [naive(CURRICULA, curricula, kind) for kind in kinds]
    rules += [fair(CURRICULA, curricula, deviation, CURRICULA.reductions[0], 1)]
    return {
        "trials": len(curricula["trials"]),
        "orders": {"one": ORDERS, "front": FRONT_ORDERS},
        "budgets": list(CURRICULA.budgets),
        "records": {
            each.name: {"digest": stored["digest"], "sessions": stored["sessions"]}
            for each, stored in ((CURRICULA, curricula), (SLOW_CURRICULA, slow), (SIZES, sizes))
        },
        "refusal": refusal(CURRICULA),
        "rules": rules,
        "fewer": fewer(curricula, quality),
        "agreement": {
            "quality": agreement(CURRICULA, curricula, quality),
            "deviation": agreement(CURRICULA, curricula, deviation),
            "quality of slow learners": agreement(SLOW_CURRICULA, slow, quality),
        },
        "slow": {
            "trials": len(slow["trials"]),
            "noise": noise(slow, quality),
            "rule": fair(SLOW_CURRICULA, slow, quality, SLOW_CURRICULA.reductions[0], 1),
        },
        "noise": noise(curricula, quality),
        "took": took([curricula, slow, sizes]),
        "conflict": conflict(SIZES, sizes),
        "fronts": [fronts(SIZES, sizes, at_once) for at_once in AT_ONCE],
    }


def bars(numbers: Mapping[str, Any]) -> Bars:
    """The winner of fair halving is as good as the best, and its front as large, for less."""
    found: Bars = []
    for row in numbers["rules"]:
        if row["rule"] != "fair" or row["number"] != "quality":
            continue
        about = {"reduction": row["reduction"], "at_once": row["at_once"]}
        found += [
            at_least(row["inside"], INSIDE, **about, number="inside"),
            at_most(row["cost"]["training_s"], MOST_COST, **about, number="cost"),
        ]
    for row in numbers["fronts"]:
        about = {"reduction": row["reduction"], "at_once": row["at_once"]}
        found += [
            at_least(row["volume"], LEAST_VOLUME, **about, number="volume"),
            at_most(row["cost"]["training_s"], MOST_COST, **about, number="cost of the front"),
        ]
    return found


def main() -> None:
    """Train what is missing, replay, and write what is made of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--judge", action="store_true", help="train nothing")
    parser.add_argument("--record", choices=RECORDED, help="train this record alone")
    parser.add_argument("--at-once", type=int, default=1, help="processes that train")
    arguments = parser.parse_args()
    if not arguments.judge:
        for name in [arguments.record] if arguments.record else JUDGED:
            record(name, arguments.at_once)
        if arguments.record:
            return
    curricula, slow, sizes = CURRICULA.stored(), SLOW_CURRICULA.stored(), SIZES.stored()
    numbers = measure(curricula, slow, sizes)
    stored = judged(numbers, bars(numbers))
    save(NAME, stored)
    PAGE.write_text(page(stored))
    save_png(picture(stored, curves(CURRICULA, curricula), points(SIZES, sizes)), PICTURE)


if __name__ == "__main__":
    main()
