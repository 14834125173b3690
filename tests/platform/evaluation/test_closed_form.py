"""Metrics against closed forms of Gaussians, within their own standard errors."""

import math
from collections.abc import Callable

import pytest
import torch

from onestep.platform.data.source import Mixture
from onestep.platform.evaluation.agreement import ForbiddenSquares
from onestep.platform.evaluation.frechet import frechet_distance, gaussian_frechet
from onestep.platform.evaluation.kernel import energy_distance, median_bandwidth, squared_mmd
from onestep.platform.evaluation.manifold import density_coverage, precision_recall
from onestep.platform.evaluation.memorisation import Memorisation, rank_statistic
from onestep.platform.evaluation.modes import Modes, mass_total_variation, nearest_mode
from onestep.platform.evaluation.nearest import nearest_distance
from onestep.platform.evaluation.neighbour import (
    OneNearestNeighbour,
    one_nearest_neighbour_accuracies,
)
from onestep.platform.evaluation.population import Population, Reference
from onestep.platform.evaluation.transport import directions, sliced_wasserstein2, wasserstein2


def normal(n: int, d: int, seed: int, *, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(n, d, generator=rng, dtype=torch.float64)


def replicate(measure: Callable[[int], float], *, draws: int) -> tuple[float, float]:
    """Mean and standard error of a statistic over seeds."""
    values = torch.tensor([measure(seed) for seed in range(draws)], dtype=torch.float64)
    return values.mean().item(), values.std().item() / math.sqrt(draws)


def test_w2_between_points_and_their_translation_is_its_length() -> None:
    x = normal(300, 3, 0)
    shift = torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64)
    assert wasserstein2(x, x + shift) == pytest.approx(3.0, abs=1e-9)


def test_w2_in_one_dimension_is_that_of_sorted_points() -> None:
    x, y = normal(200, 1, 0), normal(200, 1, 1, mean=0.5, std=2.0)
    exact = (x.sort(0).values - y.sort(0).values).square().mean().sqrt().item()
    assert wasserstein2(x, y) == pytest.approx(exact, abs=1e-9)


def test_both_solvers_of_the_assignment_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(150, 2, 0), normal(150, 2, 1, mean=1.0)
    by_assignment = wasserstein2(x, y)
    monkeypatch.setattr("onestep.platform.evaluation.transport._ASSIGNMENT_LIMIT", 0)
    assert wasserstein2(x, y) == pytest.approx(by_assignment, abs=1e-9)


def test_w2_of_gaussians_matches_the_closed_form() -> None:
    # In one dimension W2^2 = (m - m')^2 + (c - c')^2, and the bias is of order log log n / n.
    mean, error = replicate(
        lambda k: wasserstein2(normal(400, 1, 2 * k), normal(400, 1, 2 * k + 1, mean=2, std=3)),
        draws=12,
    )
    assert abs(mean - math.sqrt(8.0)) < 4 * error


