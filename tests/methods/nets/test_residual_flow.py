"""The residual flow: its Lipschitz constant is bounded whatever its weights, and it inverts."""

from typing import Any

import pytest
import torch
from torch import Tensor

from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.nets.residual_flow import BoundedLinear, ResidualFlow, spectral_bound
from onestep.tests.methods.nets.contract import NetContract, wakened
from onestep.tests.methods.nets.shear import (
    LEARNT,
    METHOD,
    BestLinear,
    Identity,
    left_after_training,
    left_by,
)


class TestResidualFlow(NetContract):
    shape = (2,)

    def build(self, *, classes: int = 0, guided: bool = False) -> FlowMap:
        return ResidualFlow(
            shape=self.shape, domain=Domain(t_lo=0.1), classes=classes, guided=guided, width=32
        )

    def test_a_net_trained_on_the_diagonal_ignores_the_end_time(self) -> None:
        """This one alone does not: its steps are as long as the jump."""
        net = wakened(self.build()).double()
        x, _, s, t = self.draw()
        assert (net(x, s, t) - net.velocity(x, s)).abs().max() > 1e-4


def matrix(rows: int, columns: int, scale: float = 1.0) -> Tensor:
    rng = torch.Generator().manual_seed(7)
    return scale * torch.randn(rows, columns, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1, 1), (2, 64), (64, 2), (64, 64)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_bound_is_never_below_the_spectral_norm_and_close_to_it(
    shape: tuple[int, int], scale: float
) -> None:
    for weight in (matrix(*shape, scale), matrix(*shape, scale).round(decimals=0)):
        norm = torch.linalg.matrix_norm(weight, 2)
        assert norm * (1.0 - 1e-12) <= spectral_bound(weight) <= 1.04 * norm + 1e-9
    identity = scale * torch.eye(64, dtype=torch.float64)
    assert scale <= spectral_bound(identity) <= 1.04 * scale


def test_a_layer_of_zeros_has_a_finite_gradient() -> None:
    layer = BoundedLinear(3, 4, bound=0.9)
    torch.nn.init.zeros_(layer.weight)
    layer(torch.ones(2, 3)).sum().backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, torch.full((4, 3), 2.0))


def test_a_layer_within_its_bound_is_left_alone() -> None:
    layer = BoundedLinear(3, 4, bound=0.9).double()
    with torch.no_grad():
        layer.weight.mul_(0.1)
    x = matrix(5, 3)
    torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias)


def wild(**values: Any) -> ResidualFlow:
    """A network with weights ten times too large everywhere."""
    torch.manual_seed(0)
    net = ResidualFlow(shape=(2,), domain=Domain(), **values).double()
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(10.0 * torch.randn_like(weight))
    return net


def slopes(net: ResidualFlow, n: int = 512) -> tuple[Tensor, Tensor]:
    """Singular values of the jump's Jacobian: the largest and the least of each row."""
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    s = 0.5 * torch.rand(n, generator=rng, dtype=torch.float64)
    t = s + (1.0 - s) * torch.rand(n, generator=rng, dtype=torch.float64)

    def jump(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return net.jump(x[None], s[None], t[None])[0]

    jacobian = torch.func.vmap(torch.func.jacrev(jump))(x, s, t)
    values = torch.linalg.svdvals(jacobian)
    return values[:, 0], values[:, -1]


def test_no_weights_make_a_jump_steeper_or_flatter_than_its_steps_allow() -> None:
    """Between (1 - 0.9)^2 and (1 + 0.9)^2 for two steps; layers without a bound go far beyond."""
    net = wild(depth=2, lipschitz=0.9)
    steepest, flattest = slopes(net)
    assert steepest.max() <= 1.9**2
    assert flattest.min() >= 0.1**2
    assert steepest.max() >= 1.02
    for module in net.modules():
        if isinstance(module, BoundedLinear):
            module.bound = 1e6
    steepest, _ = slopes(net)
    assert steepest.max() >= 10.0


def test_the_inverse_undoes_the_jump() -> None:
    net, rng = wild(lipschitz=0.9), torch.Generator().manual_seed(1)
    x = torch.randn(64, 2, generator=rng, dtype=torch.float64)
    s = torch.linspace(0.0, 0.9, 64, dtype=torch.float64)
    t = torch.ones(64, dtype=torch.float64)
    y = net.jump(x, s, t)
    torch.testing.assert_close(net.inverse(y, s, t, iterations=300), x, atol=1e-9, rtol=1e-9)
    assert (net.inverse(y, s, t, iterations=1) - x).abs().max() >= 0.1
    assert (y - x).abs().max() >= 0.1


def test_the_jump_of_no_length_is_the_identity() -> None:
    net, x = wild(), matrix(8, 2)
    s = torch.linspace(0.0, 1.0, 8, dtype=torch.float64)
    assert torch.equal(net.jump(x, s, s), x)


def test_maps_that_know_nothing_of_the_shear_are_far_from_having_learnt_it() -> None:
    nothing, linear = (left_by(net(domain=METHOD.domain)) for net in (Identity, BestLinear))
    assert nothing >= 50.0 * LEARNT
    assert linear >= 5.0 * LEARNT
    assert linear <= 0.1 * nothing


@pytest.mark.slow
def test_a_neural_flow_learns_the_pairs_of_a_shear() -> None:
    """In 600 steps, though no step of the network may be steeper than its bound allows."""
    torch.manual_seed(0)
    net = ResidualFlow(shape=(2,), domain=METHOD.domain, width=32)
    assert left_after_training(net, steps=600, lr=1e-2) <= LEARNT
    steepest, _ = slopes(net.double())
    assert steepest.max() >= 2.0, "the shear doubles a length"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"vocabulary": 7}, "takes no tokens, got vocabulary 7"),
        ({"depth": 0}, "at least 1, got 64, 0 and 64"),
        ({"lipschitz": 1.0}, r"lipschitz must be in \(0, 1\), got 1\.0"),
        ({"lipschitz": 0.0}, "got 0.0"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ResidualFlow(shape=(2,), domain=Domain(), **values)
