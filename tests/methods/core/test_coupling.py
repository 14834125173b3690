"""Every coupling keeps the contract of couplings, and the optimal one is optimal."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from scipy import stats

from onestep.methods.core.coupling import (
    AbstractCoupling,
    IndependentCoupling,
    MinibatchOTCoupling,
    StoredPairs,
    optimal_assignment,
)
from onestep.methods.core.record import Batch
from onestep.methods.core.rng import Rng
from onestep.tests.methods.core.contract import LEAST_P, CouplingContract, moment


class TestIndependentCoupling(CouplingContract):
    @pytest.fixture
    def coupling(self) -> AbstractCoupling:
        return IndependentCoupling()


class TestMinibatchOTCoupling(CouplingContract):
    @pytest.fixture
    def coupling(self) -> AbstractCoupling:
        return MinibatchOTCoupling()

    def test_the_pairs_are_as_near_as_any_permutation_makes_them(
        self, coupling: AbstractCoupling
    ) -> None:
        batch = self.batch(6)
        paired, _ = coupling.pair(batch, {}, moment())

        def cost(order: tuple[int, ...]) -> float:
            return (batch.x1 - batch.noise[list(order)]).square().sum().item()

        best = min(cost(order) for order in permutations(range(6)))
        assert (paired.x1 - paired.noise).square().sum().item() == pytest.approx(best)
        assert best < cost(tuple(range(6)))

    def test_data_on_a_line_are_paired_by_rank(self) -> None:
        x1, x0 = torch.tensor([[3.0], [1.0], [2.0]]), torch.tensor([[0.2], [0.9], [0.4]])
        assert optimal_assignment(x1, x0).tolist() == [1, 0, 2]


class TestLabelledOTCoupling(CouplingContract):
    @pytest.fixture
    def coupling(self) -> AbstractCoupling:
        return MinibatchOTCoupling(by_label=True)

    def test_noise_stays_within_its_label(self, coupling: AbstractCoupling) -> None:
        batch = self.batch(30)
        paired, _ = coupling.pair(batch, {}, moment())
        for label in range(3):
            rows = torch.arange(30) % 3 == label
            got = paired.noise[rows][:, 0].sort().values
            assert torch.equal(got, batch.noise[rows][:, 0].sort().values)
        assert not torch.equal(paired.noise, batch.noise)

    def test_data_without_labels_are_refused(self, coupling: AbstractCoupling) -> None:
        with pytest.raises(ValueError, match="got a batch without labels"):
            coupling.pair(replace(self.batch(4), condition=None), {}, moment())


class TestStoredPairs(CouplingContract):
    @pytest.fixture
    def coupling(self) -> AbstractCoupling:
        return StoredPairs()

    def test_the_stored_noise_is_kept(self, coupling: AbstractCoupling) -> None:
        batch = self.batch(8)
        paired, _ = coupling.pair(batch, {}, moment())
        assert torch.equal(paired.noise, batch.noise)

    def test_data_without_noise_are_refused(self, coupling: AbstractCoupling) -> None:
        with pytest.raises(ValueError, match="got data without noise"):
            coupling.pair(replace(self.batch(4), x0=None), {}, moment())


@pytest.mark.parametrize("coupling", [IndependentCoupling(), MinibatchOTCoupling()])
def test_the_noise_is_standard_normal(coupling: AbstractCoupling) -> None:
    """n = 4096 in batches of 64, by Kolmogorov and Smirnov; noise of the wrong width fails."""
    parts = []
    for step in range(64):
        x1 = Rng.seeded(8, step=step).normal(64, 1, dtype=torch.float64) * 0.5 + 3.0
        batch = Batch(x1=x1, index=torch.arange(64))
        parts.append(coupling.pair(batch, {}, moment(step))[0].noise[:, 0])
    noise = torch.cat(parts).numpy()
    assert stats.kstest(noise, "norm").pvalue > LEAST_P
    assert stats.kstest(1.1 * noise, "norm").pvalue < LEAST_P


def test_optimal_pairs_lie_nearer_than_independent_ones() -> None:
    x1 = Rng.seeded(8).normal(64, 2)
    batch = Batch(x1=x1, index=torch.arange(64))
    distances = [
        (coupling.pair(batch, {}, moment())[0].noise - x1).square().mean().item()
        for coupling in (MinibatchOTCoupling(), IndependentCoupling())
    ]
    assert distances[0] < 0.3 * distances[1]


def test_the_cost_of_optimal_pairs_comes_to_the_least_one_as_batches_grow() -> None:
    """Card 1: m^2 + sum of (std - 1)^2 for normal data; independent pairs cost twice the stds more.

    Of 4096 pairs in batches of 1, 16, 64 and 256, in two dimensions; 4 standard errors are 0.05.
    """
    mean, std = torch.tensor([0.7, -0.2]).double(), torch.tensor([0.5, 0.8]).double()
    x1 = mean + std * Rng.seeded(8).normal(4096, 2, dtype=torch.float64)

    def cost(size: int) -> float:
        total = 0.0
        for step, rows in enumerate(x1.split(size)):
            paired, _ = MinibatchOTCoupling().pair(
                Batch(x1=rows, index=torch.arange(size)), {}, moment(step)
            )
            total += (paired.noise - rows).square().sum().item()
        return total / 4096

    least = (mean.square() + (std - 1.0).square()).sum().item()
    found = [cost(size) - least for size in (1, 16, 64, 256)]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(2.0 * std.sum().item(), abs=0.15)
    assert found[-1] == pytest.approx(0.0, abs=0.1)
    assert found[1] > 0.3
