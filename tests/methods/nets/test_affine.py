"""Affine maps of dual numbers: torch's own values and derivatives, and gradients through both."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from onestep.methods.core.calculus import derivative_along
from onestep.methods.core.flow_map import Domain
from onestep.methods.core.rng import Rng
from onestep.methods.nets.affine import (
    Conv2d,
    Linear,
    modulated,
    scaled,
    shifted,
    with_torch_layers,
)
from onestep.methods.nets.unet import UNet

Layers = tuple[nn.Module, nn.Module, Tensor]


def linear() -> Layers:
    ours, theirs = Linear(6, 4).double(), nn.Linear(6, 4).double()
    return ours, theirs, Rng.seeded(0).normal(3, 6, dtype=torch.float64)


def strided() -> Layers:
    ours = Conv2d(2, 4, 3, stride=2, padding=1).double()
    theirs = nn.Conv2d(2, 4, 3, stride=2, padding=1).double()
    return ours, theirs, Rng.seeded(0).normal(3, 2, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("has_graph", [False, True])
@pytest.mark.parametrize("make", [linear, strided])
def test_a_layer_is_torchs_own_with_derivative_and_gradients(
    make: Callable[[], Layers], has_graph: bool
) -> None:
    ours, theirs, x = make()
    theirs.load_state_dict(ours.state_dict())
    w = Rng.seeded(1).normal(*x.shape, dtype=torch.float64)
    results = []
    for layer in (ours, theirs):
        with torch.set_grad_enabled(has_graph):
            value, derivative = derivative_along(layer, (x,), (w,))
        if has_graph:
            (value.square().sum() + derivative.square().sum()).backward()
        results.append((value, derivative, *(p.grad for p in layer.parameters())))
    for mine, want in zip(*results, strict=True):
        torch.testing.assert_close(mine, want, atol=1e-12, rtol=1e-12)


def test_with_torchs_layers_a_network_is_the_same_function() -> None:
    torch.manual_seed(0)
    net = UNet(shape=(1, 8, 8), domain=Domain(), width=32, multipliers=(1,), blocks=1).double()
    twin = with_torch_layers(net)
    kinds = {type(module) for module in net.modules()}
    assert {Linear, Conv2d} <= kinds
    assert not {Linear, Conv2d} & {type(module) for module in twin.modules()}
    x, w = (Rng.seeded(seed).normal(3, 1, 8, 8, dtype=torch.float64) for seed in (0, 1))
    s, t = torch.full((2, 3), 0.25, dtype=torch.float64)
    still = torch.zeros_like(s)
    got = derivative_along(twin, (x, s, t), (w, torch.ones_like(s), still))
    want = derivative_along(net, (x, s, t), (w, torch.ones_like(s), still))
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("has_graph", [False, True])
def test_a_weight_with_a_tangent_keeps_it(has_graph: bool) -> None:
    layer, _, x = linear()
    direction = torch.ones(4, 6, dtype=torch.float64)

    def at(weight: Tensor, x: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(layer, {"weight": weight}, (x,))
        return result

    with torch.set_grad_enabled(has_graph):
        _, got = derivative_along(at, (layer.weight, x), (direction, torch.ones_like(x)))
    want = x @ direction.T + torch.ones_like(x) @ layer.weight.T
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


def test_a_bias_with_a_tangent_keeps_it_with_a_graph_and_is_refused_without() -> None:
    """Without a graph a bias is a constant; torch refuses to give one number two tangents."""
    layer, _, x = linear()

    def at(bias: Tensor, x: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(layer, {"bias": bias}, (x,))
        return result

    point, tangent = (layer.bias, x), (torch.ones(4, dtype=torch.float64), torch.ones_like(x))
    _, got = derivative_along(at, point, tangent)
    want = torch.ones_like(x) @ layer.weight.T + 1.0
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)
    with torch.no_grad(), pytest.raises(RuntimeError, match="already has a forward gradient"):
        derivative_along(at, point, tangent)


def test_one_product_for_a_value_and_one_for_a_tangent(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _, x = strided()
    asked = []
    plain = Conv2d._conv_forward

    def counted(self: Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        asked.append(forward_ad.unpack_dual(x).tangent is not None)
        return plain(self, x, weight, bias)

    monkeypatch.setattr(Conv2d, "_conv_forward", counted)
    with torch.no_grad(), forward_ad.dual_level():
        layer(forward_ad.make_dual(x, torch.ones_like(x)))
    assert asked == [False, False], "no dual number reaches torch's convolution"


@pytest.mark.parametrize("has_graph", [False, True])
def test_a_chain_has_torchs_own_values_and_derivative(has_graph: bool) -> None:
    layer, _, x = linear()
    w = Rng.seeded(3).normal(*x.shape, dtype=torch.float64)
    factors = torch.arange(4.0)

    def ours(x: Tensor) -> Tensor:
        y = modulated(layer(x), x[:, :4].sin(), x[:, 2:])
        return scaled(shifted(scaled(y, 2.5), 1.5).square(), factors)

    def plain(x: Tensor) -> Tensor:
        y = layer(x) * (1 + x[:, :4].sin()) + x[:, 2:]
        return (y * 2.5 + 1.5).square() * factors

    with torch.set_grad_enabled(has_graph):
        got, want = (derivative_along(fn, (x,), (w,)) for fn in (ours, plain))
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-12)


def test_reverse_mode_inside_forward_mode_keeps_the_tangent() -> None:
    """The gradient by the weight is linear in x, so its derivative along x is not zero."""
    layer, _, x = linear()

    def gradient(x: Tensor) -> Tensor:
        (by_weight,) = torch.autograd.grad(layer(x).sum(), layer.weight, create_graph=True)
        return by_weight

    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        tangent = forward_ad.unpack_dual(gradient(dual)).tangent
    assert tangent is not None
    torch.testing.assert_close(tangent, torch.full((4, 6), 3.0, dtype=torch.float64))
