"""Gamma sampling: its law at an exact map, both its ends, and what fresh noise costs a wrong one.

A sampler of an affine map is affine in its draws of noise: unit draws give its whole law.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, final

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.gamma_sampler import GammaJumps
from onestep.methods.core.grid import AbstractGrid, KarrasGrid, ListGrid, UniformGrid
from onestep.methods.core.sampler import AbstractSampler, Jumps, Renoise
from onestep.methods.core.shape import rows_like
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.core.contract import ORACLE, SamplerContract
from onestep.tests.methods.observed import ObservedMap

TO_DATA = Domain(kind=DomainKind.TO_DATA)
MEAN, STD = 0.7, 0.5
DATA = GaussianMap(mean=[MEAN], std=[STD])


class TestGammaJumps(SamplerContract):
    refused = (
        Domain(kind=DomainKind.DIAGONAL),
        TO_DATA,
        Domain(kind=DomainKind.FROM_NOISE),
        Domain(kind=DomainKind.GRID, steps=8),
    )

    def sampler(self, steps: int) -> AbstractSampler:
        return GammaJumps(grid=UniformGrid(steps=steps), gamma=0.4)


class TestWholeGammaJumps(SamplerContract):
    refused = (Domain(kind=DomainKind.DIAGONAL), Domain(kind=DomainKind.FROM_NOISE))
    accepted = TO_DATA

    def sampler(self, steps: int) -> AbstractSampler:
        return GammaJumps(grid=UniformGrid(steps=steps), gamma=1.0)


class Law(NamedTuple):
    """A normal law."""

    mean: float
    std: float


def law(sampler: AbstractSampler, flow_map: FlowMap) -> Law:
    """The law of a sampler's samples of an affine map in one dimension."""
    noise = torch.zeros(sampler.draws, sampler.draws + 1, 1, dtype=torch.float64)
    for k in range(sampler.draws):
        noise[k, k] = 1.0
    *moved, mean = sampler.sample(flow_map, noise).flatten()
    spread = torch.stack(moved) - mean
    return Law(mean=mean.item(), std=spread.norm().item())


GRIDS = [UniformGrid(steps=5), ListGrid(inner=(0.3, 0.34, 0.9)), KarrasGrid(steps=6)]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: type(grid).__name__)
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_law_of_an_exact_map_is_that_of_the_data(grid: AbstractGrid, gamma: float) -> None:
    found = law(GammaJumps(grid=grid, gamma=gamma), DATA)
    assert found.mean == pytest.approx(MEAN, abs=1e-12)
    assert found.std == pytest.approx(STD, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.2, 0.7, 1.0])
def test_the_state_at_a_time_of_the_grid_has_its_law(gamma: float) -> None:
    """Mean t m and variance (1 - t)^2 + t^2 std^2 at the second of two starts."""
    t, seen = 0.6, ObservedMap(DATA)
    law(GammaJumps(grid=ListGrid(inner=(t,)), gamma=gamma), seen)
    *moved, mean = seen.calls[1].x.flatten()
    variance = (torch.stack(moved) - mean).square().sum().item()
    assert mean.item() == pytest.approx(t * MEAN, abs=1e-12)
    assert variance == pytest.approx((1.0 - t) ** 2 + (t * STD) ** 2, abs=1e-12)
    fresh = (moved[1] - mean).item()
    assert fresh == pytest.approx(gamma * (1.0 - t), abs=1e-12)


def test_a_jump_ends_at_the_noise_level_that_fresh_noise_leads_back_from() -> None:
    """sigma sqrt(1 - gamma^2) in the place of sigma, where sigma = (1 - t) / t."""
    t, gamma, seen = 0.6, 0.8, ObservedMap(DATA)
    law(GammaJumps(grid=ListGrid(inner=(t,)), gamma=gamma), seen)
    far = seen.calls[0].t[0].item()
    assert (1.0 - far) / far == pytest.approx(0.6 * (1.0 - t) / t, abs=1e-12)
    assert seen.calls[1].s[0].item() == t
    assert seen.calls[1].t[0].item() == 1.0


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: type(grid).__name__)
def test_no_gamma_is_a_chain_of_jumps_and_a_whole_one_renoises(grid: AbstractGrid) -> None:
    noise = torch.randn(
        grid.steps, 8, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    still = GammaJumps(grid=grid, gamma=0.0).sample(ORACLE, noise[:1])
    assert torch.equal(still, Jumps(grid=grid).sample(ORACLE, noise[:1]))
    whole = GammaJumps(grid=grid, gamma=1.0).sample(ORACLE, noise)
    torch.testing.assert_close(whole, Renoise(grid=grid).sample(ORACLE, noise))


def test_jumps_past_the_range_of_a_map_are_refused() -> None:
    early = ObservedMap(DATA, domain=Domain(t_hi=0.7))
    law(GammaJumps(gamma=0.4, grid=ListGrid(inner=(0.4,))), early)
    with pytest.raises(ValueError, match=r"from 0 to 0\.72.*domain triangle that ends at t = 0\.7"):
        law(GammaJumps(gamma=0.966, grid=ListGrid(inner=(0.4,))), early)


@pytest.mark.parametrize("gamma", [-0.1, 1.1])
def test_a_gamma_out_of_range_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\], got"):
        GammaJumps(gamma=gamma)


