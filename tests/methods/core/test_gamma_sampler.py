"""Gamma sampling: its law at an exact map, and both its ends.

A sampler of an affine map is affine in its draws of noise: unit draws give its whole law.
"""

from typing import NamedTuple

import pytest
import torch

from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.gamma_sampler import GammaJumps
from onestep.methods.core.grid import AbstractGrid, KarrasGrid, ListGrid, UniformGrid
from onestep.methods.core.sampler import AbstractSampler, Jumps, Renoise
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
@pytest.mark.parametrize(("t", "expected"), [(0.55, 0.278125), (0.6, 0.25)])
def test_the_state_at_a_time_of_the_grid_has_its_law(
    t: float, expected: float, gamma: float
) -> None:
    """Mean t m and variance (1 - t)^2 + t^2 std^2 at the second of two starts."""
    seen = ObservedMap(DATA)
    law(GammaJumps(grid=ListGrid(inner=(t,)), gamma=gamma), seen)
    *moved, mean = seen.calls[1].x.flatten()
    variance = (torch.stack(moved) - mean).square().sum().item()
    assert mean.item() == pytest.approx(t * MEAN, abs=1e-12)
    assert variance == pytest.approx(expected, abs=1e-12)
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
