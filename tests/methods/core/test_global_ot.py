"""Global optimal transport: noise is normal, each datum keeps its own, and none could be nearer."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.coupling import (
    AbstractCoupling,
    CouplingState,
    MinibatchOTCoupling,
    optimal_assignment,
)
from onestep.methods.core.global_ot import GlobalOTCoupling
from onestep.methods.core.loom import seeded_noise
from onestep.methods.core.record import Batch
from onestep.methods.core.rng import Rng
from onestep.tests.methods.core.contract import LEAST_P, CouplingContract, moment


class TestGlobalOT(CouplingContract):
    permutes = False

    @pytest.fixture
    def coupling(self) -> AbstractCoupling:
        return GlobalOTCoupling()


class TestLabelledGlobalOT(CouplingContract):
    permutes = False

    @pytest.fixture
    def coupling(self) -> AbstractCoupling:
        return GlobalOTCoupling(by_label=True)


def whole(n: int = 256, d: int = 2) -> Batch:
    x1 = 0.5 * Rng.seeded(8).normal(n, d, dtype=torch.float64) + 1.0
    index = torch.arange(n)
    return Batch(x1=x1, index=index, condition=Condition(label=index % 3))


def solved(coupling: GlobalOTCoupling, data: Batch) -> CouplingState:
    return coupling.solve(data, coupling.initial(len(data), tuple(data.x1.shape[1:])))


def noise_of(state: CouplingState) -> Tensor:
    return seeded_noise(state["seed"], (2,), dtype=torch.float64)


def cost(state: CouplingState, data: Batch) -> float:
    return (noise_of(state) - data.x1).square().sum().item()


def test_every_noise_stays_and_none_could_be_nearer() -> None:
    """Exchanging no two noises, and no three in a ring, brings them nearer; n = 256."""
    coupling, data = GlobalOTCoupling(), whole()
    state = solved(coupling, data)
    before = coupling.initial(256, (2,))["seed"]
    assert torch.equal(state["seed"].sort().values, before.sort().values)
    assert not torch.equal(state["seed"], before)
    c = torch.cdist(data.x1, noise_of(state)).square()
    gain = c.diagonal()[:, None] - c  # of datum i when it takes the noise of datum j
    pairs = gain + gain.T
    assert pairs.max() <= 1e-9
    rings = pairs.new_tensor(
        [(gain[i][:, None] + gain + gain[:, i][None, :]).max() for i in range(256)]
    )
    assert rings.max() <= 1e-9


def test_no_batches_cost_less_and_smaller_blocks_cost_more() -> None:
    """The same 256 noises, assigned in batches of 32, in blocks of 64, and all at once."""
    data, start = whole(), GlobalOTCoupling().initial(256, (2,))
    noise, apart = noise_of(start), 0.0
    for rows in torch.arange(256).split(32):
        batch = data[rows].with_noise(noise[rows])
        paired, _ = MinibatchOTCoupling().pair(batch, {}, moment())
        apart += (paired.noise - paired.x1).square().sum().item()
    costs = [cost(solved(GlobalOTCoupling(block=block), data), data) for block in (64, 4096)]
    assert costs[1] < costs[0] < apart < cost(start, data)


def test_the_simplex_for_many_points_finds_the_assignment_for_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, noise = whole().x1, noise_of(GlobalOTCoupling().initial(256, (2,)))
    few = optimal_assignment(data, noise)
    monkeypatch.setattr("onestep.methods.core.coupling._SMALL", 10)
    assert torch.equal(optimal_assignment(data, noise), few)


def test_the_noise_is_standard_normal_and_differs_with_the_seed() -> None:
    """2 000 rows by Kolmogorov and Smirnov, after they have been assigned in blocks of 250."""
    data = whole(2_000)
    states = [solved(GlobalOTCoupling(block=250, seed=seed), data) for seed in (0, 1)]
    for state in states:
        for column in noise_of(state).T.numpy():
            assert stats.kstest(column, "norm").pvalue > LEAST_P
            assert stats.kstest(1.3 * column, "norm").pvalue < LEAST_P
    assert not set(states[0]["seed"].tolist()) & set(states[1]["seed"].tolist())


def test_each_datum_has_its_noise_in_every_batch() -> None:
    coupling, data = GlobalOTCoupling(), whole()
    state = solved(coupling, data)
    for step in range(2):
        rows = Rng.seeded(1, step=step).uniform(256).argsort()[:32]
        paired, after = coupling.pair(data[rows], state, moment(step))
        assert torch.equal(paired.noise, noise_of(state)[rows])
        assert torch.equal(after["seed"], state["seed"])


def test_the_assignment_is_the_same_each_time_it_is_solved() -> None:
    coupling, data = GlobalOTCoupling(block=100), whole()
    assert torch.equal(solved(coupling, data)["seed"], solved(coupling, data)["seed"])


@pytest.mark.parametrize("block", [20, 4096])
def test_noise_stays_within_its_label(block: int) -> None:
    """Standard normal noise was given to a label before; an exchange would skew it."""
    coupling, data = GlobalOTCoupling(block=block, by_label=True), whole(100)
    before, after = coupling.initial(100, (2,))["seed"], solved(coupling, data)["seed"]
    assert data.condition is not None
    for label in range(3):
        rows = data.condition.label == label
        assert torch.equal(before[rows].sort().values, after[rows].sort().values)
    mixed = solved(replace(coupling, by_label=False), data)["seed"]
    assert not torch.equal(before[::3].sort().values, mixed[::3].sort().values)
    bare = replace(data, condition=None)
    for refused in (lambda: solved(coupling, bare), lambda: coupling.pair(bare, {}, moment())):
        with pytest.raises(ValueError, match="got a batch without labels"):
            refused()


def test_blocks_are_of_one_size_and_hold_every_datum_once() -> None:
    blocks = GlobalOTCoupling(block=100)._blocks(whole(256))
    assert [len(rows) for rows in blocks] == [86, 85, 85]
    assert torch.equal(torch.cat(blocks).sort().values, torch.arange(256))
    assert blocks[0].sort().values.tolist() != list(range(86))


@pytest.mark.parametrize("values", [{"block": 0}, {"seed": -1}])
def test_what_makes_no_sense_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="block must be at least 1 and seed at least 0"):
        GlobalOTCoupling(**values)  # type: ignore[arg-type]
