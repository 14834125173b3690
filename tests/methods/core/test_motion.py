"""The motion of a jump's end: exact maps obey Lagrange and Euler; derivatives keep their graph."""

import pytest
import torch
from torch import Tensor

from onestep.methods.core.motion import end_motion, start_motion
from onestep.methods.core.rng import Rng
from onestep.methods.oracle_mixture import MixtureMap1d
from onestep.tests.methods.exactness import ORACLE, Perturbed

MIXTURE = MixtureMap1d(weights=[0.3, 0.7], means=[-1.5, 1.0], stds=[0.3, 0.6])
N = 64


def jumps() -> tuple[Tensor, Tensor, Tensor]:
    rng = Rng.seeded(3)
    x = rng.normal(N, 2, dtype=torch.float64).clamp(-2.0, 2.0)
    s, t = rng.uniform(2 * N, dtype=torch.float64).reshape(2, N).sort(0).values
    return x, s, t


@pytest.mark.parametrize(("oracle", "limit"), [(ORACLE, 1e-12), (MIXTURE, 1e-8)])
def test_the_end_of_an_exact_jump_moves_with_the_velocity_there(
    oracle: torch.nn.Module, limit: float
) -> None:
    assert isinstance(oracle, type(ORACLE) | MixtureMap1d)
    x, s, t = jumps()
    end, rate = end_motion(oracle, x, s, t, None)
    torch.testing.assert_close(end, oracle.jump(x, s, t), atol=1e-12, rtol=0.0)
    torch.testing.assert_close(rate, oracle.velocity(end, t), atol=limit, rtol=limit)
    # Without the factor t - s, and with the other sign, it is another number.
    u = oracle(x, s, t)
    assert (2.0 * u - rate - oracle.velocity(end, t)).square().mean().sqrt() >= 0.1


@pytest.mark.parametrize(("oracle", "limit"), [(ORACLE, 1e-12), (MIXTURE, 1e-8)])
def test_the_end_of_an_exact_jump_stays_where_it_is_as_its_start_moves(
    oracle: torch.nn.Module, limit: float
) -> None:
    assert isinstance(oracle, type(ORACLE) | MixtureMap1d)
    x, s, t = jumps()
    v = oracle.velocity(x, s)
    end, rate = start_motion(oracle, x, s, t, None, velocity=v)
    torch.testing.assert_close(end, oracle.jump(x, s, t), atol=1e-12, rtol=0.0)
    assert rate.abs().max() <= limit
    elsewhere = start_motion(oracle, x, s, t, None, velocity=v + 1.0).rate
    assert elsewhere.square().mean().sqrt() >= 0.1


@pytest.mark.parametrize("moved", ["end", "start"])
def test_the_motion_is_the_finite_difference_and_so_is_its_gradient(moved: str) -> None:
    net = Perturbed(ORACLE, size=2)
    with torch.no_grad():
        net.theta.fill_(0.1)
    x, s, t = jumps()
    v, h = torch.ones_like(x), 1e-5

    def jump(step: float) -> Tensor:
        if moved == "end":
            return net.jump(x, s, t + step)
        return net.jump(x + step * v, s + step, t)

    rate = (
        end_motion(net, x, s, t, None).rate
        if moved == "end"
        else start_motion(net, x, s, t, None, velocity=v).rate
    )
    difference = (jump(h) - jump(-h)) / (2.0 * h)
    torch.testing.assert_close(rate, difference, atol=1e-8, rtol=1e-8)
    (got,) = torch.autograd.grad(rate.square().sum(), net.theta)
    (expected,) = torch.autograd.grad(difference.square().sum(), net.theta)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
