"""Every method at equal compute, teachers counted: python benchmarks/tournament.py SET [RECIPE].

    python benchmarks/tournament.py eight_gaussians --seconds 60 --seeds 3
    python benchmarks/tournament.py --page                   write docs/tournament.md again

All stages of a recipe are made longer or shorter by one factor, and so are the pairs that a teacher
makes from noise. The factor is found in a short pilot, so that together they take the given seconds
of processor time on one thread, with the teacher and its pairs, or of the clock where a GPU is at
hand, which MNIST, Fashion-MNIST and CIFAR-10 need. Those are trained with the recipes for digits,
the checkerboard with those for eight Gaussians. Results go to benchmarks/results/tournament.json,
samples beside it, pictures to docs/images and the page to docs/tournament.md. Recipes may be run in
parts.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from onestep.benchmarks.recipes import (
    BRIEF,
    DIGITS,
    PAIRS,
    PLANE,
    SHORTER,
    TRAINING,
    Made,
    Workshop,
    digest_of,
    recipes,
    sequence,
)
from onestep.benchmarks.record import RESULTS, machine, save
from onestep.benchmarks.tournament_page import (
    IMAGES,
    METRICS,
    PAGE,
    TOLERANCE,
    TRIES,
    page,
    ranking,
)
from onestep.platform.data.source import Dataset
from onestep.platform.evaluation.comparison import Comparison, same_noise
from onestep.platform.evaluation.figures import quality_against_nfe, save_png
from onestep.platform.evaluation.report import Report
from onestep.platform.experiment import Experiment
from onestep.platform.registry.model import load_generator
from onestep.platform.training.assembly import parts_of
from onestep.platform.training.sequence import Stage

_FEWER: Final = "evaluation.samples=1000"  # the time of an exact W2 grows with their cube
SETS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "eight_gaussians": (PLANE, (_FEWER,)),
    "checkerboard": (PLANE, (_FEWER, "data=checkerboard")),
    "digits": (DIGITS, ()),
    "mnist": (DIGITS, ("data=mnist",)),
    "fashion_mnist": (DIGITS, ("data=fashion_mnist",)),
    "cifar10": (DIGITS, ("data=cifar10",)),
}
"""Whose recipes are trained on a set, and what takes them there."""
_CURVE: Final = "evaluation.nfes=[1,2,4,8]"  # those that a map allows
PILOT: Final = 0.05
"""Share of a recipe's samples in the pilot, which is not measured but timed."""
LEAST_STEPS: Final = 20
CURVES: Final = 7
"""Recipes whose quality over evaluations is drawn, from the best to the worst."""


def overrides_of(recipe: str, dataset: str) -> tuple[str, ...]:
    """What takes a recipe to a set, before it is made longer or shorter."""
    family, overrides = SETS[dataset]
    return (*(SHORTER.get(recipe, ()) if family == PLANE else ()), *overrides)


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
        grows += each.core_s[TRAINING] / share
        if pairs := each.core_s.get(PAIRS):
            made, real = each.experiment.pairs.count, _real_pairs(each.experiment)
            grows += pairs * made / (made + real) / share
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
    stages = sequence(recipe, overrides_of(recipe, dataset), dataset=SETS[dataset][0]).stages
    pilot = workshop.make(scaled(stages, PILOT, BRIEF))
    factor = factor_for(seconds, pilot, PILOT)
    results = []
    for seed in seeds:
        make = partial(_trained, stages, workshop, seed)
        made, factor = in_time(make, factor, seconds=seconds)
        *_, last = made.values()
        results.append(
            {
                "recipe": recipe,
                "digest": digest_of(stages),
                "seed": seed,
                "factor": round(factor, 4),
                "core_s": round(seconds_of(made), 1),
                "steps": {name: each.experiment.training.steps for name, each in made.items()},
                "step_ms": round(1e3 * last.core_s[TRAINING] / last.experiment.training.steps, 2),
                "model": str(last.trained.reference),
                "report": json.loads(last.trained.report.to_json()),
            }
        )
    return results


def in_time(
    make: Callable[[float], Mapping[str, Made]], factor: float, *, seconds: float
) -> tuple[Mapping[str, Made], float]:
    """Train, again at another length where that took too long or not long enough.

    Args:
        make: Trains stages that are longer by a factor.
        factor: That of the first.
        seconds: What they are to take.

    Returns:
        What came nearest to it, and its factor.
    """
    tries: list[tuple[float, float, Mapping[str, Made]]] = []
    for _ in range(TRIES):
        made = make(factor)
        took = seconds_of(made)
        tries.append((abs(took / seconds - 1), factor, made))
        if tries[-1][0] <= TOLERANCE:
            break
        factor *= seconds / took
    _, factor, made = min(tries, key=lambda each: each[0])
    return made, factor


def _trained(
    stages: Sequence[Stage], workshop: Workshop, seed: int, factor: float
) -> dict[str, Made]:
    return workshop.make(scaled(stages, factor, f"seed={seed}"))


def seconds_of(made: Mapping[str, Made]) -> float:
    """What all stages took."""
    return sum(sum(each.core_s.values()) for each in made.values())


