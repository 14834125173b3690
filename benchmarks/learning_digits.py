"""Whether every method learns handwritten digits: python benchmarks/learning_digits.py [RECIPE].

The time is the processor time of a recipe's own trainings on one thread, with that of weights it
begins from; that of its teacher, and of making pairs, stands beside it. A model is judged at one
step, a velocity that is not straight at its many, with one step of it beside. Results go to
benchmarks/results/learning_digits.json, where recipes that are not named keep their numbers, and to
docs/learning.md, which names those that are missing. With --judge nothing is trained and the stored
numbers are judged again.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from onestep.benchmarks import learning_page
from onestep.benchmarks.misses import Excuse, Excuses, Misses, is_explained, misses_of, reasons
from onestep.benchmarks.recipes import (
    DIGITS,
    TRAINING,
    Workshop,
    digest,
    own_stages,
    recipes,
    sequence,
)
from onestep.benchmarks.record import RESULTS, Bars, at_most, machine, save
from onestep.methods.core.flow_map import DomainKind
from onestep.platform.evaluation.benchmark import GAUSSIAN
from onestep.platform.experiment import module_of
from onestep.platform.training.assembly import parts_of

METRIC: Final = "eval/1nn_accuracy"
DEVIATION: Final = "eval/1nn_deviation"
"""Barred as well, because noise on top of data deceives the accuracy."""
MOST: Final = {"accuracy": 0.64, "deviation": 0.19}
MOST_CORE_S: Final = 2 * 10 * 60.0
_MEANS: Final = (
    "It is here to miss: its noise meets other data in every batch, and in 64 dimensions the "
    "transport of a batch hardly tells which, so that it learns means of many digits."
)
_BY_HEART: Final = (
    "It is here to miss, too: each image keeps one noise, which the network learns by heart. On "
    "this noise it makes the images themselves, on fresh noise what lies between them. "
    "neural_flow, whose pairs a teacher makes from noise that is always new, is the cure."
)
_SHORT: Final = (
    "It is the recipe of the demo, which begins it from a teacher's weights, with a minute of one "
    "core; mean_flow is the one that takes its time."
)
EXCUSES: Final[Excuses] = {
    "short_mean_flow": {"accuracy": Excuse(_SHORT, 0.72), "deviation": Excuse(_SHORT, 0.22)},
    "minibatch_neural_flow": {"accuracy": Excuse(_MEANS, 0.72), "deviation": Excuse(_MEANS, 0.33)},
    "loom_neural_flow": {"accuracy": Excuse(_BY_HEART, 0.77), "deviation": Excuse(_BY_HEART, 0.27)},
}
"""The numbers with which a recipe misses its bars, why, and how far."""


def measure(recipe: str, workshop: Workshop) -> dict[str, Any]:
    """Train a recipe and take what its last model's evaluation says."""
    stages = sequence(recipe, dataset=DIGITS).stages
    made = workshop.make(stages)
    *_, last = made.values()
    report = last.trained.report
    domain = parts_of(last.experiment).learner.domain
    needs_many = domain.kind is DomainKind.DIAGONAL and not domain.is_straight
    nfe = max(report.nfes) if needs_many else min(report.nfes)
    found, deviation = (report.find(name, nfe=nfe) for name in (METRIC, DEVIATION))
    return {
        "method": module_of(last.experiment.method),
        "digest": digest(recipe, dataset=DIGITS),
        "core_s": round(sum(made[name].core_s[TRAINING] for name in own_stages(stages)), 1),
        "core_s_of_stages": {name: dict(each.core_s) for name, each in made.items()},
        "nfe": nfe,
        "sampler": found.sampler,
        "accuracy": found.value,
        "interval": found.interval,
        "floor": found.floor,
        "gaussian": found.baselines[GAUSSIAN],
        "deviation": deviation.value,
        "deviation_of_gaussian": deviation.baselines[GAUSSIAN],
        "metrics": report.metrics(),
    }


def bars(measured: Mapping[str, Any]) -> Bars:
    """What the bars say of one recipe."""
    return [
        *(at_most(measured[number], bar, number=number) for number, bar in MOST.items()),
        at_most(measured["core_s"], MOST_CORE_S, number="core_s"),
    ]


def missed(measured: Mapping[str, Any]) -> list[str]:
    """The numbers that do not reach their bars."""
    return [str(bar["number"]) for bar in bars(measured) if not bar["reached"]]


def misses(measured: Mapping[str, Any]) -> Misses:
    """What recipes miss, and why.

    Args:
        measured: What was measured, by recipe.
    """
    return misses_of(measured, missed, reasons(measured, EXCUSES))


def judged(found: Mapping[str, Any]) -> dict[str, Any]:
    """Recipes with what their bars say."""
    ordered = {name: found[name] for name in recipes(DIGITS) if name in found}
    found_misses = misses(ordered)
    return {
        "bars": {**MOST, "core_s": MOST_CORE_S},
        "misses": found_misses,
        "missing": [name for name in recipes(DIGITS) if name not in ordered],
        "reached": is_explained(found_misses) and list(ordered) == recipes(DIGITS),
        "recipes": ordered,
    }


def main() -> None:
    """Run the named recipes, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = recipes(DIGITS)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=", ".join(known))
    parser.add_argument("--judge", action="store_true", help="judge the stored numbers again")
    arguments = parser.parse_args()
    if unknown := set(arguments.recipes) - set(known):
        parser.error(f"recipes are {', '.join(known)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    about, path = machine(), RESULTS / "learning_digits.json"
    found = dict(json.loads(path.read_text())["recipes"]) if path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for recipe in [] if arguments.judge else arguments.recipes or known:
            found[recipe] = {"machine": about, **measure(recipe, workshop)}
            save("learning_digits", judged(found))
            numbers = {name: found[recipe][name] for name in ("accuracy", "interval", "core_s")}
            print(recipe, json.dumps(numbers), "misses", missed(found[recipe]) or "nothing")
    save("learning_digits", judged(found))
    learning_page.write()


if __name__ == "__main__":
    main()
