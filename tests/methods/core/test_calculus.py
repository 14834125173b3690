"""Derivatives along a direction: exact, in full precision, and with a graph only where asked."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from onestep.methods.core.calculus import (
    AbstractDerivative,
    CentralDifference,
    ForwardDifference,
    ForwardMode,
    derivative_along,
    value_of,
)
from onestep.methods.core.rng import Rng
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.observed import ObservedMap

ORACLE = GaussianMap(mean=[0.7, -0.2], std=[0.5, 1.4])
WAYS = [ForwardMode(), CentralDifference(), ForwardDifference()]


def point() -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    rng = Rng.seeded(0)
    x, v = rng.normal(16, 2, dtype=torch.float64), rng.normal(16, 2, dtype=torch.float64)
    s = 0.5 * rng.uniform(16, dtype=torch.float64) + 0.1
    return (x, s, s + 0.3), (v, torch.ones_like(s), torch.zeros_like(s))


def test_the_derivative_agrees_with_reverse_mode() -> None:
    at, tangent = point()
    leaves = tuple(part.clone().requires_grad_() for part in at)
    weights = torch.ones(2, dtype=torch.float64)
    (u,) = (ORACLE(*leaves) @ weights,)
    gradients = torch.autograd.grad(u.sum(), leaves)
    want = sum((g * w).reshape(16, -1).sum(1) for g, w in zip(gradients, tangent, strict=True))
    value, derivative = derivative_along(ORACLE, at, tangent)
    assert torch.equal(value, ORACLE(*at))
    torch.testing.assert_close(derivative @ weights, want, atol=1e-12, rtol=1e-12)


def test_gradients_flow_through_value_and_derivative() -> None:
    """f = (a x)^2 has f' = 2 a^2 x, whose derivative by a is 4 a x."""
    a, x = torch.tensor(3.0, requires_grad=True), torch.tensor([2.0])
    _, derivative = derivative_along(lambda x: (a * x) ** 2, (x,), (torch.ones(1),))
    (by_a,) = torch.autograd.grad(derivative.sum(), a)
    assert by_a.item() == pytest.approx(4.0 * 3.0 * 2.0)


@pytest.mark.parametrize("derivative", WAYS, ids=repr)
def test_the_derivative_in_a_loss_is_a_constant(derivative: AbstractDerivative) -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    got = derivative.along(lambda x: weight * x**2, (torch.ones(1),), (torch.ones(1),))
    assert got.item() == pytest.approx(4.0, rel=2e-3)
    assert not got.requires_grad


@pytest.mark.parametrize(("kind", "order"), [(CentralDifference, 2), (ForwardDifference, 1)])
def test_the_error_of_a_difference_falls_with_its_order(
    kind: type[CentralDifference] | type[ForwardDifference], order: int
) -> None:
    at, tangent = point()
    exact = ForwardMode().along(ORACLE, at, tangent)
    errors = [
        (kind(step=h).along(ORACLE, at, tangent) - exact).abs().max().item() for h in (0.02, 0.01)
    ]
    assert errors[0] / errors[1] == pytest.approx(2.0**order, rel=0.1)
    assert errors[1] > 0.0


def test_a_known_value_saves_the_forward_difference_an_evaluation() -> None:
    at, tangent = point()
    net = ObservedMap(ORACLE)
    want = ForwardDifference().along(net, at, tangent)
    got = ForwardDifference().along(net, at, tangent, value=ORACLE(*at))
    assert torch.equal(got, want)
    assert len(net.calls) == 2 + 1


def test_a_value_that_autocast_has_rounded_is_not_used() -> None:
    layer, x = nn.Linear(8, 8), Rng.seeded(1).normal(4, 8)
    want = ForwardDifference().along(layer, (x,), (x,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = ForwardDifference().along(layer, (x,), (x,), value=layer(x))
    assert torch.equal(got, want)


def test_a_value_for_differences_is_in_full_precision_and_has_no_graph() -> None:
    layer, x = nn.Linear(8, 8), Rng.seeded(1).normal(4, 8)
    want = layer(x)
    assert torch.equal(value_of(layer, (x,), known=want + 1.0), want + 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for known in (None, layer(x)):
            got = value_of(layer, (x,), known=known)
            assert torch.equal(got, want)
            assert not got.requires_grad


@pytest.mark.parametrize("step", [0.0, 0.2])
def test_a_difference_without_a_sensible_step_is_refused(step: float) -> None:
    with pytest.raises(ValueError, match=f"must lie in .0, 0.1., got {step}"):
        CentralDifference(step=step)
    with pytest.raises(ValueError, match=f"must lie in .0, 0.1., got {step}"):
        ForwardDifference(step=step)


@pytest.mark.parametrize("derivative", WAYS, ids=repr)
def test_autocast_leaves_the_derivative_alone(derivative: AbstractDerivative) -> None:
    layer = nn.Linear(8, 8)
    x = Rng.seeded(1).normal(4, 8)
    want = derivative.along(layer, (x,), (x,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = derivative.along(layer, (x,), (x,))
    assert got.dtype == torch.float32
    assert torch.equal(got, want)


def test_autocast_leaves_value_and_derivative_of_a_graph_alone() -> None:
    layer = nn.Linear(8, 8)
    x = Rng.seeded(1).normal(4, 8)
    want = derivative_along(layer, (x,), (x,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = derivative_along(layer, (x,), (x,))
    for mine, exact in zip(got, want, strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, exact)


def test_attention_has_a_derivative() -> None:
    """The fused kernels have none; the plain one is chosen inside and nowhere else."""
    q = Rng.seeded(2).normal(2, 3, 4, 8, dtype=torch.float64)

    def attend(q: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, q, q)

    _, derivative = derivative_along(attend, (q,), (torch.ones_like(q),))
    difference = (attend(q + 1e-6) - attend(q - 1e-6)) / 2e-6
    torch.testing.assert_close(derivative, difference, atol=1e-7, rtol=1e-7)
