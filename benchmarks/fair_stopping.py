"""Early stopping of curricula, on simulated learning curves: python benchmarks/fair_stopping.py.

    python benchmarks/fair_stopping.py             simulate, judge, write page and picture
    python benchmarks/fair_stopping.py --judge     judge the stored numbers, write them again

Arms differ in how fast they learn, in where that ends, and in how long their curriculum takes. One
rule compares them on their way through runs that are planned on the whole budget, the other plans a
run on the samples of each rung. Both promote by the same function of the platform, and the
platform says which of the comparisons are fair.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Final

import numpy as np

from onestep.benchmarks.fair_stopping_page import PAGE, PICTURE, page, picture
from onestep.benchmarks.record import RESULTS, Bars, at_least, at_most, judged, machine, save
from onestep.methods.core.record import Moment
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear, Schedule
from onestep.platform.evaluation.figures import save_png
from onestep.sweeps.clocks import apart
from onestep.sweeps.halving import Rung, ladder, promotable

NAME: Final = "fair_stopping"
SWEEPS: Final = 400
"""Simulated sweeps of each family."""
ARMS: Final = 27
REDUCTION: Final = 3
BATCH: Final = 100
BUDGETS: Final = ladder(10_000, 270_000, REDUCTION, batch=BATCH)
NOISE: Final = 0.01
"""Standard deviation of a measurement."""
TELLING: Final = 2 * NOISE
"""An arm that is worse by more than this is a wrong one: measurements tell it from the best."""
FAMILIES: Final = ("apart", "brief", "together", "none")
"""Curricula of different lengths, the same where learning takes longer than the lower rungs,
curricula of one length, and none."""
FAIR_FAMILIES: Final = ("together", "none")
RULES: Final = ("full", "naive", "fair")
OFTEN_WRONG: Final = 0.5
SELDOM_WRONG: Final = 0.1
MOST_COST: Final = 0.4
"""Share of the cost of training every arm on the whole budget."""
AS_GOOD: Final = 0.05
CHEAPER: Final = 0.8
POINTS: Final = 54
"""Points of a drawn curve; every rung of a whole run is one."""
FEW: Final = 3
"""Sweeps of each family whose every number is kept, so that they can be simulated again."""
_SCALE: Final = 2_000.0
_SLOW: Final = 100_000.0
_UNFINISHED: Final = 0.5
_HASTE: Final = 0.6
_RNG: Final = Rng.seeded(0)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A configuration.

    Attributes:
        floor: Error that no training takes away.
        rate: Exponent of what training does take away.
        until: Share of a run after which the curriculum is over; 0 without a curriculum.
        scale: Samples in which it begins to learn.
    """

    floor: float
    rate: float
    until: float
    scale: float = _SCALE

    @property
    def curriculum(self) -> Schedule:
        """How much of the loss is still the easy one."""
        return Linear(start=1.0, end=0.0, until=self.until) if self.until else Constant(value=0.0)