# What fresh noise costs a map with errors. All numbers are of data of mean 0.


@final
class WrongConsistency(FlowMap):
    """The exact jump to the data of N(0, std^2), too long by a share e(s) of its deviation."""

    def __init__(self, std: float, error: Callable[[Tensor], Tensor]) -> None:
        super().__init__(domain=TO_DATA)
        self.std, self.error = std, error

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        assert (t == 1.0).all()
        spread = ((1.0 - s) ** 2 + (s * self.std) ** 2).sqrt()
        end = rows_like((1.0 + self.error(s)) * self.std / spread, x) * x
        return (end - x) / rows_like(t - s, x)


@final
class WrongFlowMap(FlowMap):
    """The exact flow map of N(0, std^2), too long by a share that grows with the jump's length."""

    def __init__(self, std: float, rate: float) -> None:
        super().__init__(domain=Domain())
        self.exact, self.rate = GaussianMap(mean=[0.0], std=[std]), rate

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        u: Tensor = self.exact(x, s, t)
        return u + self.rate * self.exact.jump(x, s, t)


def renoised(std: float, error: Callable[[Tensor], Tensor], grid: AbstractGrid) -> float:
    """Wasserstein distance of the samples to the data, for two normal laws of mean 0."""
    return abs(law(Renoise(grid=grid), WrongConsistency(std, error)).std - std)


def constant(e: float) -> Callable[[Tensor], Tensor]:
    return lambda s: torch.full_like(s, e)


@pytest.mark.parametrize(
    ("std", "e", "anchors"),
    [
        (0.5, 0.02, (0.010000, 0.012056, 0.018586, 0.029596, 0.048229, 0.136865)),
        (0.5, -0.02, (0.010000, 0.011944, 0.018107, 0.028103, 0.043908, 0.104064)),
        (1.0, 0.02, (0.020000, 0.030250, 0.048787, 0.081523, 0.138775, 0.433222)),
    ],
)
def test_renoising_gets_worse_with_every_further_step(
    std: float, e: float, anchors: tuple[float, ...]
) -> None:
    steps = (1, 2, 4, 8, 16, 64)
    found = [renoised(std, constant(e), UniformGrid(steps=n)) for n in steps]
    assert found == pytest.approx(anchors, abs=1e-6)
    assert found == sorted(found)


def test_the_error_of_renoising_grows_as_the_steps_to_the_power_two_thirds() -> None:
    coarse, fine = (renoised(0.5, constant(1e-6), UniformGrid(steps=n)) for n in (250, 1000))
    assert math.log(fine / coarse) / math.log(4.0) == pytest.approx(2.0 / 3.0, abs=0.02)


def test_a_map_that_is_worse_at_noise_is_best_renoised_a_few_times() -> None:
    def harder(s: Tensor) -> Tensor:
        return 0.01 + 0.2 * (1.0 - s) ** 4

    anchors = {1: 0.10500, 2: 0.03445, 4: 0.01925, 6: 0.01816, 8: 0.01911, 16: 0.02595, 64: 0.06469}
    found = {n: renoised(0.5, harder, UniformGrid(steps=n)) for n in anchors}
    assert found == pytest.approx(anchors, abs=1e-5)
    assert min(found, key=lambda n: found[n]) == 6
    times = [k / 100 for k in range(1, 100)]
    best = min(times, key=lambda t: renoised(0.5, harder, ListGrid(inner=(t,))))
    assert best == 0.4
    assert renoised(0.5, harder, ListGrid(inner=(best,))) == pytest.approx(0.02984, abs=1e-5)


def test_the_error_of_a_chain_of_jumps_stays_bounded() -> None:
    """The contrast: an error that vanishes with the length of the jump adds up to a constant."""
    wrong = WrongFlowMap(0.5, 0.02)
    found = [law(Jumps(grid=UniformGrid(steps=n)), wrong).std - 0.5 for n in (1, 2, 16, 256)]
    assert found[:3] == pytest.approx([0.010000, 0.010050, 0.010094], abs=1e-6)
    assert found[3] < 0.5 * (torch.tensor(0.02).exp().item() - 1.0)


def test_fresh_noise_first_forgets_errors_and_then_adds_them_up() -> None:
    """For one map at 64 steps: a gamma between beats both the chain and renoising."""
    wrong = WrongFlowMap(0.5, 0.02)

    def missed(gamma: float) -> float:
        return law(GammaJumps(grid=UniformGrid(steps=64), gamma=gamma), wrong).std - 0.5

    found = [missed(gamma) for gamma in (0.0, 0.3, 0.6, 0.9, 1.0)]
    assert 0.0 < min(found) < found[0] < found[-1]
