"""Every method at equal compute, teachers counted: python benchmarks/tournament.py SET [RECIPE].

    python benchmarks/tournament.py eight_gaussians --seconds 60 --seeds 3
    python benchmarks/tournament.py --page                   write docs/tournament.md again

All stages of a recipe are made longer or shorter by one factor, and so are the pairs that a teacher
makes from noise. The factor is found in a short pilot, so that together they take the given seconds
of processor time on one thread, with the teacher and its pairs. Those of the checkerboard are the
recipes for eight Gaussians. Results go to benchmarks/results/tournament.json, pictures to
docs/images.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from matplotlib.figure import Figure

from onestep.benchmarks.recipes import (
    BRIEF,
    DIGITS,
    PAIRS,
    PLANE,
    TRAINING,
    Made,
    Workshop,
    digest_of,
    recipes,
    sequence,
)
from onestep.benchmarks.record import RESULTS, machine, save
from onestep.benchmarks.tournament_page import IMAGES, METRICS, PAGE, page, ranking
from onestep.platform.evaluation.comparison import Comparison, gather
from onestep.platform.evaluation.figures import quality_against_nfe, save_png
from onestep.platform.evaluation.report import Report
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import parts_of
from onestep.platform.training.sequence import Stage

_FEWER: Final = "evaluation.samples=1000"  # the time of an exact W2 grows with their cube
SETS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "eight_gaussians": (PLANE, (_FEWER,)),
    "checkerboard": (PLANE, (_FEWER, "data=checkerboard")),
    "digits": (DIGITS, ()),
}
"""Whose recipes are trained on a set, and what takes them there."""
_CURVE: Final = "evaluation.nfes=[1,2,4,8]"  # those that a map allows
PILOT: Final = 0.05
"""Share of a recipe's samples in the pilot, which is not measured but timed."""
LEAST_STEPS: Final = 20
CURVES: Final = 8
"""Recipes whose quality over evaluations is drawn."""


def scaled(stages: Sequence[Stage], factor: float, *more: str) -> list[Stage]:
    """Stages that see so many times their samples, of which the last alone is evaluated in full.

    Args:
        stages: The stages.
        factor: Their samples, and the pairs made for them, over those of the recipe.
        more: Overrides of every stage.
    """
    names = {stage.name: stage.name for stage in stages}
    longer = []
    for stage in stages:
        experiment = stage.experiment(names)
        training = experiment.training
        steps = max(LEAST_STEPS, round(factor * training.samples / training.batch_size))
        own = [f"training.samples={steps * training.batch_size}", *more]
        if parts_of(experiment).learner.needs.pairs:
            own.append(f"pairs.count={max(1, round(factor * experiment.pairs.count))}")
        own += [_CURVE] if stage is stages[-1] else [BRIEF]
        longer.append(replace(stage, overrides=(*stage.overrides, *own)))
    return longer


def factor_for(seconds: float, pilot: Mapping[str, Made], share: float) -> float:
    """By how much a recipe is made longer to take so many seconds in all.

    Args:
        seconds: Processor time of all stages.
        pilot: The stages, trained for a share of their samples.
        share: That share.

    Raises:
        ValueError: If the pairs that are made from the data alone take longer.
    """
    grows = stays = 0.0
    for each in pilot.values():
        made, real = each.experiment.pairs.count, _real_pairs(each.experiment)
        pairs = each.core_s.get(PAIRS, 0.0)
        grows += (each.core_s[TRAINING] + pairs * made / (made + real)) / share
        stays += pairs * real / (made + real)
    if stays >= seconds:
        raise ValueError(f"pairs of the data alone take {stays:.0f} s, of {seconds:g} s in all")
    return (seconds - stays) / grows


def _real_pairs(experiment: Experiment) -> int:
    """How many pairs are made from the data themselves, however long the training."""
    return len(parts_of(experiment).source.load().train) if experiment.pairs.real else 0


