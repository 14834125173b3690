"""LOOM: kept noise is normal, is never lost, and comes nearer to its data with every batch."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from scipy import stats
from torch import Tensor

from onestep.methods.core.coupling import (
    AbstractCoupling,
    CouplingState,
    MinibatchOTCoupling,
    optimal_assignment,
)
from onestep.methods.core.loom import Loom, seeded_noise
from onestep.methods.core.record import Batch
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear
from onestep.tests.methods.core.contract import LEAST_P, CouplingContract, moment

NUM_DATA = 256


class TestLoom(CouplingContract):
    permutes = False

    @pytest.fixture
    def coupling(self) -> AbstractCoupling:
        return Loom()


class TestLoomOfSixCaches(CouplingContract):
    permutes = False

    @pytest.fixture
    def coupling(self) -> AbstractCoupling:
        return Loom(caches=6, refresh=Constant(value=0.1), by_label=True)


def data(n: int = NUM_DATA, d: int = 2) -> Tensor:
    return 0.5 * Rng.seeded(8).normal(n, d, dtype=torch.float64) + 1.0


def rounds(
    coupling: Loom, x1: Tensor, *, batch_size: int, many: int
) -> Iterator[tuple[Tensor, CouplingState]]:
    """Noise of every datum, and the state, after each round in which every datum was seen once."""
    state, step = coupling.initial(len(x1), tuple(x1.shape[1:])), 0
    for turn in range(many):
        order = Rng.seeded(1, step=turn).uniform(len(x1)).argsort()
        noise = torch.empty_like(x1)
        for rows in order.split(batch_size):
            paired, state = coupling.pair(Batch(x1=x1[rows], index=rows), state, moment(step))
            noise[rows], step = paired.noise, step + 1
        yield noise, state


def squared(x1: Tensor, state: CouplingState) -> float:
    noise = seeded_noise(state["seed"][:, 0], tuple(x1.shape[1:]), dtype=x1.dtype)
    return (noise - x1).square().sum().item()


# The noise of a seed.


def test_noise_is_standard_normal_and_its_coordinates_are_independent() -> None:
    """40 000 rows by Kolmogorov and Smirnov; correlations within 5 standard errors."""
    noise = seeded_noise(torch.arange(40_000), (5,), dtype=torch.float64)
    for column in noise.T.numpy():
        assert stats.kstest(column, "norm").pvalue > LEAST_P
        assert stats.kstest(1.05 * column, "norm").pvalue < LEAST_P
    for view in (noise, noise.square() - 1.0):
        off = (view.T @ view / len(view)).fill_diagonal_(0.0).abs().max().item()
        assert off / view.var().item() <= 5.0 / len(view) ** 0.5
    following = (noise[1:] * noise[:-1]).mean(0).abs().max().item()
    assert following <= 5.0 / len(noise) ** 0.5


def test_noise_depends_on_its_own_seed_alone() -> None:
    seeds = torch.tensor([3, 2**61 + 5, 0])
    noise = seeded_noise(seeds, (1, 3, 3), dtype=torch.float32)
    assert noise.shape == (3, 1, 3, 3)
    assert noise.dtype == torch.float32
    for k in range(3):
        alone = seeded_noise(seeds[k : k + 1], (1, 3, 3), dtype=torch.float32)
        assert torch.equal(noise[k : k + 1], alone)
    assert len(noise.flatten().unique()) == 27


def test_first_noises_are_standard_normal_and_differ_with_the_seed() -> None:
    states = [Loom(caches=4, seed=seed).initial(5_000, (2,))["seed"] for seed in (0, 1)]
    for seeds in states:
        assert len(seeds.unique()) == 20_000
        noise = seeded_noise(seeds.flatten(), (2,), dtype=torch.float64)
        assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > LEAST_P
    assert not set(states[0].flatten().tolist()) & set(states[1].flatten().tolist())


# The coupling.


def excess(loom: Loom, x1: Tensor) -> list[float]:
    """How far the distance is above the least one of the same noises, after each of ten rounds."""
    found = []
    for _, state in rounds(loom, x1, batch_size=32, many=10):
        noise = seeded_noise(state["seed"][:, 0], (2,), dtype=x1.dtype)
        best = (noise[optimal_assignment(x1, noise)] - x1).square().sum().item()
        found.append(squared(x1, state) / best - 1.0)
    return found


def test_the_distance_never_rises_and_ends_near_the_optimum_of_the_whole_set() -> None:
    """Batches of 32 of 256 data; transport within the batch, which forgets, stays 9 % above it."""
    kept = excess(Loom(), data())
    assert all(a >= b - 1e-9 for a, b in pairwise(kept))
    assert kept[-1] <= 0.015
    assert min(excess(Loom(refresh=Constant(value=1.0)), data())) >= 0.05


def test_the_cost_in_sixteen_dimensions_falls_as_in_the_card() -> None:
    """Card 6: 1024 data in batches of 128, 31.8 -> 14.2 after a round -> 10.89 after 40."""
    x1 = Rng.seeded(8).normal(1024, 16, dtype=torch.float64)
    states = [state for _, state in rounds(Loom(), x1, batch_size=128, many=40)]
    start = squared(x1, Loom().initial(1024, (16,))) / 1024
    first, last = (squared(x1, state) / 1024 for state in (states[0], states[-1]))
    noise = seeded_noise(states[-1]["seed"][:, 0], (16,), dtype=x1.dtype)
    best = (noise[optimal_assignment(x1, noise)] - x1).square().sum().item() / 1024
    assert [start, first, last, best] == pytest.approx([31.8, 14.2, 10.89, 10.40], rel=0.03)
    assert first / best > 1.3 > 1.07 > last / best


def test_no_noise_is_lost() -> None:
    loom = Loom(caches=3)
    before = loom.initial(NUM_DATA, (2,))["seed"].flatten().sort().values
    *_, (_, state) = rounds(loom, data(), batch_size=32, many=3)
    assert torch.equal(state["seed"].flatten().sort().values, before)


def test_the_noise_that_is_kept_is_the_noise_that_was_paired() -> None:
    *_, (noise, state) = rounds(Loom(), data(), batch_size=32, many=1)
    assert torch.equal(seeded_noise(state["seed"][:, 0], (2,), dtype=torch.float64), noise)


def test_small_batches_come_near_to_a_deterministic_coupling_on_a_line() -> None:
    """Batches of two, n = 128, correlation of the ranks."""
    x1 = data(128, d=1)
    *_, (noise, _) = rounds(Loom(), x1, batch_size=2, many=20)
    kept = stats.spearmanr(noise[:, 0], x1[:, 0]).statistic
    *_, (noise, _) = rounds(Loom(refresh=Constant(value=1.0)), x1, batch_size=2, many=1)
    forgetful = stats.spearmanr(noise[:, 0], x1[:, 0]).statistic
    assert kept >= 0.9
    assert forgetful <= 0.75


def test_fresh_noise_in_every_row_is_transport_within_the_batch() -> None:
    loom = Loom(refresh=Constant(value=1.0))
    batch = Batch(x1=data(32), index=torch.arange(32))
    paired, _ = loom.pair(batch, loom.initial(NUM_DATA, (2,)), moment())
    again, _ = MinibatchOTCoupling().pair(batch.with_noise(paired.noise.flip(0)), {}, moment())
    assert torch.equal(again.noise, paired.noise)
    other, _ = loom.pair(batch, loom.initial(NUM_DATA, (2,)), moment(1))
    assert not set(other.noise[:, 0].tolist()) & set(paired.noise[:, 0].tolist())


def test_a_share_of_the_noise_is_replaced() -> None:
    """A quarter of 256; 4 standard errors."""
    loom = Loom(refresh=Constant(value=0.25))
    state = loom.initial(NUM_DATA, (2,))
    *_, (_, after) = rounds(loom, data(), batch_size=32, many=1)
    new = len(set(after["seed"].flatten().tolist()) - set(state["seed"].flatten().tolist()))
    assert abs(new - 64) <= 4 * (256 * 0.25 * 0.75) ** 0.5


def test_noise_stays_within_its_label() -> None:
    loom = Loom(by_label=True)
    contract = CouplingContract()
    contract.num_data = 64  # type: ignore[misc]
    batch, state = contract.batch(30), loom.initial(64, (2,))
    _, after = loom.pair(batch, state, moment())
    assert not torch.equal(after["seed"], state["seed"])
    for label in range(3):
        rows = torch.arange(30) % 3 == label
        mine, then = state["seed"][:30][rows], after["seed"][:30][rows]
        assert torch.equal(mine.sort(0).values, then.sort(0).values)
    with pytest.raises(ValueError, match="got a batch without labels"):
        loom.pair(replace(batch, condition=None), state, moment())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"caches": 0}, "caches must be at least 1 and seed at least 0, got 0 and 0"),
        ({"seed": -1}, "got 1 and -1"),
        ({"refresh": Linear(start=0.0, end=1.5)}, r"coupling\.refresh must stay in \[0, 1\]"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Loom(**values)  # type: ignore[arg-type]
