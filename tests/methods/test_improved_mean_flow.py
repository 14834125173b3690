"""Improved mean flow: its compound, its tangent, its noise and guidance as an input."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp

from onestep.methods.core.calculus import AbstractDerivative, ForwardMode, Function
from onestep.methods.core.condition import NULL_LABEL, UNGUIDED, Condition
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.guidance import GuidanceScales, LabelDropout
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.core.shape import rows_like
from onestep.methods.core.time_law import Uniform
from onestep.methods.core.times import DiagonalTimes, SortedTimes
from onestep.methods.core.weighting import AdaptivePower, Unweighted
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.improved_mean_flow import ImprovedMeanFlow
from onestep.methods.mean_flow import MeanFlow
from onestep.methods.nets.mlp import MLP
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.contract import CLASSES, Exact, MethodContract, SmallMap
from onestep.tests.methods.exactness import (
    ORACLE,
    Setting,
    assert_not_stationary,
    assert_stationary,
)
from onestep.tests.methods.fixed_times import FixedTimes
from onestep.tests.methods.observed import ObservedMap

TIMES = SortedTimes(diagonal=Constant(value=0.25))
PLAIN = ImprovedMeanFlow(times=TIMES, weighting=Unweighted())


@final
@dataclass(frozen=True, kw_only=True)
class Altered(AbstractDerivative):
    """The exact derivative along (v, ds, dt) in place of (v, 1, 0), times a sign."""

    ds: float
    dt: float
    sign: float = 1.0

    def along(
        self,
        fn: Function,
        at: Sequence[Tensor],
        tangent: Sequence[Tensor],
        *,
        value: Tensor | None = None,
    ) -> Tensor:
        del value
        one = tangent[1]
        return self.sign * ForwardMode().along(fn, at, (tangent[0], self.ds * one, self.dt * one))


class TestImprovedMeanFlow(MethodContract):
    """The control has the sign of the other convention."""

    exactness = Exact(control=replace(PLAIN, derivative=Altered(ds=1.0, dt=0.0, sign=-1.0)))

    @pytest.fixture
    def method(self) -> ImprovedMeanFlow:
        return ImprovedMeanFlow(times=TIMES)


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int, *, data: GaussianMap = ORACLE, labelled: bool = False) -> Batch:
    x0, x1 = data.draw(n, rng=Rng.seeded(1))
    condition = Condition(label=torch.arange(n) % CLASSES) if labelled else None
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=condition)


def along_the_diagonal_of(net: FlowMap, n: int) -> Batch:
    """Pairs whose own velocity is the network's at the state and time that the loss will visit."""
    s = TIMES.draw(n, moment(n), dtype=torch.float64).s
    x = Rng.seeded(6).normal(n, 2, dtype=torch.float64)
    with torch.no_grad():
        v, at = net.velocity(x, s), rows_like(s, x)
    return Batch(x0=x - at * v, x1=x + (1.0 - at) * v, index=torch.arange(n))


def small_net() -> SmallMap:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallMap(shape=(2,), domain=Domain()).double()


def gradient(loss: Tensor, net: FlowMap) -> Tensor:
    parts = torch.autograd.grad(loss.mean(), list(net.parameters()), allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


# The compound.


def residuals(method: ImprovedMeanFlow) -> Tensor:
    """Distance of the oracle's compound from its velocity, for each row off the diagonal."""
    n = 256
    loss = method.loss(Nets(online=ORACLE), along_the_diagonal_of(ORACLE, n), moment(n))
    return loss.total[method.times.draw(n, moment(n)).off_rows].sqrt()


def test_the_compound_of_the_oracle_is_its_velocity() -> None:
    assert residuals(PLAIN).max() <= 1e-12


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(Altered(ds=0.0, dt=0.0), id="no time in the tangent"),
        pytest.param(Altered(ds=1.0, dt=0.0, sign=-1.0), id="the sign of the other convention"),
        pytest.param(Altered(ds=1.0, dt=1.0), id="the length held while the start moves"),
        pytest.param(Altered(ds=0.0, dt=1.0), id="the end time in place of the start"),
    ],
)
def test_a_wrong_tangent_breaks_the_compound(wrong: AbstractDerivative) -> None:
    assert residuals(replace(PLAIN, derivative=wrong)).square().mean().sqrt() >= 0.1


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_where_the_pairs_move_like_the_network_the_gradient_is_that_of_mean_flow(
    power: float,
) -> None:
    net, n = small_net(), 64
    weighting, batch = AdaptivePower(power=power), along_the_diagonal_of(net, 64)
    mine = replace(PLAIN, weighting=weighting).loss(Nets(online=net), batch, moment(n)).total
    other = MeanFlow(times=TIMES, weighting=weighting)
    theirs = other.loss(Nets(online=net), batch, moment(n)).total
    torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradient(mine, net), gradient(theirs, net), atol=1e-13, rtol=1e-10)
    apart = pairs(n)
    mine = replace(PLAIN, weighting=weighting).loss(Nets(online=net), apart, moment(n)).total
    theirs = other.loss(Nets(online=net), apart, moment(n)).total
    assert (mine - theirs).abs().max() >= 1e-3


