"""Methods learn eight Gaussians and digits within minutes, and trivial maps fail.

The judgement and the recipes are those of benchmarks/learning.py and learning_digits.py.
"""

from collections.abc import Callable, Iterator
from typing import Final

import pytest
import torch
from torch import Tensor

from onestep.benchmarks import learning, learning_digits
from onestep.benchmarks.misses import is_explained
from onestep.benchmarks.planar import (
    NOISE_SEEDS,
    POINTS,
    data_draws,
    gaussian_draws,
    judge_modes,
)
from onestep.benchmarks.recipes import DIGITS, Workshop, recipes
from onestep.methods.core.noise import draw_noise
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.data.source import Dataset
from onestep.platform.evaluation.modes import nearest_mode

SLACK: Final = 1.5
"""How much longer than its bar says a recipe may take here: other machines have other cores."""


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return EightGaussians().load()


def missed(samples: list[Tensor], dataset: Dataset) -> set[str]:
    """The numbers of samples that do not reach the bars of the recipes."""
    assert dataset.mixture is not None
    return {*learning.missed(judge_modes(torch.cat(samples), dataset.mixture))}


def noise_draws(dataset: Dataset) -> list[Tensor]:
    del dataset
    return [draw_noise(POINTS, (2,), seed=seed)[0] for seed in NOISE_SEEDS]


def draws_without_width(dataset: Dataset) -> list[Tensor]:
    """The means of the modes, in turn."""
    assert dataset.mixture is not None
    means = dataset.mixture.means
    points = means[torch.arange(POINTS) % len(means)]
    return [points, points]


def lopsided_draws(dataset: Dataset) -> list[Tensor]:
    """Training data without three quarters of the first mode."""
    assert dataset.mixture is not None
    x = torch.cat(data_draws(dataset))
    mode, _ = nearest_mode(x, dataset.mixture)
    return [x[(mode != 0) | (torch.arange(len(x)) % 4 == 0)]]


WIDE = {"mode_std_ratio_max", "outside_modes"}
BASELINES: Final = [
    (gaussian_draws, WIDE),
    (noise_draws, WIDE),
    (draws_without_width, {"mode_std_ratio_min"}),
    (lopsided_draws, {"mode_mass_tv"}),
]
"""Samples that took no training, and the bars that refuse them."""


def test_training_data_pass_the_bars(dataset: Dataset) -> None:
    assert missed(data_draws(dataset), dataset) == set()


@pytest.mark.parametrize(("baseline", "refused_by"), BASELINES)
def test_a_baseline_fails_the_bars(
    baseline: Callable[[Dataset], list[Tensor]], refused_by: set[str], dataset: Dataset
) -> None:
    assert missed(baseline(dataset), dataset) == refused_by


def test_every_bar_refuses_a_baseline() -> None:
    assert set[str]().union(*(bars for _, bars in BASELINES)) == {*learning.MOST, *learning.LEAST}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONESTEP_HOME", "")  # a workshop sets it, and it is taken back
        yield Workshop(tmp_path_factory.mktemp("home"))
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes())
def test_a_method_learns_the_eight_gaussians_in_one_step(recipe: str, workshop: Workshop) -> None:
    measured = learning.measure(recipe, workshop)
    measured["core_s"] /= SLACK
    assert is_explained(learning.misses({recipe: measured}))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes(DIGITS))
def test_a_method_learns_digits(recipe: str, workshop: Workshop) -> None:
    """Ten minutes or more of two cores each."""
    measured = learning_digits.measure(recipe, workshop)
    measured["core_s"] /= SLACK
    assert is_explained(learning_digits.misses({recipe: measured}))
