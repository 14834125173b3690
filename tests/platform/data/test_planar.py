import math

import numpy as np
import pytest
import torch

from onestep.platform.data.checkerboard import SIDE, Checkerboard, share_in_forbidden
from onestep.platform.data.curves import Moons, Spiral, SwissRoll
from onestep.platform.data.gaussians import EightGaussians, TwentyFiveGaussians
from onestep.platform.data.planar import AbstractPlanar

SOURCES = [EightGaussians, TwentyFiveGaussians, Checkerboard, Moons, Spiral, SwissRoll]
MIXTURES = [EightGaussians, TwentyFiveGaussians]
each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
each_mixture = pytest.mark.parametrize("source", MIXTURES, ids=lambda source: source.__name__)


@each_source
def test_the_mean_variance_of_the_coordinates_is_one(source: type[AbstractPlanar]) -> None:
    x, _ = source(samples=50_000).load().train.everything()
    centred = (x - x.mean(0)).double()
    squares = centred.square().mean(1)
    standard_error = squares.std().item() / math.sqrt(len(x))
    noise = {Moons: 0.07, Spiral: 0.05, SwissRoll: 0.05}.get(source, 0.0)
    expected = 4 / 3 * SIDE**2 if source is Checkerboard else 1.0 + noise**2
    assert abs(squares.mean().item() - expected) < 4 * standard_error
    assert abs(expected - 1.0) < 0.03


@each_source
def test_the_same_fields_give_the_same_digest_and_another_seed_another(
    source: type[AbstractPlanar],
) -> None:
    first = source(samples=500, held_out=200).load()
    assert first.digest == source(samples=500, held_out=200).load().digest
    assert first.digest != source(samples=500, held_out=200, seed=1).load().digest


@each_source
def test_drawing_leaves_global_random_state_alone(source: type[AbstractPlanar]) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    source(samples=100, held_out=200).load()
    assert torch.equal(torch_before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()


@each_source
def test_held_out_points_are_not_training_points(source: type[AbstractPlanar]) -> None:
    data = source(samples=2000, held_out=200).load()
    assert torch.cdist(data.held_out.x, data.train.x).min() > 0


@each_mixture
def test_the_held_out_modes_are_exactly_balanced(
    source: type[EightGaussians | TwentyFiveGaussians],
) -> None:
    data = source(samples=100, held_out=1000, std=0.05).load()
    assert data.mixture is not None
    mode = torch.cdist(data.held_out.x, data.mixture.means).argmin(1)
    modes = len(data.mixture.means)
    assert mode.bincount(minlength=modes).tolist() == [1000 // modes] * modes


@each_mixture
def test_the_points_follow_the_mixture(
    source: type[EightGaussians | TwentyFiveGaussians],
) -> None:
    data = source().load()
    mixture = data.mixture
    assert mixture is not None
    x = data.held_out.x
    offset = x - mixture.means[torch.arange(len(x)) % len(mixture.means)]
    n = offset.numel()
    assert abs(offset.mean().item()) < 4 * mixture.std / math.sqrt(n)
    assert abs(offset.std().item() / mixture.std - 1) < 4 / math.sqrt(2 * n)
    assert mixture.weights.sum().item() == pytest.approx(1.0)


def test_eight_gaussians_lie_on_a_circle_at_the_documented_scale() -> None:
    mixture = EightGaussians().mixture
    assert mixture.means.norm(dim=1).tolist() == pytest.approx([1.4003] * 8, abs=1e-4)
    assert mixture.std == pytest.approx(0.1400, abs=1e-4)


def test_twenty_five_gaussians_lie_on_a_grid_at_the_documented_scale() -> None:
    mixture = TwentyFiveGaussians().mixture
    spacing = mixture.means[:, 0].unique().diff()
    assert spacing.tolist() == pytest.approx([0.7053] * 4, abs=1e-4)
    assert mixture.std == pytest.approx(0.0705, abs=1e-4)


def test_the_checkerboard_has_no_point_in_a_forbidden_square() -> None:
    data = Checkerboard().load()
    assert share_in_forbidden(data.train.x) == 0.0
    assert share_in_forbidden(data.held_out.x) == 0.0


def test_half_the_board_and_everything_outside_is_forbidden() -> None:
    grid = (torch.arange(4) - 1.5) * SIDE
    centres = torch.cartesian_prod(grid, grid)
    assert share_in_forbidden(centres) == 0.5
    assert share_in_forbidden(centres + 4 * SIDE) == 1.0


def test_the_squares_of_the_checkerboard_are_equally_likely() -> None:
    x = Checkerboard().load().train.x
    cell = torch.floor(x / SIDE).long() + 2
    counts = (4 * cell[:, 1] + cell[:, 0]).bincount(minlength=16)
    counts = counts[counts > 0].double()
    expected = len(x) / 8
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert len(counts) == 8
    assert chi_square < 7 + 4 * math.sqrt(14)  # mean and standard deviation at 7 degrees


def test_the_moons_are_half_circles() -> None:
    x = Moons(noise=0.01).load().train.x.double() * 0.7051 + torch.tensor([0.5, 0.25])
    upper = (x.norm(dim=1) - 1).abs()
    lower = ((x - torch.tensor([1.0, 0.5])).norm(dim=1) - 1).abs()
    assert torch.minimum(upper, lower).max() < 5 * 0.01
    assert 0.45 < (upper < lower).double().mean() < 0.55


def test_the_radius_of_the_spiral_grows_with_its_angle() -> None:
    x = Spiral(noise=0.01).load().train.x.double()
    x = x[x.norm(dim=1) > 0.3]
    gap = 2 / 3  # between the arms
    residual = x.norm(dim=1) - torch.atan2(x[:, 1], x[:, 0]) / (1.5 * math.pi)
    residual = (residual + gap / 2) % gap - gap / 2
    assert residual.abs().max() < 0.1
    assert 1.8 < x.norm(dim=1).max() < 2.1


def test_the_radius_of_the_swiss_roll_is_its_angle() -> None:
    x = SwissRoll(noise=0.001).load().train.x.double()
    x = x * 6.789 + torch.tensor([2.0, 2 / (3 * math.pi)])
    residual = x.norm(dim=1) - torch.atan2(x[:, 1], x[:, 0])
    residual = (residual + math.pi) % (2 * math.pi) - math.pi
    assert residual.abs().max() < 0.1


@each_source
def test_no_training_points_are_refused(source: type[AbstractPlanar]) -> None:
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        source(samples=0)


def test_a_reference_that_cannot_be_balanced_is_refused() -> None:
    with pytest.raises(ValueError, match="positive multiple of the 8 parts of eight_gaussians"):
        EightGaussians(held_out=1001)


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan, math.inf])
def test_a_width_that_is_not_positive_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match="std must be positive"):
        EightGaussians(std=std)
