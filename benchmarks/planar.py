"""Trains the planar recipes and measures one step of them: python benchmarks/planar.py [RECIPE].

Each recipe is an experiment of platform/conf/experiment, trained on one thread; where its number
lies near its bar, with several seeds, each of which has to reach it. Results go to
benchmarks/results/planar.json, where recipes that are not named keep their numbers.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from onestep.benchmarks.record import RESULTS, machine, recipe_of, save
from onestep.benchmarks.training import train
from onestep.methods.core.flow_map import DomainKind, FlowMap
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.ode import Heun
from onestep.methods.core.sampler import AbstractSampler, finishing
from onestep.methods.core.sampler_choice import sampler_for
from onestep.platform.data.source import Dataset, Mixture
from onestep.platform.evaluation.baseline import gaussian_samples
from onestep.platform.evaluation.modes import mass_total_variation, nearest_mode, spread_ratios
from onestep.platform.evaluation.sampling import draw_samples
from onestep.platform.evaluation.transport import wasserstein2

RECIPES: Final = (
    "eight_gaussians_mean_flow",
    "eight_gaussians_shortcut",
    "checkerboard_flow_matching",
    "checkerboard_mean_flow",
    "checkerboard_shortcut",
)
OTHER_SEEDS: Final[dict[str, tuple[int, ...]]] = {"checkerboard_shortcut": (1, 2)}
"""Seeds of further trainings of a recipe, beside its own."""
POINTS: Final = 2000
"""Samples of a draw, each compared with as many held-out points."""
NOISE_SEEDS: Final = range(100, 108)
YARDSTICK_STEPS: Final = 100
"""Heun steps of a velocity."""
RADIUS: Final = 4.0
"""Standard deviations of a mode beyond which a point is in none."""
BARS: Final = {
    "mode_mass_tv": 0.05,
    "mode_std_ratio_min": 0.75,
    "mode_std_ratio_max": 1.35,
    "outside_modes": 0.06,
    "w2_over_flow_matching": 1.5,
    "core_s": 300.0,
}


def sampler_of(flow_map: FlowMap) -> AbstractSampler:
    """One step of a map, or the yardstick's steps of a velocity that is not straight."""
    domain = flow_map.domain
    if domain.kind is DomainKind.DIAGONAL and not domain.is_straight:
        return Heun(grid=UniformGrid(steps=YARDSTICK_STEPS))
    sampler = sampler_for(domain, 1 + finishing(domain))
    assert sampler is not None, "one step can be taken from every map"
    return sampler


def draws(flow_map: FlowMap) -> list[Float[Tensor, "n d"]]:
    """Samples for each seed of noise."""
    return [
        draw_samples(flow_map, sampler_of(flow_map), n=POINTS, shape=(2,), seed=seed)
        for seed in NOISE_SEEDS
    ]


def gaussian_draws(dataset: Dataset) -> list[Float[Tensor, "n d"]]:
    """Samples of one Gaussian with the mean and covariance of two thousand training points."""
    train_x = dataset.train.x.float()[:POINTS]
    return [
        gaussian_samples(
            train_x, None, n=POINTS, labels=None, rng=torch.Generator().manual_seed(seed)
        )
        for seed in NOISE_SEEDS
    ]


def data_draws(dataset: Dataset) -> list[Float[Tensor, "n d"]]:
    """Parts of the training data: what a perfect model would reach."""
    x = dataset.train.x.float()
    return [x[k * POINTS : (k + 1) * POINTS] for k in range(len(NOISE_SEEDS))]


def judge(samples: Sequence[Float[Tensor, "n d"]], dataset: Dataset) -> dict[str, float]:
    """Distance to the held-out data, and the modes where the law is a mixture."""
    held_out = dataset.held_out.x.float()[:POINTS]
    distances = torch.tensor([wasserstein2(x, held_out) for x in samples])
    measured = {
        "w2": distances.mean().item(),
        "w2_standard_error": (distances.std() / len(distances) ** 0.5).item(),
    }
    if dataset.mixture is not None:
        measured |= judge_modes(torch.cat(list(samples)), dataset.mixture)
    return {name: round(value, 4) for name, value in measured.items()}