def test_sliced_w2_of_a_translation_matches_the_closed_form() -> None:
    # E (a . w)^2 = |a|^2 / d over the sphere; for a fixed set of directions it is their mean.
    x, fixed = normal(400, 4, 0), directions(4, count=512, seed=0)
    shift = torch.tensor([3.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    value = sliced_wasserstein2(x, x + shift, fixed)
    assert value == pytest.approx((shift @ fixed).square().mean().sqrt().item(), abs=1e-9)
    # The variance of w_1^2 on the sphere in d = 4 is 2 (d - 1) / (d^2 (d + 2)) = 1 / 16.
    assert abs(value**2 - 9.0 / 4.0) < 4 * 9.0 * 0.25 / math.sqrt(512)


def test_energy_distance_of_gaussians_matches_the_closed_form() -> None:
    # E|X - Y| of N(m, v): m erf(m / sqrt(2 v)) + sqrt(2 v / pi) exp(-m^2 / (2 v)), with v = 2.
    shift = 1.5
    between = shift * math.erf(shift / 2) + 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4)
    exact = 2 * between - 2 * 2 / math.sqrt(math.pi)
    mean, error = replicate(
        lambda k: energy_distance(normal(300, 1, 2 * k), normal(300, 1, 2 * k + 1, mean=shift)),
        draws=40,
    )
    assert abs(mean - exact) < 4 * error


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_mmd_of_gaussians_is_unbiased(shift: float) -> None:
    # The kernel smooths N(m, 1) - N(0, 1): E k = h / sqrt(h^2 + 2) exp(-m^2 / (2 (h^2 + 2))).
    width = 0.8
    peak = width / math.sqrt(width**2 + 2)
    exact = 2 * peak * (1 - math.exp(-(shift**2) / (2 * (width**2 + 2))))
    mean, error = replicate(
        lambda k: squared_mmd(
            normal(200, 1, 2 * k), normal(150, 1, 2 * k + 1, mean=shift), bandwidth=width
        ),
        draws=60,
    )
    assert error < 0.01
    assert abs(mean - exact) < 4 * error


def test_the_bandwidth_is_the_median_distance_of_the_reference() -> None:
    # |X - X'| of a standard normal in one dimension is sqrt(2) |N|, whose median is .9539.
    assert median_bandwidth(normal(3000, 1, 0)) == pytest.approx(0.9539, rel=0.05)


@pytest.mark.parametrize("side", [0, 1])
def test_one_nearest_neighbour_accuracy_is_one_half_for_equal_laws(side: int) -> None:
    mean, error = replicate(
        lambda k: one_nearest_neighbour_accuracies(
            normal(300, 5, 2 * k), normal(300, 5, 2 * k + 1)
        )[side],
        draws=24,
    )
    assert abs(mean - 0.5) < 4 * error
    assert error < 0.01


def test_one_nearest_neighbour_accuracy_is_one_for_separate_sets_and_zero_for_twins() -> None:
    x = normal(50, 3, 0)
    assert one_nearest_neighbour_accuracies(x, x + 100.0) == (1.0, 1.0)
    assert one_nearest_neighbour_accuracies(x, x + 1e-6) == (0.0, 0.0)


def test_noise_on_top_of_data_deceives_the_accuracy_of_the_neighbour_but_not_its_deviation() -> (
    None
):
    """Across a plane in 200 dimensions, noisy points lie nearer to the plane than to each other."""
    plane = torch.eye(2, 200, dtype=torch.float64)
    data, other, third = (Population.of(normal(400, 2, seed) @ plane) for seed in range(3))
    reference = Reference(held_out=data, train=third)
    noisy = Population.of(other.x + 0.5 * normal(400, 200, 3))
    found = OneNearestNeighbour().compute(noisy, reference)
    assert found["eval/1nn_accuracy"] == pytest.approx(0.5, abs=0.02)
    assert found["eval/1nn_deviation"] > 0.45
    assert OneNearestNeighbour().compute(other, reference)["eval/1nn_deviation"] < 0.05


def test_precision_and_recall_of_a_set_with_itself_are_one() -> None:
    x = normal(200, 4, 0)
    assert precision_recall(x, x) == (1.0, 1.0)


def test_precision_and_recall_tell_lost_variety_from_lost_quality() -> None:
    data = torch.cat([normal(100, 2, 0), normal(100, 2, 1, mean=20.0)])
    precision, recall = precision_recall(normal(200, 2, 2), data)
    assert precision > 0.9
    assert recall <= 0.55


def test_density_of_a_set_with_itself_counts_the_point_and_its_neighbours() -> None:
    # Each ball holds its own k neighbours and itself, so density is (k + 1) / k.
    x = normal(200, 4, 0)
    assert density_coverage(x, x, neighbours=5) == pytest.approx((1.2, 1.0))


def test_expected_coverage_of_equal_laws_matches_its_closed_form() -> None:
    # Naeem et al., Lemma 2, for n samples and m data: 1 - prod_i (m - i) / (n + m - i), i = 1..k.
    n, k = 300, 5
    exact = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    mean, error = replicate(
        lambda s: density_coverage(normal(n, 2, 2 * s), normal(n, 2, 2 * s + 1), neighbours=k)[1],
        draws=24,
    )
    assert abs(mean - exact) < 4 * error


def test_frechet_distance_between_gaussians_matches_the_closed_form() -> None:
    cov = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    other = torch.diag(torch.tensor([9.0, 1.0], dtype=torch.float64))
    mean = torch.tensor([0.0, 0.0], dtype=torch.float64)
    shift = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert gaussian_frechet(mean, cov, shift, other) == pytest.approx(25.0 + 4.0 + 1.0)


def test_frechet_distance_does_not_ask_for_commuting_covariances() -> None:
    a, b = normal(40, 3, 0), normal(40, 3, 1)
    cov, other = a.T.cov(), b.T.cov()
    value = torch.linalg.eigvals(cov @ other)
    zero = torch.zeros(3, dtype=torch.float64)
    exact = (cov.trace() + other.trace()).item() - 2.0 * value.real.sqrt().sum().item()
    assert gaussian_frechet(zero, cov, zero, other) == pytest.approx(exact, abs=1e-9)


def test_frechet_distance_of_samples_matches_the_closed_form() -> None:
    mean, error = replicate(
        lambda k: frechet_distance(normal(4000, 2, 2 * k), normal(4000, 2, 2 * k + 1, mean=1.0)),
        draws=24,
    )
    assert abs(mean - 2.0) < 4 * error + 0.003  # bias of order d / n


def test_copies_of_training_data_are_seen_as_memorised() -> None:
    train = Population.of(normal(500, 3, 0))
    reference = Reference(held_out=Population.of(normal(100, 3, 1)), train=train)
    found = Memorisation().compute(train[torch.arange(100)], reference)
    assert found == {"eval/memorisation_ratio": 0.0, "eval/memorisation_rank": 1.0}


def test_training_data_that_knows_its_rows_is_as_far_away_as_fresh_data() -> None:
    x = normal(2000, 3, 0)
    rows = torch.arange(400)
    held_out = Population.of(normal(400, 3, 1))
    reference = Reference(held_out=held_out, train=Population.of(x))
    samples = Population(x=x[rows], features=x[rows], rows=rows)
    found = Memorisation().compute(samples, reference)
    # The rank statistic of equal laws has a standard error of sqrt(1 / (12 * 200)) = .0204.
    assert abs(found["eval/memorisation_rank"] - 0.5) < 4 * 0.0204


@pytest.mark.parametrize("dimension", [2, 12])
def test_nearest_distances_agree_with_all_pairs(dimension: int) -> None:
    x = normal(40, dimension, 0)
    data = torch.cat([normal(5000, dimension, 1), x])
    own = torch.arange(5000, 5040)
    pairs = torch.cdist(x, data)
    assert torch.allclose(nearest_distance(x, data), torch.zeros(40).double(), atol=1e-6)
    pairs[torch.arange(40), own] = float("inf")
    assert torch.allclose(nearest_distance(x, data, own=own), pairs.min(1).values, atol=1e-9)


def test_the_rank_statistic_counts_ties_by_half() -> None:
    assert rank_statistic(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])) == 0.875