def compete(
    recipe: str, dataset: str, workshop: Workshop, *, seconds: float, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Train a recipe on a set in a given time, with several seeds.

    Args:
        recipe: The recipe.
        dataset: The set.
        workshop: Where it is trained.
        seconds: Processor time of all its stages.
        seeds: One training for each.

    Returns:
        A result for each seed: the report, and what it took.
    """
    family, overrides = SETS[dataset]
    stages = sequence(recipe, overrides, dataset=family).stages
    pilot = workshop.make(scaled(stages, PILOT, BRIEF))
    factor = factor_for(seconds, pilot, PILOT)
    results = []
    for seed in seeds:
        made = workshop.make(scaled(stages, factor, f"seed={seed}"))
        *_, last = made.values()
        results.append(
            {
                "recipe": recipe,
                "digest": digest_of(stages),
                "seed": seed,
                "factor": round(factor, 4),
                "core_s": round(sum(sum(each.core_s.values()) for each in made.values()), 1),
                "steps": {name: each.experiment.training.steps for name, each in made.items()},
                "step_ms": round(1e3 * last.core_s[TRAINING] / last.experiment.training.steps, 2),
                "model": str(last.trained.reference),
                "report": json.loads(last.trained.report.to_json()),
            }
        )
    return results


def pictures(dataset: str, workshop: Workshop, results: Sequence[Mapping[str, Any]]) -> None:
    """Samples of the first seed of every recipe from the same noise, and the curves of the best.

    Args:
        dataset: The set.
        workshop: Where the models are.
        results: The results of this run.
    """
    reports = {
        each["model"]: Report.from_json(json.dumps(each["report"]))
        for each in results
        if each["seed"] == 0
    }
    names = {each["model"]: each["recipe"] for each in results}
    found = gather(workshop.registry, reports)
    samples = {names[name.split()[-1]]: by_nfe for name, by_nfe in found.samples.items()}
    drawn = Comparison(dataset=found.dataset, reports=found.reports, samples=samples)
    save_png(drawn.figures()["samples.png"], IMAGES / f"tournament_{dataset}.png")
    curves = quality_of_the_best(dataset, results)
    save_png(curves, IMAGES / f"tournament_{dataset}_nfe.png")


def quality_of_the_best(dataset: str, results: Sequence[Mapping[str, Any]]) -> Figure:
    """The first seeds of the recipes that are best at one step, over numbers of evaluations."""
    metric, reports = METRICS[dataset][0], list[Report]()
    for recipe in ranking(results, metric)[:CURVES]:
        (first,) = (each for each in results if (each["recipe"], each["seed"]) == (recipe, 0))
        report = Report.from_json(json.dumps(first["report"]))
        reports.append(replace(report, provenance=replace(report.provenance, model=recipe)))
    return quality_against_nfe(reports, metric=metric)


def stored() -> dict[str, Any]:
    """What has been measured so far, by set."""
    path = RESULTS / "tournament.json"
    return dict(json.loads(path.read_text())["sets"]) if path.exists() else {}


def store(dataset: str, found: Mapping[str, Any]) -> None:
    """Write what was found on a set, beside what others may have found meanwhile."""
    sets = {**stored(), dataset: found}
    save("tournament", {"sets": {name: sets[name] for name in SETS if name in sets}})


def main() -> None:
    """Run the named recipes on a set, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", nargs="?", choices=SETS, help="which data")
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="all that the set has")
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time of a recipe")
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings of each")
    parser.add_argument("--page", action="store_true", help="write docs/tournament.md alone")
    arguments = parser.parse_args()
    if arguments.page:
        PAGE.write_text(page(stored()))
        return
    if arguments.set is None:
        parser.error(f"SET is one of {', '.join(SETS)}, got none")
    known = recipes(SETS[arguments.set][0])
    chosen = arguments.recipes or known
    if unknown := set(chosen) - set(known):
        parser.error(f"recipes are {', '.join(known)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    about = machine()  # before the first result makes the working tree differ from its revision
    kept = stored().get(arguments.set, {"results": []})["results"]
    results = [each for each in kept if each["recipe"] not in chosen]
    with tempfile.TemporaryDirectory() as folder:
        workshop, new = Workshop(Path(folder)), list[dict[str, Any]]()
        for recipe in chosen:
            found = compete(
                recipe,
                arguments.set,
                workshop,
                seconds=arguments.seconds,
                seeds=range(arguments.seeds),
            )
            new += [{"machine": about, **each} for each in found]
            store(arguments.set, {"seconds": arguments.seconds, "results": results + new})
            print(recipe, [each["core_s"] for each in new if each["recipe"] == recipe])
        pictures(arguments.set, workshop, new)
    PAGE.write_text(page(stored()))


if __name__ == "__main__":
    main()