def judge_modes(x: Float[Tensor, "n d"], mixture: Mixture) -> dict[str, float]:
    """Mass, spread and outliers of the modes."""
    mode, distance = nearest_mode(x, mixture)
    ratios = spread_ratios(x, mode, mixture)
    return {
        "mode_mass_tv": mass_total_variation(mode, mixture.weights),
        "mode_std_ratio_min": ratios.min().item(),
        "mode_std_ratio_max": ratios.max().item(),
        "outside_modes": (distance > RADIUS).double().mean().item(),
    }


def passes_modes(measured: Mapping[str, float]) -> bool:
    """Whether samples reach the bars of a mixture."""
    return (
        measured["mode_mass_tv"] <= BARS["mode_mass_tv"]
        and measured["mode_std_ratio_min"] >= BARS["mode_std_ratio_min"]
        and measured["mode_std_ratio_max"] <= BARS["mode_std_ratio_max"]
        and measured["outside_modes"] <= BARS["outside_modes"]
    )


def measure(recipe: str) -> dict[str, Any]:
    """Train a recipe and put its numbers beside the floor and the trivial baseline."""
    overrides = [f"experiment={recipe}", "training.threads=1"]
    trained = train(overrides)
    dataset = trained.dataset
    others = {seed: train([*overrides, f"seed={seed}"]) for seed in OTHER_SEEDS.get(recipe, ())}
    return {
        "core_s": round(trained.core_s, 1),
        "parameters": sum(p.numel() for p in trained.flow_map.parameters()),
        "sampler": str(sampler_of(trained.flow_map)),
        "model": judge(draws(trained.flow_map), dataset),
        "training_data": judge(data_draws(dataset), dataset),
        "one_gaussian": judge(gaussian_draws(dataset), dataset),
        "other_seeds": [
            {
                "seed": seed,
                "core_s": round(each.core_s, 1),
                "model": judge(draws(each.flow_map), dataset),
            }
            for seed, each in others.items()
        ],
        "recipe": recipe_of(trained.experiment),
    }


def verdicts(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the bars say of the recipes that are there."""
    found: dict[str, Any] = {}
    yardstick = results.get("checkerboard_flow_matching")
    for name, result in results.items():
        trainings = [result, *result.get("other_seeds", ())]
        found[name] = {"core_s": all(each["core_s"] <= BARS["core_s"] for each in trainings)}
        if name.startswith("eight_gaussians"):
            found[name]["modes"] = passes_modes(result["model"])
            found[name]["one_gaussian_fails"] = not passes_modes(result["one_gaussian"])
        elif yardstick is not None and result is not yardstick:
            ratios = [each["model"]["w2"] / yardstick["model"]["w2"] for each in trainings]
            found[name]["w2_over_flow_matching"] = round(statistics.mean(ratios), 3)
            if len(ratios) > 1:
                found[name]["w2_of_each_seed"] = [round(ratio, 3) for ratio in ratios]
                found[name]["w2_spread"] = round(statistics.stdev(ratios), 3)
            found[name]["w2"] = max(ratios) <= BARS["w2_over_flow_matching"]
            trivial = result["one_gaussian"]["w2"] / yardstick["model"]["w2"]
            found[name]["one_gaussian_fails"] = trivial > BARS["w2_over_flow_matching"]
            own, its = result["recipe"], yardstick["recipe"]
            found[name]["as_flow_matching"] = (
                all(own[part] == its[part] for part in ("data", "net"))
                and own["training"]["samples"] == its["training"]["samples"]
            )
    return found


def reached(found: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether every recipe is on the right side of every bar."""
    return all(said for each in found.values() for said in each.values() if isinstance(said, bool))


def main() -> None:
    """Run the named recipes, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=", ".join(RECIPES))
    chosen = parser.parse_args().recipes or RECIPES
    torch.set_num_threads(1)
    about, path = machine(), RESULTS / "planar.json"
    recipes = dict(json.loads(path.read_text())["recipes"]) if path.exists() else {}
    for recipe in chosen:
        recipes[recipe] = {"machine": about, **measure(recipe)}
        ordered = {name: recipes[name] for name in RECIPES if name in recipes}
        content = {
            "bars": BARS,
            "points": POINTS,
            "draws": len(NOISE_SEEDS),
            "verdicts": verdicts(ordered),
            "reached": reached(verdicts(ordered)),
            "recipes": ordered,
        }
        save("planar", content)
        print(recipe, json.dumps(recipes[recipe]["model"]), verdicts(ordered)[recipe])


if __name__ == "__main__":
    main()
