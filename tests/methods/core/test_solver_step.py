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


def test_heun_in_noise_level_and_in_time_are_different_rules() -> None:
    """The card's example: from level 5 to 1 with std 0.5; exact is 0.222497 of the state."""
    data = GaussianMap(mean=[0.0], std=[0.5])
    s, t = (torch.tensor([1.0 / (1.0 + v)], dtype=torch.float64) for v in (5.0, 1.0))
    x = torch.ones(1, 1, dtype=torch.float64) * s
    found = [(step(data, x, s, t, None) / t).item() for step in (SigmaHeunStep(), HeunStep())]
    assert found == pytest.approx([0.271287, 0.229043], abs=1e-6)
    assert (data.jump(x, s, t) / t).item() == pytest.approx(0.222497, abs=1e-6)
