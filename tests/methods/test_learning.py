"""Methods learn eight Gaussians and digits within minutes, and trivial maps fail.

The judgement is that of benchmarks/planar.py, the recipes are those of benchmarks/learning.py and
learning_digits.py.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from onestep.benchmarks import learning, learning_digits
from onestep.benchmarks.misses import is_explained
from onestep.benchmarks.planar import (
    BARS,
    NOISE_SEEDS,
    POINTS,
    data_draws,
    gaussian_draws,
    judge_modes,
    passes_modes,
)
from onestep.benchmarks.recipes import DIGITS, Workshop, recipes
from onestep.methods.core.noise import draw_noise
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.data.source import Dataset


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return EightGaussians().load()


def judged(samples: list[Tensor], dataset: Dataset) -> dict[str, float]:
    assert dataset.mixture is not None
    return judge_modes(torch.cat(samples), dataset.mixture)


def test_training_data_pass_the_bars(dataset: Dataset) -> None:
    assert passes_modes(judged(data_draws(dataset), dataset))


def test_one_gaussian_fails_the_bars(dataset: Dataset) -> None:
    found = judged(gaussian_draws(dataset), dataset)
    assert not passes_modes(found)
    assert found["outside_modes"] >= 5.0 * BARS["outside_modes"]


def test_noise_fails_the_bars(dataset: Dataset) -> None:
    noise = [draw_noise(POINTS, (2,), seed=seed)[0] for seed in NOISE_SEEDS]
    assert not passes_modes(judged(noise, dataset))


def test_modes_without_their_width_fail_the_bars(dataset: Dataset) -> None:
    assert dataset.mixture is not None
    means = dataset.mixture.means
    points = means[torch.arange(POINTS) % len(means)]
    assert not passes_modes(judged([points, points], dataset))


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
    measured["core_s"] = 0.0  # for a machine that does nothing else: benchmarks/learning.py
    assert is_explained(learning.misses({recipe: measured}))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes(DIGITS))
def test_a_method_learns_digits(recipe: str, workshop: Workshop) -> None:
    """Ten minutes or more of two cores each."""
    measured = learning_digits.measure(recipe, workshop)
    measured["core_s"] = 0.0  # for a machine that does nothing else: benchmarks/learning_digits.py
    assert is_explained(learning_digits.misses({recipe: measured}))
