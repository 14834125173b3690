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
from onestep.benchmarks.recorded_sweep_page import (
    COUNTED,
    PAGE,
    PICTURE,
    by_chance,
    page,
    picture,
)
from onestep.benchmarks.sweep_findings import (
    FRONT_ORDERS,
    ORDERS,
    agreement,
    conflict,
    curves,
    fair,
    fronts,
    naive,
    points,
    took,
)
from onestep.benchmarks.sweep_noise import fewer, noise
from onestep.benchmarks.sweep_record import (
    CURRICULA,
    RECORDED,
    SHORT_CURRICULA,
    SIZES,
    SLOW_CURRICULA,
    TRIALS,
    Recorded,
    Stored,
    record,
    trials_of,
)
from onestep.platform.evaluation.figures import save_png
from onestep.sweeps.plan import Plan
from onestep.sweeps.stopping import StoppingKind

NAME: Final = "recorded_sweep"
MAIN: Final = CURRICULA
"""The record of curricula that is judged."""
TOO_SHORT: Final = (SHORT_CURRICULA, SLOW_CURRICULA)
"""Records whose lower rungs tell nothing of the end, for comparison."""
JUDGED: Final = (MAIN.name, SIZES.name)
"""Records that have to be whole."""
AT_ONCE: Final = (1, 4)
INSIDE: Final = 0.95
"""Share of the orders in which the winner has to be as good as the best."""
MOST_COST: Final = 0.4
"""Of what training every trial on the whole budget takes, without measuring it."""
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


def measure(records: Mapping[str, Stored]) -> dict[str, Any]:
    """All that is made of the records."""
    curricula, sizes = records[MAIN.name], records[SIZES.name]
    quality, deviation = 0, MAIN.settings.objectives.labels.index("deviation")
    first = MAIN.reductions[0]
    rules = [
        fair(MAIN, curricula, quality, reduction, at_once, fill=fill)
        for reduction in sorted(MAIN.reductions)
        for fill in (False, True)
        for at_once in AT_ONCE
    ]
    kinds = (StoppingKind.ASHA, StoppingKind.HYPERBAND)
    rules += [naive(MAIN, curricula, kind) for kind in kinds]
    rules += [fair(MAIN, curricula, deviation, first, 1)]
    ladder = SIZES.reductions[0]
    rules += [fair(SIZES, sizes, quality, ladder, 1, fill=fill) for fill in (False, True)]
    for one in TOO_SHORT:
        stored = records[one.name]
        rules += [fair(one, stored, quality, each, 1) for each in sorted(one.reductions)]
        rules += [naive(one, stored, StoppingKind.ASHA)]
    of_curricula = (MAIN, *TOO_SHORT)
    return {
        "orders": {"one": ORDERS, "front": FRONT_ORDERS},
        "budgets": list(MAIN.budgets),
        "records": {
            name: {
                "digest": stored["digest"],
                "sessions": stored["sessions"],
                "trials": len(trials_of(stored)),
            }
            for name, stored in records.items()
        },
        "refusal": refusal(MAIN),
        "rules": rules,
        "fewer": {name: fewer(records[name], quality) for name in JUDGED},
        "agreement": {
            one.name: {
                label: agreement(one, records[one.name], place)
                for label, place in (("quality", quality), ("deviation", deviation))
            }
            for one in of_curricula
        },
        "noise": noise(curricula, quality),
        "took": took(list(records.values()), curricula),
        "conflict": conflict(SIZES, sizes),
        "fronts": [
            fronts(SIZES, sizes, reduction, at_once, fill=fill)
            for reduction in SIZES.reductions
            for fill in (True, False)
            for at_once in AT_ONCE
        ],
    }


def bars(numbers: Mapping[str, Any]) -> Bars:
    """The winner of fair halving is as good as the best, and its front as large, for less."""
    found: Bars = [
        at_least(numbers["records"][name]["trials"], TRIALS, record=name, number="trials")
        for name in JUDGED
    ]
    for row in numbers["rules"]:
        if (row["rule"], row["number"]) != ("fair", "quality") or row["record"] not in JUDGED:
            continue
        about = {name: row[name] for name in ("record", "reduction", "fill", "at_once")}
        compute, inside = COUNTED[row["record"]]
        chance, all_s = by_chance(numbers, row), row["cost"]["seconds"]
        share = row["cost"][compute]
        found += [
            at_least(row[inside], INSIDE, **about, number="inside", by_chance=chance),
            at_most(share, MOST_COST, **about, number=compute, with_measuring=all_s),
        ]
    for row in numbers["fronts"]:
        if row["reduction"] == SIZES.reductions[0] and row["fill"]:
            about = {name: row[name] for name in ("reduction", "fill", "at_once")}
            about |= {"record": SIZES.name}
            chance, all_s = row["volume_of_fewer"], row["cost"]["seconds"]
            share = row["cost"]["training_s"]
            found += [
                at_least(row["volume"], LEAST_VOLUME, **about, number="volume", by_chance=chance),
                at_most(share, MOST_COST, **about, number="training_s", with_measuring=all_s),
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
    records = {name: one.stored() for name, one in RECORDED.items()}
    numbers = measure(records)
    stored = judged(numbers, bars(numbers))
    save(NAME, stored)
    PAGE.write_text(page(stored))
    drawn = curves(MAIN, records[MAIN.name]), points(SIZES, records[SIZES.name])
    save_png(picture(stored, *drawn), PICTURE)


if __name__ == "__main__":
    main()
