"""The table of the doctor: what is measured, what is refused, what is recommended."""

import math
from dataclasses import replace
from typing import final

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from onestep.methods.core.calculus import AbstractDerivative
from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.precision import Precision
from onestep.methods.nets.mlp import MLP
from onestep.platform.build import build
from onestep.platform.training.derivative_costs import DerivativeCost, measure, recommend


@final
class Opaque(torch.autograd.Function):
    """A layer without a forward-mode derivative."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.sin(x)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]


@final
class OpaqueMap(FlowMap):
    def __init__(self) -> None:
        super().__init__(domain=Domain())
        self.layer = nn.Linear(4, 2)

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        u: Tensor = Opaque.apply(self.layer(torch.cat([x, s[:, None], t[:, None]], dim=1)))  # type: ignore[no-untyped-call]
        return u


@pytest.fixture(scope="module")
def costs() -> dict[str, DerivativeCost]:
    torch.manual_seed(0)
    net = MLP(shape=(2,), domain=Domain(), classes=3, width=64, depth=2, embedding_width=16)
    before = [parameter.clone() for parameter in net.parameters()]
    found = measure(net, (2,), 3, rows=512, off=128)
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))
    return {cost.name: cost for cost in found}


def test_every_way_is_timed_and_compared(costs: dict[str, DerivativeCost]) -> None:
    kinds = [name.rstrip(".0123456789 ") for name in costs]
    assert kinds == [
        "whole batch, with graph",
        "forward mode",
        "forward mode, no split",
        "central difference",
        "forward difference",
    ]
    for cost in costs.values():
        assert not cost.refusal
        assert 0.5 < cost.step < 50.0
        assert cost.memory >= 1.0


def test_exact_ways_differ_by_rounding_and_differences_by_more(
    costs: dict[str, DerivativeCost],
) -> None:
    for name, cost in costs.items():
        low, high = (1e-6, 1e-1) if "difference" in name else (0.0, 1e-5)
        assert low < cost.error < high, name


def test_a_whole_batch_with_its_graph_holds_more_than_the_rows_off_the_diagonal(
    costs: dict[str, DerivativeCost],
) -> None:
    assert costs["whole batch, with graph"].memory > 1.5 * costs["forward mode"].memory


def test_each_node_builds_its_derivative(costs: dict[str, DerivativeCost]) -> None:
    nodes = [cost.node for cost in costs.values() if cost.node]
    assert len(nodes) == 3
    for node in nodes:
        build(node, AbstractDerivative)


def test_in_half_precision_the_derivative_stays_exact() -> None:
    net = MLP(shape=(2,), domain=Domain(), classes=0, width=16, depth=1, embedding_width=8)
    found = {c.name: c for c in measure(net, (2,), 0, precision=Precision.BFLOAT16)}
    assert found["forward mode"].error < 1e-5
    assert found["whole batch, with graph"].error < 1e-5


def test_a_way_that_a_network_does_not_take_is_shown_with_the_reason() -> None:
    torch.manual_seed(0)
    found = {cost.name: cost for cost in measure(OpaqueMap(), (2,), 0)}
    for name in ("forward mode", "whole batch, with graph"):
        assert found[name].refusal
        assert math.isinf(found[name].step)
    chosen = recommend(tuple(found.values()))
    assert "difference" in chosen.name
    assert chosen.error < 1e-2


EXACT = DerivativeCost(name="forward mode", node={"_target_": "x.ForwardMode"}, step=1.2, error=0.0)
DIFFERENCE = DerivativeCost(name="d", node={"_target_": "x.D"}, step=1.1, error=1e-3)


@pytest.mark.parametrize(
    ("other", "best"),
    [
        (DIFFERENCE, "d"),
        (replace(DIFFERENCE, step=1.19), "forward mode"),
        (replace(DIFFERENCE, error=2e-2), "forward mode"),
        (replace(DIFFERENCE, node={}), "forward mode"),
        (replace(DIFFERENCE, refusal="no", error=math.inf, step=math.inf), "forward mode"),
    ],
    ids=["faster", "hardly faster", "too wrong", "for comparison", "refused"],
)
def test_the_exact_way_is_left_for_one_that_is_worth_while_and_right(
    other: DerivativeCost, best: str
) -> None:
    assert recommend([EXACT, other]).name == best


def test_without_a_way_that_is_right_none_is_recommended() -> None:
    wrong = replace(DIFFERENCE, error=0.5)
    with pytest.raises(ValueError, match=r"no derivative .* at most 0\.01: d 5\.0e-01"):
        recommend([wrong])