def keep_samples(dataset: str, recipe: str, workshop: Workshop, result: Mapping[str, Any]) -> None:
    """Store what a model draws from the noise that every recipe is shown with.

    Args:
        dataset: The set.
        recipe: The recipe.
        workshop: Where the model is.
        result: That of the model.
    """
    report = Report.from_json(json.dumps(result["report"]))
    flow_map, _ = load_generator(workshop.registry, result["model"])
    drawn = same_noise(flow_map, data_of(dataset), report.nfes, seed=report.provenance.seed)
    path = _samples(dataset, recipe)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = {str(nfe): x.half().numpy() for nfe, x in drawn.items()}
    np.savez_compressed(path, **kept)


def pictures(dataset: str, results: Sequence[Mapping[str, Any]]) -> None:
    """Samples of the first seed of every recipe from the same noise, and the curves of the best.

    Args:
        dataset: The set.
        results: All results on it.

    Raises:
        ValueError: If the samples of a recipe have not been kept.
    """
    order = ranking(results, METRICS[dataset][0])
    if missing := [recipe for recipe in order if not _samples(dataset, recipe).exists()]:
        raise ValueError(f"samples of {missing[0]} on {dataset} were not kept: run it again")
    reports = tuple(_first_report(results, recipe) for recipe in order)
    samples = {recipe: _kept_samples(dataset, recipe) for recipe in order}
    drawn = Comparison(dataset=data_of(dataset), reports=reports, samples=samples)
    save_png(drawn.figures()["samples.png"], IMAGES / f"tournament_{dataset}.png")
    several = [report for report in reports if len(report.nfes) > 1]
    places = np.linspace(0, len(several) - 1, min(CURVES, len(several))).round().astype(int)
    curves = quality_against_nfe([several[place] for place in places], metric=METRICS[dataset][0])
    save_png(curves, IMAGES / f"tournament_{dataset}_nfe.png")


def data_of(dataset: str) -> Dataset:
    """The data of a set."""
    family, overrides = SETS[dataset]
    first, *_ = sequence(recipes(family)[0], overrides, dataset=family).stages
    return parts_of(first.experiment({})).source.load()


def _first_report(results: Sequence[Mapping[str, Any]], recipe: str) -> Report:
    """The report on the first seed of a recipe, by whose name it goes."""
    (first,) = (each for each in results if (each["recipe"], each["seed"]) == (recipe, 0))
    report = Report.from_json(json.dumps(first["report"]))
    return replace(report, provenance=replace(report.provenance, model=recipe))


def _samples(dataset: str, recipe: str) -> Path:
    return RESULTS / "tournament" / dataset / f"{recipe}.npz"


def _kept_samples(dataset: str, recipe: str) -> dict[int, Tensor]:
    with np.load(_samples(dataset, recipe)) as kept:
        return {int(nfe): torch.from_numpy(kept[nfe]).float() for nfe in kept.files}


def stored() -> dict[str, Any]:
    """What has been measured so far, by set."""
    path = RESULTS / "tournament.json"
    return dict(json.loads(path.read_text())["sets"]) if path.exists() else {}


def store(dataset: str, seconds: float, new: Sequence[Mapping[str, Any]]) -> None:
    """Write what recipes did on a set, in place of what they did before.

    Args:
        dataset: The set.
        seconds: Processor time of each.
        new: Their results.
    """
    sets, again = stored(), {each["recipe"] for each in new}
    kept = [each for each in results_of(dataset) if each["recipe"] not in again]
    results = sorted([*kept, *new], key=lambda each: (each["recipe"], each["seed"]))
    present = {each["recipe"] for each in results}
    missing = [recipe for recipe in recipes(SETS[dataset][0]) if recipe not in present]
    sets[dataset] = {"seconds": seconds, "missing": missing, "results": results}
    save("tournament", {"sets": {name: sets[name] for name in SETS if name in sets}})
    PAGE.write_text(page(stored()))


def results_of(dataset: str) -> list[dict[str, Any]]:
    """What has been measured on a set so far."""
    return list(stored().get(dataset, {"results": []})["results"])


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
    known_seconds = stored().get(arguments.set, {"seconds": arguments.seconds})["seconds"]
    if arguments.recipes and arguments.seconds != known_seconds:
        parser.error(
            f"recipes on {arguments.set} have {known_seconds:g} seconds, got --seconds "
            f"{arguments.seconds:g}: name none to run all again"
        )
    kept = [each for each in results_of(arguments.set) if each["recipe"] not in chosen]
    if other := {each["machine"]["cpu"] for each in kept} - {about["cpu"]}:
        parser.error(
            f"seconds of one processor are not those of another: recipes on {arguments.set} were "
            f"measured on {other.pop()}, got {about['cpu']}: name none to run all again"
        )
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for recipe in chosen:
            new = compete(
                recipe,
                arguments.set,
                workshop,
                seconds=arguments.seconds,
                seeds=range(arguments.seeds),
            )
            keep_samples(arguments.set, recipe, workshop, new[0])
            store(arguments.set, arguments.seconds, [{"machine": about, **each} for each in new])
            print(recipe, [each["core_s"] for each in new])
    pictures(arguments.set, results_of(arguments.set))


if __name__ == "__main__":
    main()
