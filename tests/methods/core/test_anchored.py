"""The sampler that keeps to its noise: where it is Euler's, and where it is no solver."""

import pytest
import torch
from torch import Tensor

from onestep.methods.core.anchored import AnchoredSteps
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.grid import ListGrid, UniformGrid
from onestep.methods.core.ode import Euler
from onestep.methods.core.sampler import AbstractSampler
from onestep.methods.oracle import GaussianMap
from onestep.methods.oracle_mixture import MixtureVelocity
from onestep.tests.methods.core.contract import SamplerContract

NOISE = torch.linspace(-2.0, 2.0, 32, dtype=torch.float64).reshape(1, 32, 1)
CURVED = GaussianMap(mean=[0.7], std=[0.5])
STRAIGHT = GaussianMap(mean=[0.7], std=[0.5], rho=1.0)
MODES = MixtureVelocity(weights=[0.2, 0.8], means=[[-1.5], [1.0]], stds=[0.3, 0.3])


class TestAnchoredSteps(SamplerContract):
    refused = (Domain(kind=DomainKind.TO_DATA), Domain(kind=DomainKind.FROM_NOISE))
    accepted = Domain(kind=DomainKind.DIAGONAL, t_lo=1.0 / 81.0, t_hi=1.0 / 1.002)

    def sampler(self, steps: int) -> AbstractSampler:
        return AnchoredSteps(grid=UniformGrid(steps=steps))


def apart(flow_map: FlowMap, steps: int) -> float:
    """How far it leads from where Euler's rule does."""
    grid = UniformGrid(steps=steps)
    found, euler = (rule(grid=grid).sample(flow_map, NOISE) for rule in (AnchoredSteps, Euler))
    return (found - euler).abs().max().item()


@pytest.mark.parametrize("flow_map", [CURVED, MODES], ids=["gaussian", "mixture"])
def test_up_to_two_steps_it_is_eulers_rule_on_any_field(flow_map: FlowMap) -> None:
    assert max(apart(flow_map, steps) for steps in (1, 2)) <= 1e-12
    assert apart(flow_map, 3) >= 1e-2


def test_on_straight_paths_it_is_eulers_rule_in_any_number_of_steps() -> None:
    assert max(apart(STRAIGHT, steps) for steps in (3, 8, 32)) <= 1e-12


def test_more_steps_do_not_lead_nearer_to_the_end_of_a_curved_path() -> None:
    """Card 3: a few steps do better than many, since it does not solve the equation."""

    def error(steps: int) -> float:
        found = AnchoredSteps(grid=UniformGrid(steps=steps)).sample(CURVED, NOISE)
        return (found - (0.7 + 0.5 * NOISE[0])).abs().max().item()

    assert error(8) < error(4) < error(32)


def test_each_state_lies_between_the_noise_and_the_data_that_were_predicted() -> None:
    t = 0.3

    def predicted(x: Tensor, s: float) -> Tensor:
        return x + (1.0 - s) * CURVED.velocity(x, torch.full((32,), s, dtype=torch.float64))

    x = NOISE[0]
    for s, end in ((0.0, t), (t, 0.6), (0.6, 1.0)):
        x = (1.0 - end) * NOISE[0] + end * predicted(x, s)
    found = AnchoredSteps(grid=ListGrid(inner=(t, 0.6))).sample(CURVED, NOISE)
    torch.testing.assert_close(found, x, atol=1e-12, rtol=0.0)