def test_a_lost_mode_costs_its_weight() -> None:
    weights = torch.tensor([0.5, 0.25, 0.25])
    assert mass_total_variation(torch.tensor([0, 0, 1, 1]), weights) == 0.25


def test_modes_of_wide_samples_show_their_width_and_their_outliers() -> None:
    mixture = Mixture(
        means=torch.tensor([[0.0, 0.0], [100.0, 0.0]]),
        std=1.0,
        weights=torch.tensor([0.5, 0.5]),
    )
    x = normal(20_000, 2, 0, std=1.5)
    x[::2, 0] += 100.0
    empty = Population.of(x[:2])
    reference = Reference(held_out=empty, train=empty, mixture=mixture)
    found = Modes().compute(Population.of(x), reference)
    # The radius of a round Gaussian exceeds r with probability exp(-r^2 / (2 c^2)).
    outside = math.exp(-16.0 / (2 * 1.5**2))
    assert abs(found["eval/outside_modes"] - outside) < 4 * math.sqrt(outside / 20_000)
    assert found["eval/mode_mass_tv"] == 0.0
    assert found["eval/mode_std_ratio_min"] == pytest.approx(1.5, rel=0.03)
    assert found["eval/mode_std_ratio_max"] == pytest.approx(1.5, rel=0.03)
    assert torch.equal(nearest_mode(x[:2], mixture)[0], torch.tensor([1, 0]))


def test_half_of_a_uniform_board_is_forbidden() -> None:
    rng = torch.Generator().manual_seed(0)
    x = (torch.rand(4000, 2, generator=rng) - 0.5) * 3.5
    points = Population.of(x)
    reference = Reference(held_out=points, train=points)
    share = ForbiddenSquares().compute(points, reference)["eval/forbidden_share"]
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: wasserstein2(normal(3, 2, 0), normal(4, 2, 0)),
        lambda: one_nearest_neighbour_accuracies(normal(3, 2, 0), normal(4, 2, 0)),
        lambda: squared_mmd(normal(3, 2, 0), normal(4, 2, 0), bandwidth=0.0),
        lambda: energy_distance(normal(1, 2, 0), normal(4, 2, 0)),
        lambda: precision_recall(normal(3, 2, 0), normal(4, 2, 0), neighbours=3),
        lambda: frechet_distance(normal(1, 2, 0), normal(4, 2, 0)),
        lambda: median_bandwidth(torch.zeros(4, 2)),
    ],
)
def test_sets_on_which_a_statistic_means_nothing_are_refused(
    refused: Callable[[], object],
) -> None:
    with pytest.raises(ValueError, match="got"):
        refused()
