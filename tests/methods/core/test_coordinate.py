"""Euler's rule is DDIM's step in every coordinate; Heun's rule is another one in each."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from onestep.methods.core.coordinate import (
    AbstractCoordinate,
    AngleCoordinate,
    SigmaCoordinate,
    TimeCoordinate,
)
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.grid import KarrasGrid
from onestep.methods.core.ode import Euler, Heun
from onestep.methods.oracle_mixture import MixtureVelocity

INSIDE = Domain(kind=DomainKind.DIAGONAL, t_lo=1.0 / 81.0, t_hi=1.0 / 1.002)
DATA = MixtureVelocity(
    weights=[0.5, 0.3, 0.2],
    means=[[0.8, 0.1], [-0.7, 0.3], [0.2, -0.9]],
    stds=[0.3, 0.4, 0.1],
    domain=INSIDE,
)
GRID = KarrasGrid(steps=9)
COORDINATES = (TimeCoordinate(), SigmaCoordinate(), AngleCoordinate(sigma_data=0.7))


def noise() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 16, 2, generator=generator, dtype=torch.float64)


def ddim(data: FlowMap, times: tuple[float, ...], x: Tensor) -> Tensor:
    """Each step mixes the predicted data and the predicted noise as the next level asks.

    On z = a x1 + g x0 with a^2 + g^2 = 1: z' = a' D + g' eps, and none of our own algebra.
    """
    for s, t in pairwise(times):
        a, g = s / math.hypot(s, 1.0 - s), (1.0 - s) / math.hypot(s, 1.0 - s)
        a_next, g_next = t / math.hypot(t, 1.0 - t), (1.0 - t) / math.hypot(t, 1.0 - t)
        z = (a + g) * x
        v = data.velocity(x, torch.full((len(x),), s, dtype=x.dtype))
        eps = x - s * v
        found = (z - g * eps) / a
        x = (a_next * found + g_next * eps) / (a_next + g_next)
    high = torch.full((len(x),), times[-1], dtype=x.dtype)
    return x + (1.0 - times[-1]) * data.velocity(x, high)


@pytest.mark.parametrize("coordinate", COORDINATES, ids=repr)
def test_eulers_rule_is_ddim(coordinate: AbstractCoordinate) -> None:
    want = ddim(DATA, GRID.times(INSIDE.t_lo, INSIDE.t_hi), noise()[0] * (1.0 - INSIDE.t_lo))
    found = Euler(grid=GRID, coordinate=coordinate).sample(DATA, noise())
    if isinstance(coordinate, AngleCoordinate):
        # A straight step in the angle ends off the line of data and noise, by its curvature.
        assert (found - want).abs().max() > 1e-3
    else:
        torch.testing.assert_close(found, want, atol=1e-12, rtol=1e-12)


def test_heuns_rule_differs_in_every_coordinate() -> None:
    samples = [Heun(grid=GRID, coordinate=each).sample(DATA, noise()) for each in COORDINATES]
    assert (samples[0] - samples[1]).abs().max() > 1e-2
    assert (samples[1] - samples[2]).abs().max() > 1e-2
