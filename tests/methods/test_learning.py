"""Methods learn the eight Gaussians in one step within minutes of one core, and trivial maps fail.

The bars, the recipes and the judgement are those of benchmarks/planar.py.
"""

import pytest
import torch
from torch import Tensor

from onestep.benchmarks.planar import (
    BARS,
    NOISE_SEEDS,
    POINTS,
    Trained,
    data_draws,
    draws,
    gaussian_draws,
    judge_modes,
    passes_modes,
    train,
)
from onestep.methods.core.noise import draw_noise
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.data.source import Dataset


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return EightGaussians().load()


def measured(samples: list[Tensor], dataset: Dataset) -> dict[str, float]:
    assert dataset.mixture is not None
    return judge_modes(torch.cat(samples), dataset.mixture)


def test_training_data_pass_the_bars(dataset: Dataset) -> None:
    assert passes_modes(measured(data_draws(dataset), dataset))


def test_one_gaussian_fails_the_bars(dataset: Dataset) -> None:
    found = measured(gaussian_draws(dataset), dataset)
    assert not passes_modes(found)
    assert found["outside_modes"] >= 5.0 * BARS["outside_modes"]


def test_noise_fails_the_bars(dataset: Dataset) -> None:
    noise = [draw_noise(POINTS, (2,), seed=seed)[0] for seed in NOISE_SEEDS]
    assert not passes_modes(measured(noise, dataset))


def test_modes_without_their_width_fail_the_bars(dataset: Dataset) -> None:
    assert dataset.mixture is not None
    means = dataset.mixture.means
    points = means[torch.arange(POINTS) % len(means)]
    assert not passes_modes(measured([points, points], dataset))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mean_flow", "shortcut"])
def test_a_method_learns_the_eight_gaussians_in_one_step(method: str) -> None:
    threads = torch.get_num_threads()
    try:
        trained: Trained = train(f"eight_gaussians_{method}")
        found = measured(draws(trained.flow_map), trained.dataset)
    finally:
        torch.set_num_threads(threads)
    assert found["mode_mass_tv"] <= BARS["mode_mass_tv"]
    assert found["mode_std_ratio_min"] >= BARS["mode_std_ratio_min"]
    assert found["mode_std_ratio_max"] <= BARS["mode_std_ratio_max"]
    assert found["outside_modes"] <= BARS["outside_modes"]
