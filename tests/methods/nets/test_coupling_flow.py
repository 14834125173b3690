"""The coupling flow: it inverts in closed form at all times, and neither loses nor folds mass."""

from typing import Any

import pytest
import torch
from torch import Tensor

from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.rng import Rng
from onestep.methods.nets.coupling_flow import CouplingFlow
from onestep.tests.methods.nets.contract import NetContract, wakened
from onestep.tests.methods.nets.shear import LEARNT, METHOD, left_after_training


class TestCouplingFlow(NetContract):
    shape = (2,)

    def build(self, *, classes: int = 0, guided: bool = False) -> FlowMap:
        return CouplingFlow(
            shape=self.shape,
            domain=Domain(t_lo=0.1),
            classes=classes,
            guided=guided,
            width=32,
            depth=4,
        )

    def test_a_net_trained_on_the_diagonal_ignores_the_end_time(self) -> None:
        """It does not: its steps are as long as the jump."""
        net = wakened(self.build()).double()
        x, _, s, t = self.draw()
        assert (net(x, s, t) - net.velocity(x, s)).abs().max() > 1e-4


def wild(shape: tuple[int, ...] = (2,), **values: Any) -> CouplingFlow:
    """A network with large weights everywhere."""
    torch.manual_seed(0)
    net = CouplingFlow(shape=shape, domain=Domain(), **values).double()
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(0.5 * torch.randn_like(weight))
    return net


def points(n: int, *shape: int) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def times(n: int) -> tuple[Tensor, Tensor]:
    """From the diagonal to the whole interval."""
    s, share = Rng.seeded(2).uniform(2 * n, dtype=torch.float64).reshape(2, n)
    return s, s + (1.0 - s) * torch.cat([torch.zeros(1), torch.ones(1), share[2:]])


@pytest.mark.parametrize("shape", [(2,), (3,), (1, 2, 2)])
def test_the_inverse_undoes_the_jump_at_all_times(shape: tuple[int, ...]) -> None:
    net, x, (s, t) = wild(shape, depth=3), points(256, *shape), times(256)
    y = net.jump(x, s, t)
    back, _ = net.inverse(y, s, t)
    torch.testing.assert_close(back, x, atol=1e-6, rtol=0.0)
    again = net.jump(net.inverse(x, s, t)[0], s, t)
    torch.testing.assert_close(again, x, atol=1e-6, rtol=0.0)
    assert (y - x).abs().max() >= 1.0
    with torch.no_grad():
        net.steps[0].head.bias.add_(1e-3)
    assert (net.inverse(y, s, t)[0] - x).abs().max() >= 1e-4


def test_the_jump_of_no_length_is_the_identity() -> None:
    net, x = wild(), points(8, 2)
    s = torch.linspace(0.0, 1.0, 8, dtype=torch.float64)
    assert torch.equal(net.jump(x, s, s), x)
    assert not torch.equal(net.jump(x, s.clamp(max=0.9), torch.ones_like(s)), x)


def test_a_fresh_network_leaves_every_point_where_it_is() -> None:
    net, x = CouplingFlow(shape=(2,), domain=Domain()).double(), points(8, 2)
    assert torch.equal(net.jump(x, torch.zeros(8).double(), torch.ones(8).double()), x)


def test_the_motion_of_the_end_matches_differences() -> None:
    """d X(0, t)(x) / d t by forward mode; it begins at the velocity of the point itself."""
    net, x = wild(depth=4), points(64, 2)
    zero, t = torch.zeros(64).double(), torch.linspace(0.1, 0.9, 64, dtype=torch.float64)
    _, motion = torch.func.jvp(lambda t: net.jump(x, zero, t), (t,), (torch.ones_like(t),))
    gap = 1e-6
    difference = (net.jump(x, zero, t + gap) - net.jump(x, zero, t - gap)) / (2.0 * gap)
    assert (motion - difference).norm() <= 1e-6 * difference.norm()
    _, start = torch.func.jvp(lambda t: net.jump(x, zero, t), (zero,), (torch.ones_like(t),))
    torch.testing.assert_close(start, net(x, zero, zero))


@pytest.mark.parametrize("shape", [(2,), (5,)])
def test_no_weights_mirror_space_and_the_determinant_is_that_of_the_jacobian(
    shape: tuple[int, ...],
) -> None:
    net, x, (s, t) = wild(shape, depth=4), points(64, *shape), times(64)

    def jump(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return net.jump(x[None], s[None], t[None])[0]

    jacobian = torch.func.vmap(torch.func.jacrev(jump))(x, s, t)
    sign, size = torch.linalg.slogdet(jacobian)
    assert (sign == 1.0).all()
    _, log_determinant = net.inverse(net.jump(x, s, t), s, t)
    torch.testing.assert_close(log_determinant, size, atol=1e-8, rtol=1e-8)
    assert log_determinant.abs().max() >= 0.1


@pytest.mark.parametrize("t", [0.3, 1.0])
def test_no_mass_is_lost(t: float) -> None:
    """The density of jumped noise, summed over a grid of a wakened network's image."""
    net = wakened(CouplingFlow(shape=(2,), domain=Domain(), depth=4)).double()
    axis = torch.linspace(-12.0, 12.0, 101, dtype=torch.float64)
    y = torch.cartesian_prod(axis, axis)
    x, log_determinant = net.inverse(y, torch.zeros(len(y)).double(), torch.full((len(y),), t))
    log_density = -0.5 * x.square().sum(1) - torch.tensor(2.0 * torch.pi).log() - log_determinant
    mass = log_density.exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=1e-6)
    assert (log_density + log_determinant).exp().sum() * (axis[1] - axis[0]) ** 2 != pytest.approx(
        1.0, abs=1e-3
    )


def test_a_step_scales_within_its_stretch() -> None:
    """One step moves each half: factors lie in [exp(-1), e]."""
    net, x = wild(depth=2, stretch=1.0), 10.0 * points(256, 2)
    zero, one = torch.zeros(256).double(), torch.ones(256).double()
    _, log_determinant = net.inverse(net.jump(x, zero, one), zero, one)
    assert 1.0 <= log_determinant.abs().max() <= 2.0


@pytest.mark.slow
def test_a_neural_flow_learns_the_pairs_of_a_shear() -> None:
    """In 400 steps; the best linear map leaves six times the bar, a fresh network a hundred."""
    torch.manual_seed(0)
    net = CouplingFlow(shape=(2,), domain=METHOD.domain, width=32, depth=4)
    assert left_after_training(net, steps=400, lr=3e-3) <= LEARNT


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"vocabulary": 7}, "takes no tokens, got vocabulary 7"),
        ({"shape": (1,)}, r"at least 2 coordinates, got shape \(1,\)"),
        ({"depth": 1}, "depth must be at least 2, .* got 1, 64 and 64"),
        ({"width": 0}, "got 8, 0 and 64"),
        ({"stretch": 0.0}, "must be positive and finite, got 0.0"),
        ({"stretch": float("inf")}, "got inf"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CouplingFlow(**{"shape": (2,), "domain": Domain(), **values})