def test_the_gradient_is_that_of_the_average_velocity_alone() -> None:
    """Neither the derivative nor the network's own velocity carries any."""
    net, n, batch = small_net(), 64, pairs(64)
    times = TIMES.draw(n, moment(n), dtype=torch.float64)
    s, t = times.s, times.t
    x, v = PLAIN.path.at(batch.noise, batch.x1, s)
    with torch.no_grad():
        tangent = (net.velocity(x, s), torch.ones_like(s), torch.zeros_like(t))
        _, du_ds = jvp(lambda x, s, t: net(x, s, t), (x, s, t), tangent)
        target = v + rows_like(t - s, x) * du_ds
    want = (net(x, s, t) - target).square().sum(1)
    got = PLAIN.loss(Nets(online=net), batch, moment(n)).total
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradient(got, net), gradient(want, net), atol=1e-13, rtol=1e-10)


@pytest.mark.parametrize(("s", "t"), [(0.0, 1.0), (0.25, 0.75)])
def test_the_noise_at_the_oracle_is_that_of_flow_matching(s: float, t: float) -> None:
    """c^2 / S_s^2; mean flow's is S_t^2 / S_s^2 times it. 200 000 samples, 4 standard errors."""
    n, std = 200_000, 0.5
    data = GaussianMap(mean=[0.7], std=[std])
    times, nets, batch = FixedTimes(s=s, t=t), Nets(online=data), pairs(n, data=data)
    square_s, square_t = ((1 - r) ** 2 + (r * std) ** 2 for r in (s, t))
    for method, floor in (
        (replace(PLAIN, times=times), std**2 / square_s),
        (MeanFlow(times=times, weighting=Unweighted()), std**2 * square_t / square_s**2),
    ):
        loss = method.loss(nets, batch, moment(n)).total.detach()
        assert abs(loss.mean().item() - floor) <= 4.0 * (loss.std() / n**0.5).item()


# The rows.


def test_a_batch_on_the_diagonal_is_flow_matching_and_takes_one_evaluation() -> None:
    n, batch, net = 64, pairs(64), ObservedMap(ORACLE)
    method = replace(PLAIN, times=SortedTimes(law=Uniform(), diagonal=Constant(value=1.0)))
    got = method.loss(Nets(online=net), batch, moment(n)).total
    assert net.rows == [n]
    flow_matching = FlowMatching(times=DiagonalTimes(law=Uniform()))
    assert torch.equal(got, flow_matching.loss(Nets(online=ORACLE), batch, moment(n)).total)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.75])
def test_rows_on_the_diagonal_pay_for_the_prediction_alone(share: float) -> None:
    n, net = 64, ObservedMap(ORACLE)
    method = replace(PLAIN, times=SortedTimes(diagonal=Constant(value=share)))
    method.loss(Nets(online=net), pairs(n), moment(n))
    off = round((1.0 - share) * n)
    assert net.rows == [n, off, off]
    _, own, derivative = net.calls
    assert torch.equal(own.s, own.t)
    assert torch.equal(own.x, derivative.x)
    assert bool((derivative.s < derivative.t).all())


# Guidance.

