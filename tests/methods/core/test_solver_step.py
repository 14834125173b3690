"""Solver steps by row: their order, and the samplers that they are one step of."""

import math

import pytest
import torch

from onestep.methods.core.coordinate import SigmaCoordinate
from onestep.methods.core.flow_map import Domain
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.ode import Euler, Heun
from onestep.methods.core.rng import Rng
from onestep.methods.core.solver_step import (
    AbstractSolverStep,
    EulerStep,
    HeunStep,
    SigmaHeunStep,
)
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.consistency import karras_times
from onestep.tests.methods.exactness import ORACLE


def error(step: AbstractSolverStep, gap: float) -> float:
    x = Rng.seeded(3).normal(64, 2, dtype=torch.float64)
    s = torch.linspace(0.2, 0.7, 64, dtype=torch.float64)
    got = step(ORACLE, x, s, s + gap, None)
    return (got - ORACLE.jump(x, s, s + gap)).square().mean().sqrt().item()


@pytest.mark.parametrize(
    ("step", "order"), [(EulerStep(), 1), (HeunStep(), 2), (SigmaHeunStep(), 2)], ids=repr
)
def test_the_error_of_a_step_falls_with_its_order_plus_one(
    step: AbstractSolverStep, order: int
) -> None:
    slope = math.log(error(step, 0.02) / error(step, 0.01)) / math.log(2.0)
    assert slope == pytest.approx(order + 1.0, abs=0.2)


@pytest.mark.parametrize(
    ("step", "sampler"),
    [
        (EulerStep(), Euler(grid=UniformGrid(steps=1))),
        (EulerStep(), Euler(grid=UniformGrid(steps=1), coordinate=SigmaCoordinate())),
        (HeunStep(), Heun(grid=UniformGrid(steps=1))),
        (SigmaHeunStep(), Heun(grid=UniformGrid(steps=1), coordinate=SigmaCoordinate())),
    ],
    ids=repr,
)
def test_a_step_is_one_of_the_sampler(step: AbstractSolverStep, sampler: Euler | Heun) -> None:
    """From a noise level of 4, where the sampler begins with scaled noise, to the data."""
    data = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6], domain=Domain(t_lo=0.2))
    noise = Rng.seeded(3).normal(16, 2, dtype=torch.float64)
    s = torch.full((16,), 0.2, dtype=torch.float64)
    got = step(data, 0.8 * noise, s, torch.ones_like(s), None)
    want = sampler.sample(data, noise[None])
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


def test_an_euler_step_is_one_in_the_noise_level_and_one_of_ddim() -> None:
    """T3: straight lines in t, in sigma and between data and noise of any scale are one line."""
    x = Rng.seeded(3).normal(64, 2, dtype=torch.float64)
    s = torch.linspace(0.05, 0.7, 64, dtype=torch.float64)
    t = s + 0.25
    got = EulerStep()(ORACLE, x, s, t, None)
    at, after = s[:, None], t[:, None]
    data = x + (1.0 - at) * ORACLE.velocity(x, s)
    sigma, then = (1.0 - at) / at, (1.0 - after) / after
    by_level = after * (x / at + (then - sigma) * (x / at - data) / sigma)
    torch.testing.assert_close(got, by_level, atol=1e-13, rtol=1e-13)
    # Variance preserving: z = a x1 + g x0 with a^2 + g^2 = 1.
    scale, new = (((1.0 - r) ** 2 + r**2).sqrt() for r in (at, after))
    z, a, g = x / scale, at / scale, (1.0 - at) / scale
    noise = (z - a * data) / g
    by_ddim = new * (after / new * data + (1.0 - after) / new * noise)
    torch.testing.assert_close(got, by_ddim, atol=1e-13, rtol=1e-13)
    rules = [step(ORACLE, x, s, t, None) for step in (HeunStep(), SigmaHeunStep())]
    assert (rules[0] - rules[1]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("step", "order"), [(EulerStep(), 0.998), (SigmaHeunStep(), 2.0)], ids=repr
)
@pytest.mark.slow
def test_the_order_on_a_karras_grid_is_that_of_the_card(
    step: AbstractSolverStep, order: float
) -> None:
    """T6: between 641 and 1281 points, from noise level 80 to 0.002, with std 0.5."""
    data = GaussianMap(mean=[0.0], std=[0.5])
    errors = []
    for points in (641, 1281):
        times = torch.tensor(karras_times(points), dtype=torch.float64)
        x = 80.0 * times[:1, None]
        exact = data.jump(x, times[:1], times[-1:])
        for k in range(points - 1):
            x = step(data, x, times[k : k + 1], times[k + 1 : k + 2], None)
        errors.append((x - exact).abs().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.005)


def test_heun_in_noise_level_and_in_time_are_different_rules() -> None:
    """The card's example: from level 5 to 1 with std 0.5; exact is 0.222497 of the state."""
    data = GaussianMap(mean=[0.0], std=[0.5])
    s, t = (torch.tensor([1.0 / (1.0 + v)], dtype=torch.float64) for v in (5.0, 1.0))
    x = torch.ones(1, 1, dtype=torch.float64) * s
    found = [(step(data, x, s, t, None) / t).item() for step in (SigmaHeunStep(), HeunStep())]
    assert found == pytest.approx([0.271287, 0.229043], abs=1e-6)
    assert (data.jump(x, s, t) / t).item() == pytest.approx(0.222497, abs=1e-6)
