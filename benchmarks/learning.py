"""Whether every method learns eight Gaussians in one step: python benchmarks/learning.py [RECIPE].

The time is the processor time of a recipe's own trainings on one thread; that of its teacher, and
of making pairs, stands beside it. Results go to benchmarks/results/learning.json, where recipes
that are not named keep their numbers, and to docs/learning.md. With --judge nothing is trained and
the stored numbers are judged again.
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
from onestep.benchmarks.planar import data_draws, draws, gaussian_draws, judge, sampler_of
from onestep.benchmarks.recipes import (
    BRIEF,
    SHORTER,
    TRAINING,
    Workshop,
    digest,
    own_stages,
    recipes,
    sequence,
)
from onestep.benchmarks.record import RESULTS, Bars, at_least, at_most, machine, save
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.experiment import module_of
from onestep.platform.registry.model import load_flow_map

MOST: Final = {"mode_mass_tv": 0.06, "mode_std_ratio_max": 1.4, "outside_modes": 0.12}
LEAST: Final = {"mode_std_ratio_min": 0.7}
MOST_CORE_S: Final = {"one_stage": 60.0, "several_stages": 180.0}
_TURNS: Final = (
    "It is a game: a second network learns what the generator makes while that moves, and both "
    "take their time. With a quarter of the steps, in the tournament, even the narrowest mode is "
    "1.3 to 1.6 times as wide as the law's."
)
_WIDE: Final = (
    "Its widest mode is twice as wide as its narrowest, and why is not known. With a quarter of "
    "the steps, in the tournament, that mode is as wide as here, and the others are wider. dmd2, "
    "which divides its step by the teacher's error, has no such mode."
)
_AGAIN: Final = 1.24
"""How much longer a training takes than the same before: checkerboard_shortcut in planar.json."""
EXCUSES: Final[Excuses] = {
    "dmd2": {"core_s": Excuse(_TURNS, 71.5 * _AGAIN)},
    "flow_generator_matching": {
        "core_s": Excuse(_TURNS, 70.9 * _AGAIN),
        # 1.752 and four standard errors, of the draws and of the seeds in the tournament.
        "mode_std_ratio_max": Excuse(_WIDE, 1.85),
    },
}
"""The numbers with which a recipe misses its bars, why, and how far."""


def measure(recipe: str, workshop: Workshop) -> dict[str, Any]:
    """Train a recipe and judge one step of its last model."""
    stages = sequence(recipe, (BRIEF, *SHORTER.get(recipe, ()))).stages
    made, own = workshop.make(stages), own_stages(stages)
    *_, last = made.values()
    flow_map, _ = load_flow_map(workshop.registry, last.trained.reference)
    return {
        "method": module_of(last.experiment.method),
        "digest": digest(recipe, SHORTER.get(recipe, ())),
        "stages": len(own),
        "core_s": round(sum(made[name].core_s[TRAINING] for name in own), 1),
        "core_s_of_stages": {name: dict(each.core_s) for name, each in made.items()},
        "parameters": sum(p.numel() for p in flow_map.parameters()),
        "sampler": str(sampler_of(flow_map)),
        **judge(draws(flow_map), EightGaussians().load()),
    }


def bars(measured: Mapping[str, Any]) -> Bars:
    """What the bars say of one recipe, or of samples alone."""
    found = [at_most(measured[number], bar, number=number) for number, bar in MOST.items()]
    found += [at_least(measured[number], bar, number=number) for number, bar in LEAST.items()]
    if "core_s" in measured:
        most = MOST_CORE_S["one_stage" if measured["stages"] == 1 else "several_stages"]
        found.append(at_most(measured["core_s"], most, number="core_s"))
    return found


def missed(measured: Mapping[str, Any]) -> list[str]:
    """The numbers that do not reach their bars."""
    return [str(bar["number"]) for bar in bars(measured) if not bar["reached"]]


def misses(measured: Mapping[str, Any]) -> Misses:
    """What recipes miss, and why.

    Args:
        measured: What was measured, by recipe.
    """
    return misses_of(measured, missed, reasons(measured, EXCUSES))


def judged(found: Mapping[str, Any], trivial: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Recipes with what their bars say, beside samples that need no training."""
    ordered = {name: found[name] for name in recipes() if name in found}
    found_misses = misses(ordered)
    return {
        "bars": {**MOST, **LEAST, "core_s": MOST_CORE_S},
        "misses": found_misses,
        "reached": is_explained(found_misses) and list(ordered) == recipes(),
        **trivial,
        "recipes": ordered,
    }


def main() -> None:
    """Run the named recipes, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=", ".join(recipes()))
    parser.add_argument("--judge", action="store_true", help="judge the stored numbers again")
    arguments = parser.parse_args()
    if unknown := set(arguments.recipes) - set(recipes()):
        parser.error(f"recipes are {', '.join(recipes())}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    about, path, dataset = machine(), RESULTS / "learning.json", EightGaussians().load()
    samples = {"one_gaussian": gaussian_draws(dataset), "training_data": data_draws(dataset)}
    trivial = {name: judge(each, dataset) for name, each in samples.items()}
    found = dict(json.loads(path.read_text())["recipes"]) if path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for recipe in [] if arguments.judge else arguments.recipes or recipes():
            found[recipe] = {"machine": about, **measure(recipe, workshop)}
            save("learning", judged(found, trivial))
            print(recipe, json.dumps(found[recipe]), "misses", missed(found[recipe]) or "nothing")
    save("learning", judged(found, trivial))
    learning_page.write()


if __name__ == "__main__":
    main()
