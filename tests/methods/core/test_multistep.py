"""The multistep sampler: its order, its formula in the diffusion's own terms, its first steps."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.grid import KarrasGrid, ListGrid, UniformGrid
from onestep.methods.core.multistep import DpmSolver
from onestep.methods.core.ode import Euler, RungeKutta4
from onestep.methods.core.sampler import AbstractSampler
from onestep.methods.oracle import GaussianMap
from onestep.methods.oracle_mixture import MixtureVelocity
from onestep.tests.methods.core.contract import SamplerContract

TO_DATA = Domain(kind=DomainKind.TO_DATA)
FROM_NOISE = Domain(kind=DomainKind.FROM_NOISE)
INSIDE = Domain(kind=DomainKind.DIAGONAL, t_lo=1.0 / 81.0, t_hi=1.0 / 1.002)


class TestDpmSolver(SamplerContract):
    refused = (TO_DATA, FROM_NOISE)
    accepted = INSIDE

    def sampler(self, steps: int) -> AbstractSampler:
        return DpmSolver(grid=UniformGrid(steps=steps))


def slope(sampler: type[DpmSolver | Euler], flow_map: FlowMap, want: Tensor, grids: list) -> float:
    noise = torch.linspace(-2.0, 2.0, 32, dtype=torch.float64).reshape(1, 16, 2)
    errors = []
    for grid in grids:
        found = sampler(grid=grid).sample(flow_map, noise)
        errors.append((found - want).square().mean().sqrt().item())
    return math.log(errors[0] / errors[1]) / math.log(grids[1].steps / grids[0].steps)


def exact(flow_map: GaussianMap) -> Tensor:
    """Where the exact flow leads, to the end of the range, and one denoising from there."""
    noise = torch.linspace(-2.0, 2.0, 32, dtype=torch.float64).reshape(16, 2)
    low, high = (
        torch.full((16,), t, dtype=torch.float64)
        for t in (flow_map.domain.t_lo, flow_map.domain.t_hi)
    )
    x = flow_map.jump(noise * (1.0 - low)[:, None], low, high)
    return x + (1.0 - high)[:, None] * flow_map.velocity(x, high)


def gaussian(domain: Domain) -> GaussianMap:
    return GaussianMap(mean=[0.7, -0.2], std=[0.5, 1.4], domain=domain)


@pytest.mark.parametrize(
    ("domain", "grids"),
    [
        (INSIDE, [KarrasGrid(steps=160), KarrasGrid(steps=320)]),
        (INSIDE, [UniformGrid(steps=160), UniformGrid(steps=320)]),
        (Domain(), [UniformGrid(steps=160), UniformGrid(steps=320)]),
    ],
    ids=str,
)
def test_the_error_is_of_second_order(domain: Domain, grids: list) -> None:
    """On all of [0, 1] up to a logarithm: even steps of time are none of ln sigma at its ends."""
    data = gaussian(domain)
    assert abs(slope(DpmSolver, data, exact(data), grids) - 2.0) <= 0.3
    assert abs(slope(Euler, data, exact(data), grids) - 1.0) <= 0.2


def test_the_error_is_of_second_order_on_a_mixture() -> None:
    data = MixtureVelocity(
        weights=[0.5, 0.5], means=[[0.8, 0.1], [-0.7, 0.3]], stds=[0.3, 0.4], domain=INSIDE
    )
    noise = torch.linspace(-2.0, 2.0, 32, dtype=torch.float64).reshape(1, 16, 2)
    want = RungeKutta4(grid=UniformGrid(steps=500)).sample(data, noise)
    grids = [KarrasGrid(steps=160), KarrasGrid(steps=320)]
    assert abs(slope(DpmSolver, data, want, grids) - 2.0) <= 0.2


def in_the_diffusions_terms(data: GaussianMap, times: tuple[float, ...], x: Tensor) -> Tensor:
    """The same steps on z = a x1 + g x0 with a^2 + g^2 = 1, in lambda = ln(a / g)."""

    def shares(t: float) -> tuple[float, float, float]:
        n = math.hypot(t, 1.0 - t)
        return t / n, (1.0 - t) / n, math.log(t / (1.0 - t))

    a, g, _ = shares(times[0])
    z, history = (a + g) * x, list[tuple[float, Tensor]]()
    for s, t in pairwise(times):
        (a_s, g_s, log_s), (a_t, g_t, log_t) = shares(s), shares(t)
        at = torch.full((len(z),), s, dtype=z.dtype)
        state = z / (a_s + g_s)
        noise = state - s * data.velocity(state, at)
        found = (z - g_s * noise) / a_s
        h = log_t - log_s
        guess = found
        if history:
            r = (log_s - history[-1][0]) / h
            guess = (1.0 + 0.5 / r) * found - 0.5 / r * history[-1][1]
        z = g_t / g_s * z - a_t * math.expm1(-h) * guess
        history.append((log_s, found))
    a, g, _ = shares(times[-1])
    return z / (a + g)


def test_the_steps_are_those_of_the_paper_in_the_diffusions_own_terms() -> None:
    data = gaussian(INSIDE)
    grid = KarrasGrid(steps=7)
    noise = torch.linspace(-2.0, 2.0, 32, dtype=torch.float64).reshape(1, 16, 2)
    times = grid.times(INSIDE.t_lo, INSIDE.t_hi)
    x = in_the_diffusions_terms(data, times, noise[0] * (1.0 - INSIDE.t_lo))
    high = torch.full((16,), INSIDE.t_hi, dtype=torch.float64)
    want = x + (1.0 - INSIDE.t_hi) * data.velocity(x, high)
    torch.testing.assert_close(
        DpmSolver(grid=grid).sample(data, noise), want, atol=1e-12, rtol=1e-12
    )


def test_one_step_is_eulers_and_so_are_steps_from_noise_and_to_the_data() -> None:
    noise = torch.linspace(-2.0, 2.0, 32, dtype=torch.float64).reshape(1, 16, 2)
    for domain, grid in (
        (INSIDE, UniformGrid(steps=1)),
        (Domain(), UniformGrid(steps=1)),
        (Domain(), ListGrid(inner=(0.4,))),
    ):
        data = gaussian(domain)
        found = DpmSolver(grid=grid).sample(data, noise)
        torch.testing.assert_close(found, Euler(grid=grid).sample(data, noise))
    three = ListGrid(inner=(0.3, 0.6, 0.8))
    data = gaussian(Domain())
    found = DpmSolver(grid=three).sample(data, noise)
    assert (found - Euler(grid=three).sample(data, noise)).abs().max() > 0.01
