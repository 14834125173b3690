"""Guided velocities: those of Gaussians in closed form, and no guidance without a trace."""

from typing import Final

import pytest
import torch
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.guided import GuidedVelocity
from onestep.methods.core.ode import RungeKutta4
from onestep.methods.core.rng import Rng
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.observed import ObservedMap, TwoMaps

STD: Final = (0.3, 0.6)
ASKED: Final = (0.7, -0.2)
ALL: Final = (0.1, 0.4)
MAP: Final = TwoMaps(GaussianMap(mean=ASKED, std=STD), GaussianMap(mean=ALL, std=STD))


def condition(n: int) -> Condition:
    return Condition(label=torch.zeros(n, dtype=torch.long))


def states(n: int) -> tuple[Tensor, Tensor]:
    rng = Rng.seeded(1)
    return rng.normal(n, 2, dtype=torch.float64), rng.uniform(n, dtype=torch.float64)


def moved(scale: float) -> GaussianMap:
    """The Gaussian between or beyond both means."""
    mean = [scale * a + (1.0 - scale) * b for a, b in zip(ASKED, ALL, strict=True)]
    return GaussianMap(mean=mean, std=STD)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.5])
def test_guidance_moves_the_mean_of_a_gaussian(scale: float) -> None:
    """Of equal widths: scale times the mean that is asked for and 1 - scale times that of all."""
    x, t = states(64)
    found = GuidedVelocity(MAP, scale=scale).velocity(x, t, condition(64))
    torch.testing.assert_close(found, moved(scale).velocity(x, t), atol=1e-12, rtol=1e-12)


def test_a_guided_flow_ends_at_the_moved_gaussian() -> None:
    x, _ = states(64)
    zero = torch.zeros(64, dtype=torch.float64)
    solver = RungeKutta4(grid=UniformGrid(steps=64))
    found = solver.sample(GuidedVelocity(MAP, scale=2.0), x[None], condition(64))
    torch.testing.assert_close(found, moved(2.0).jump(x, zero, zero + 1.0), atol=1e-6, rtol=0.0)


def test_scale_one_is_the_condition_alone_bit_for_bit_in_one_pass() -> None:
    x, t = states(64)
    observed = ObservedMap(MAP)
    found = GuidedVelocity(observed, scale=1.0).velocity(x, t, condition(64))
    assert torch.equal(found, MAP.velocity(x, t, condition(64)))
    assert observed.rows == [64]
    GuidedVelocity(observed, scale=1.1).velocity(x, t, condition(64))
    assert observed.rows == [64] * 3


def test_guidance_keeps_the_range_of_its_net_and_is_a_velocity() -> None:
    net = ObservedMap(MAP, domain=Domain(t_lo=0.1, t_hi=0.9))
    guided = GuidedVelocity(net, scale=2.0)
    assert guided.domain == Domain(kind=DomainKind.DIAGONAL, t_lo=0.1, t_hi=0.9)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scale of at least 0, got -1"):
        GuidedVelocity(MAP, scale=-1.0)
    with pytest.raises(ValueError, match=r"guidance of scale 2 needs a condition, got none"):
        GuidedVelocity(MAP, scale=2.0).velocity(*states(4))