STD = (0.3, 0.6)
UNCONDITIONAL = GaussianMap(mean=[0.2, 0.1], std=STD)
CONDITIONAL = GaussianMap(mean=[0.7, -0.2], std=STD)
IGNORED = "ignore:method.guidance without label dropout:UserWarning"
NONE = LabelDropout(probability=0.0)
SCALES = GuidanceScales(highest=8.0)


@final
class GuidedMaps(FlowMap):
    """The guided flow of two Gaussians of one width, at the scale of each row.

    Guidance moves their mean, in which the average velocity is linear.
    """

    def __init__(self, *, off_by: float = 0.0) -> None:
        super().__init__(domain=Domain())
        self.labelled, self.unlabelled = CONDITIONAL, UNCONDITIONAL
        self.off_by = off_by

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        assert condition is not None
        assert condition.label is not None
        assert condition.guidance is not None
        scale = condition.guidance + self.off_by
        weight = torch.where(condition.label == NULL_LABEL, 0.0, scale)
        pull: Tensor = self.labelled(x, s, t) - self.unlabelled(x, s, t)
        return self.unlabelled(x, s, t) + rows_like(weight, x) * pull


def labelled_pairs(n: int, rng: Rng) -> Batch:
    x0, x1 = CONDITIONAL.draw(n, rng=rng)
    label = torch.zeros(n, dtype=torch.long)
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=Condition(label=label))


GUIDED = replace(PLAIN, label_dropout=LabelDropout(), guidance=SCALES)


@pytest.mark.filterwarnings(IGNORED)
class TestGuidedImprovedMeanFlow(MethodContract):
    """Every row at the flow that guidance of its own scale leads to; the control never guides."""

    exactness = Exact(
        setting=Setting(data=CONDITIONAL, batch=labelled_pairs),
        at=GuidedMaps(),
        control=replace(GUIDED, guidance=GuidanceScales(highest=8.0, s_lo=1.0, s_hi=1.0)),
    )

    @pytest.fixture
    def method(self) -> ImprovedMeanFlow:
        return replace(GUIDED, weighting=AdaptivePower(), label_dropout=NONE)


@pytest.mark.filterwarnings(IGNORED)
def test_the_scale_of_the_fixed_point_is_the_scale_that_the_network_was_given() -> None:
    method = replace(GUIDED, label_dropout=NONE)
    setting = Setting(data=CONDITIONAL, batch=labelled_pairs)
    assert_stationary(method, GuidedMaps(), setting)
    assert_not_stationary(method, GuidedMaps(off_by=0.5), setting)


@final
@dataclass
class Seen:
    """Conditions of each evaluation of a map."""

    conditions: list[Condition | None] = field(default_factory=list)


@final
class GuidedNet(FlowMap):
    """A small network with awakened weights that takes labels and a scale, and notes them."""

    def __init__(self) -> None:
        super().__init__(domain=Domain())
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = MLP(
                shape=(2,), domain=Domain(), classes=CLASSES, guided=True, width=16, depth=1
            ).double()
            for parameter in self.net.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
        self.seen = Seen()

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        self.seen.conditions.append(condition)
        u: Tensor = self.net(x, s, t, condition)
        return u


def conditions_of(method: ImprovedMeanFlow, n: int = 256) -> list[Condition]:
    net = GuidedNet()
    method.loss(Nets(online=net), pairs(n, labelled=True), moment(n))
    found = [condition for condition in net.seen.conditions if condition is not None]
    assert len(found) == len(net.seen.conditions)
    return found


def test_the_network_is_given_the_scale_in_every_evaluation_and_none_without_label() -> None:
    prediction, own, derivative, null = conditions_of(GUIDED)
    assert prediction.guidance is not None
    assert prediction.guidance.dtype == torch.float64
    assert bool((prediction.guidance >= 1.0).all())
    assert len(prediction.guidance.unique()) > 128
    rows = GUIDED.times.draw(256, moment(256)).off_rows
    for condition in (own, derivative):
        assert condition.guidance is not None
        assert torch.equal(condition.guidance, prediction.guidance[rows])
    assert null.guidance is not None
    assert null.label is not None
    assert bool((null.guidance == UNGUIDED).all())
    assert bool((null.label == NULL_LABEL).all())