def moment(samples: int, planned: int) -> Moment:
    """After some samples of a run planned on others."""
    return Moment(step=samples // BATCH, total=planned // BATCH, rng=_RNG, batch_size=BATCH)


def error(arm: Arm, samples: int, planned: int) -> float:
    """The error of an arm, without that of its measurement.

        floor + (1 + h / S)^-rate + 0.5 easy + 0.6 (1 + m / S)^-1/2

    without the last two terms where there is no curriculum.
    Here easy is how much of the loss is still the easy one, h are samples of the hard one so far,
    m samples that the whole curriculum lasts, and S is the arm's scale. A short curriculum is
    through early and pays for its haste to the end; a long one is worse on its way, and has fewer
    samples of the hard loss. In a short run the best one is shorter than in a long run, so that no
    rung tells the whole truth.
    """
    lasts = arm.until * planned
    moved = min(float(samples), lasts)
    hard = samples - (moved - moved**2 / (2.0 * lasts) if lasts else 0.0)
    learned = (1.0 + hard / arm.scale) ** -arm.rate
    haste = _HASTE * (1.0 + lasts / arm.scale) ** -0.5 if lasts else 0.0
    easy = arm.curriculum(moment(samples, planned))
    return arm.floor + learned + haste + _UNFINISHED * easy


def draw(family: str, rng: np.random.Generator) -> list[Arm]:
    """The arms of one sweep."""
    until = {
        "apart": rng.uniform(0.05, 1.0, ARMS),
        "brief": rng.uniform(0.05, 1.0, ARMS),
        "together": np.full(ARMS, 0.5),
        "none": np.zeros(ARMS),
    }[family]
    rates, floors = rng.uniform(0.25, 0.45, ARMS), rng.uniform(0.0, 0.1, ARMS)
    scale = _SLOW if family == "brief" else _SCALE
    return [
        Arm(floor=float(floor), rate=float(rate), until=float(share), scale=scale)
        for floor, rate, share in zip(floors, rates, until, strict=True)
    ]


def halve(measured: Callable[[int, int], float]) -> tuple[int, list[int]]:
    """One run at a time, promoted as the platform does.

    Args:
        measured: What an arm is measured to be at a rung.

    Returns:
        The arm that is best on the whole budget, and how many ran at each rung.
    """
    held: list[dict[int, tuple[float, ...]]] = [{} for _ in BUDGETS]
    while True:
        rungs = [Rung(results=results) for results in held]
        found = promotable(rungs, count=ARMS, reduction=REDUCTION)
        if found is None and len(held[0]) == ARMS:
            best = min(held[-1], key=lambda number: held[-1][number])
            return best, [len(results) for results in held]
        number, rung = (len(held[0]), 0) if found is None else (found.number, found.rung)
        held[rung][number] = (measured(number, rung),)


def is_refused(arms: list[Arm], planned: Callable[[int], int]) -> bool:
    """Whether the platform finds a comparison at a rung unfair.

    Args:
        arms: The arms.
        planned: Samples on which a run to a rung is planned.
    """
    schedules = [{"curriculum": arm.curriculum} for arm in arms]
    for budget in BUDGETS[:-1]:
        if apart(schedules, [moment(budget, planned(budget))] * len(arms)):
            return True
    return False


def simulate(family: str, seed: int) -> dict[str, dict[str, Any]]:
    """One sweep by every rule: what it regrets, what it costs, and whether it would be refused."""
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    arms, whole = draw(family, rng), BUDGETS[-1]
    noise = NOISE * rng.standard_normal((3, len(BUDGETS), ARMS))
    truth = [error(arm, whole, whole) for arm in arms]

    def naive(number: int, rung: int) -> float:
        return error(arms[number], BUDGETS[rung], whole) + noise[0, rung, number]

    def fair(number: int, rung: int) -> float:
        return error(arms[number], BUDGETS[rung], BUDGETS[rung]) + noise[1, rung, number]

    steps = np.diff(BUDGETS, prepend=0)
    on_the_way, naive_runs = halve(naive)
    again, fair_runs = halve(fair)
    full = int(np.argmin(truth + noise[2, -1]))
    everything = ARMS * whole
    return {
        "full": {"regret": truth[full] - min(truth), "cost": 1.0, "refused": False},
        "naive": {
            "regret": truth[on_the_way] - min(truth),
            "cost": float(np.dot(naive_runs, steps) / everything),
            "refused": is_refused(arms, lambda budget: whole),
        },
        "fair": {
            "regret": truth[again] - min(truth),
            "cost": float(np.dot(fair_runs, BUDGETS) / everything),
            "refused": is_refused(arms, lambda budget: budget),
        },
    }


def summed_up(sweeps: list[dict[str, Any]]) -> dict[str, float]:
    """What the sweeps of a family come to under one rule."""
    wrong = fmean(each["regret"] > TELLING for each in sweeps)
    return {
        "wrong": round(wrong, 4),
        "wrong_error": round((wrong * (1.0 - wrong) / len(sweeps)) ** 0.5, 4),
        "regret": round(fmean(each["regret"] for each in sweeps), 5),
        "cost": round(fmean(each["cost"] for each in sweeps), 4),
        "refused": round(fmean(each["refused"] for each in sweeps), 4),
    }


def example() -> dict[str, Any]:
    """Two arms that differ in their curriculum alone: their curves as either rule sees them."""
    short = Arm(floor=0.05, rate=0.35, until=0.05)
    arms = {"short": short, "long": replace(short, until=0.6)}
    found: dict[str, Any] = {}
    for name, arm in arms.items():
        found[name] = {
            "until": arm.until,
            "curves": {
                str(planned): [
                    [n, round(error(arm, n, planned), 4)]
                    for n in (planned * k // POINTS for k in range(POINTS + 1))
                ]
                for planned in BUDGETS
            },
        }
    return found


def measure() -> dict[str, Any]:
    """All sweeps."""
    families = {}
    for family in FAMILIES:
        sweeps = [simulate(family, seed) for seed in range(SWEEPS)]
        families[family] = {
            "rules": {rule: summed_up([each[rule] for each in sweeps]) for rule in RULES},
            "first": sweeps[:FEW],
        }
    return {
        "sweeps": SWEEPS,
        "arms": ARMS,
        "budgets": list(BUDGETS),
        "noise": NOISE,
        "telling": TELLING,
        "families": families,
        "example": example(),
    }


def bars(numbers: Mapping[str, Any]) -> Bars:
    """The naive rule is wrong where it is refused, and elsewhere as good as the fair one."""
    rules = {name: each["rules"] for name, each in numbers["families"].items()}

    def about(family: str, rule: str, number: str) -> dict[str, Any]:
        value = rules[family][rule][number]
        return {"value": value, "family": family, "rule": rule, "number": number}

    found: Bars = []
    for family in FAMILIES:
        is_fair, fair = family in FAIR_FAMILIES, rules[family]["fair"]
        expected = at_most if is_fair else at_least
        found += [
            expected(**about(family, "naive", "refused"), bar=0.0 if is_fair else 1.0),
            at_most(**about(family, "fair", "refused"), bar=0.0),
            at_most(**about(family, "fair", "cost"), bar=MOST_COST),
        ]
        if is_fair:
            found += [
                at_most(**about(family, "naive", "wrong"), bar=fair["wrong"] + AS_GOOD),
                at_most(**about(family, "naive", "cost"), bar=round(CHEAPER * fair["cost"], 4)),
            ]
    return [
        *found,
        at_least(**about("apart", "naive", "wrong"), bar=OFTEN_WRONG),
        at_most(**about("apart", "fair", "wrong"), bar=SELDOM_WRONG),
        at_least(**about("brief", "naive", "wrong"), bar=OFTEN_WRONG),
        at_most(**about("brief", "fair", "wrong"), bar=rules["brief"]["naive"]["wrong"] / 2),
    ]


def main() -> None:
    """Simulate, or take what is stored, and write what is made of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--judge", action="store_true", help="judge what is stored again")
    if parser.parse_args().judge:
        numbers = json.loads((RESULTS / f"{NAME}.json").read_text())
    else:
        numbers = {"machine": machine(), **measure()}
    stored = judged(numbers, bars(numbers))
    save(NAME, stored)
    PAGE.write_text(page(stored))
    save_png(picture(stored), PICTURE)


if __name__ == "__main__":
    main()