def test_rows_that_lose_their_label_lose_their_scale_and_keep_their_velocity() -> None:
    method, n = replace(GUIDED, label_dropout=LabelDropout(probability=0.5)), 256
    prediction, *_ = conditions_of(method)
    assert prediction.label is not None
    assert prediction.guidance is not None
    dropped = prediction.label == NULL_LABEL
    assert 64 < int(dropped.sum()) < 192
    assert torch.equal(prediction.guidance == UNGUIDED, dropped)
    changed = losses(method, n) != losses(method, n, pushed=False)
    assert torch.equal(changed, ~dropped)


def losses(method: ImprovedMeanFlow, n: int, *, pushed: bool = True) -> Tensor:
    """Losses of labelled pairs, with the velocity pushed at all times of its interval or never."""
    if not pushed:
        method = replace(method, guidance=replace(method.guidance, s_lo=1.0, s_hi=1.0))
    return method.loss(Nets(online=GuidedNet()), pairs(n, labelled=True), moment(n)).total.detach()


@pytest.mark.filterwarnings(IGNORED)
def test_only_times_within_the_interval_are_guided() -> None:
    n, scales = 256, replace(SCALES, s_lo=0.4, s_hi=0.7)
    method = replace(GUIDED, label_dropout=NONE, guidance=scales)
    changed = losses(method, n) != losses(method, n, pushed=False)
    s = TIMES.draw(n, moment(n), dtype=torch.float64).s
    assert torch.equal(changed, (s >= 0.4) & (s <= 0.7))
    assert 0 < int(changed.sum()) < n


def test_the_guided_velocity_carries_no_gradient() -> None:
    """The gradient on the diagonal is 2 (u - v_guided) times that of u."""
    n, net = 64, GuidedNet()
    method = replace(GUIDED, times=SortedTimes(law=Uniform(), diagonal=Constant(value=1.0)))
    batch = pairs(n, labelled=True)
    got = method.loss(Nets(online=net), batch, moment(n)).total
    prediction, null = net.seen.conditions
    assert prediction is not None
    assert prediction.guidance is not None
    s = method.times.draw(n, moment(n), dtype=torch.float64).s
    x, v = method.path.at(batch.noise, batch.x1, s)
    u = net.velocity(x, s, prediction)
    with torch.no_grad():
        push = rows_like(1.0 - 1.0 / prediction.guidance, x)
        guided = v + push * (u - net.velocity(x, s, null))
    want = (u - guided).square().sum(1)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradient(got, net), gradient(want, net), atol=1e-13, rtol=1e-10)


def test_without_guidance_the_network_is_given_no_scale() -> None:
    assert all(condition.guidance is None for condition in conditions_of(PLAIN))
    assert PLAIN.needs.scales is None
    assert GUIDED.needs.scales == (1.0, GUIDED.guidance.highest)


def test_a_network_that_takes_no_scale_is_refused() -> None:
    net = MLP(shape=(2,), domain=Domain(), classes=CLASSES, width=8, depth=1).double()
    with pytest.raises(ValueError, match="network takes no guidance scale"):
        GUIDED.loss(Nets(online=net), pairs(8, labelled=True), moment(8))


def test_guidance_without_labels_is_refused_and_without_dropout_warns() -> None:
    with pytest.warns(UserWarning, match="an unconditional velocity that the network never learns"):
        ImprovedMeanFlow(label_dropout=NONE, guidance=SCALES)
    with pytest.raises(ValueError, match="guidance needs labelled data, got data without labels"):
        GUIDED.loss(Nets(online=small_net()), pairs(8), moment(8))


def test_the_median_scale_is_the_root_of_the_highest() -> None:
    """2.83 for the paper's 8; 200 000 draws, 4 standard errors of the share below it."""
    n = 200_000
    scale = SCALES.draw(n, moment(n), like=torch.empty(0, dtype=torch.float64))
    below = (scale <= math.sqrt(8.0)).double().mean().item()
    assert abs(below - 0.5) <= 4.0 * 0.5 / n**0.5


def test_guidance_by_a_velocity_that_is_never_trained_is_refused() -> None:
    times = SortedTimes(diagonal=Constant(value=0.0))
    ImprovedMeanFlow(times=times)
    with pytest.raises(ValueError, match=r"method\.guidance reads the network's own velocity"):
        ImprovedMeanFlow(times=times, guidance=SCALES)
