"""Mean flow: its identity, its wrong variants, its rows, its weights and its guidance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from onestep.methods.core.calculus import (
    AbstractDerivative,
    CentralDifference,
    ForwardDifference,
    ForwardMode,
    Function,
)
from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.guidance import Guidance, LabelDropout
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.core.shape import rows_like
from onestep.methods.core.time_law import Uniform
from onestep.methods.core.times import DiagonalTimes, SortedTimes
from onestep.methods.core.weighting import AdaptivePower, Unweighted
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.mean_flow import MeanFlow
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.contract import CLASSES, Exact, MethodContract, Order, SmallMap
from onestep.tests.methods.exactness import (
    ORACLE,
    Setting,
    assert_not_stationary,
    assert_stationary,
)
from onestep.tests.methods.observed import ObservedMap, TwoMaps

TIMES = SortedTimes(diagonal=Constant(value=0.25))
PLAIN = MeanFlow(times=TIMES, weighting=Unweighted())


class TestMeanFlow(MethodContract):
    exactness = Exact(control=MeanFlow(tangent=Constant(value=0.0), times=TIMES))

    @pytest.fixture
    def method(self) -> MeanFlow:
        return MeanFlow(times=TIMES)


GAPS = (0.1, 0.05)
"""Steps of a difference, which is biased. Weights would make the noise of its bias large."""
CENTRAL, FORWARD = (
    (replace(PLAIN, derivative=kind(step=GAPS[0])), replace(PLAIN, derivative=kind(step=GAPS[1])))
    for kind in (CentralDifference, ForwardDifference)
)


class TestMeanFlowByDifferences(MethodContract):
    exactness = Order(order=2.0, gaps=GAPS, methods=CENTRAL, control=FORWARD, reference=PLAIN)

    @pytest.fixture
    def method(self) -> MeanFlow:
        return MeanFlow(times=TIMES, derivative=CentralDifference())


class TestMeanFlowByOneMoreForward(MethodContract):
    exactness = Order(order=1.0, gaps=GAPS, methods=FORWARD, control=CENTRAL, reference=PLAIN)

    @pytest.fixture
    def method(self) -> MeanFlow:
        return MeanFlow(times=TIMES, derivative=ForwardDifference())


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


def on_the_velocity_field(method: MeanFlow, n: int) -> Batch:
    """Pairs whose own velocity is the oracle's at the state and time that the loss will visit."""
    s = method.times.draw(n, moment(n), dtype=torch.float64).s
    x = Rng.seeded(6).normal(n, 2, dtype=torch.float64)
    v, at = ORACLE.velocity(x, s), rows_like(s, x)
    return Batch(x0=x - at * v, x1=x + (1.0 - at) * v, index=torch.arange(n))


def pairs(n: int, *, labelled: bool = False) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    condition = Condition(label=torch.arange(n) % CLASSES) if labelled else None
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=condition)


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


def residuals(method: MeanFlow) -> Tensor:
    """Root of the loss of each row off the diagonal at the oracle, without noise in its target."""
    n = 256
    loss = method.loss(Nets(online=ORACLE), on_the_velocity_field(method, n), moment(n))
    return loss.total[method.times.draw(n, moment(n)).off_rows].sqrt()


def test_the_identity_holds_at_the_oracle() -> None:
    assert residuals(PLAIN).max() <= 1e-12


def test_the_true_tangent_is_the_control_of_the_controls() -> None:
    assert residuals(replace(PLAIN, derivative=Altered(ds=1.0, dt=0.0))).max() <= 1e-12


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(Altered(ds=0.0, dt=0.0), id="no time in the tangent"),
        pytest.param(Altered(ds=1.0, dt=0.0, sign=-1.0), id="the sign of the other convention"),
        pytest.param(Altered(ds=1.0, dt=1.0), id="the length held while the start moves"),
        pytest.param(Altered(ds=0.0, dt=1.0), id="the end time in place of the start"),
        pytest.param(Altered(ds=-1.0, dt=0.0), id="the start moved backwards"),
    ],
)
def test_a_wrong_tangent_breaks_the_identity(wrong: AbstractDerivative) -> None:
    """Of order one: a root mean square above 0.1 where velocities are about 1."""
    assert residuals(replace(PLAIN, derivative=wrong)).square().mean().sqrt() >= 0.1


def test_on_the_diagonal_it_is_flow_matching() -> None:
    n, batch = 64, pairs(64)
    nets = Nets(online=ORACLE)
    mean_flow = replace(PLAIN, times=SortedTimes(law=Uniform(), diagonal=Constant(value=1.0)))
    flow_matching = FlowMatching(times=DiagonalTimes(law=Uniform()))
    got = mean_flow.loss(nets, batch, moment(n)).total
    assert torch.equal(got, flow_matching.loss(nets, batch, moment(n)).total)
    assert got.min() > 0.0


def test_the_loss_at_the_oracle_is_the_noise_of_the_pair_along_the_jump() -> None:
    """c^2 S_t^2 / S_s^4 for each coordinate; 200 000 rows, 4 standard errors."""
    n = 200_000
    times = TIMES.draw(n, moment(n), dtype=torch.float64)
    square_s, square_t = (
        (1.0 - r[:, None]).square() + (r[:, None] * ORACLE.std).square() for r in (times.s, times.t)
    )
    floor = (ORACLE.std.square() * square_t / square_s.square()).sum(1)
    loss = PLAIN.loss(Nets(online=ORACLE), pairs(n), moment(n)).total.detach()
    for rows in (times.diagonal_rows, times.off_rows):
        difference = (loss - floor)[rows]
        error = (difference.std() / len(difference) ** 0.5).item()
        assert abs(difference.mean().item()) <= 4.0 * error


def test_without_a_tangent_the_target_is_the_velocity_of_the_pair() -> None:
    n, batch = 64, pairs(64)
    loss = replace(PLAIN, tangent=Constant(value=0.0)).loss(Nets(online=ORACLE), batch, moment(n))
    times = TIMES.draw(n, moment(n), dtype=torch.float64)
    x, v = PLAIN.path.at(batch.noise, batch.x1, times.s)
    expected = (ORACLE(x, times.s, times.t) - v).square().sum(1)
    torch.testing.assert_close(loss.total, expected, atol=1e-12, rtol=1e-12)


def test_the_gradient_is_that_of_whole_jumps_to_the_velocity_and_of_their_consistency() -> None:
    """Of |u - v|^2 and of -2 (t - s) <u, D_s u>, with the derivative held."""
    n, batch, net = 64, pairs(64), small_nets().online
    times = TIMES.draw(n, moment(n), dtype=torch.float64)
    s, t = times.s, times.t
    x, v = PLAIN.path.at(batch.noise, batch.x1, s)
    u = net(x, s, t)
    du_ds = ForwardMode().along(net, (x, s, t), (v, torch.ones_like(s), torch.zeros_like(t)))
    parts = (u - v).square().sum(), -2.0 * (rows_like(t - s, x) * u * du_ds).sum()
    loss = PLAIN.loss(Nets(online=net), batch, moment(n)).total.sum()
    whole, first, second = (gradient(part, net) for part in (loss, *parts))
    torch.testing.assert_close(whole, first + second, atol=1e-11, rtol=1e-11)
    assert min(first.norm(), second.norm()) > 0.01 * whole.norm()


def gradient(loss: Tensor, net: FlowMap) -> Tensor:
    parts = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True, retain_graph=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.75])
def test_rows_on_the_diagonal_never_enter_the_derivative(share: float) -> None:
    n, net = 64, ObservedMap(ORACLE)
    method = replace(PLAIN, times=SortedTimes(diagonal=Constant(value=share)))
    method.loss(Nets(online=net), pairs(n), moment(n))
    assert net.rows == [n, round((1.0 - share) * n)]
    prediction, derivative = net.calls
    assert int((prediction.s == prediction.t).sum()) == round(share * n)
    assert bool((derivative.s < derivative.t).all())


def test_a_batch_on_the_diagonal_takes_one_evaluation() -> None:
    net = ObservedMap(ORACLE)
    method = replace(PLAIN, times=SortedTimes(diagonal=Constant(value=1.0)))
    method.loss(Nets(online=net), pairs(64), moment(64))
    assert net.rows == [64]


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_a_tangent_schedule_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"method\.tangent"):
        MeanFlow(tangent=Linear(start=0.0, end=value))


# Weights.


@final
class FreeMap(FlowMap):
    """A map whose values are its parameters, one row for each row of the batch."""

    def __init__(self, value: Float[Tensor, " b *d"]) -> None:
        super().__init__(domain=Domain())
        self.value = torch.nn.Parameter(value)

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        del x, s, t, condition
        return self.value


@pytest.mark.parametrize("power", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("offset", [1e-3, 1.0])
def test_the_gradient_of_a_row_has_the_stated_length(power: float, offset: float) -> None:
    """2 |e| / (|e|^2 + offset)^power."""
    n, batch = 32, pairs(32)
    net = FreeMap(Rng.seeded(8).normal(n, 2, dtype=torch.float64))
    method = MeanFlow(
        times=SortedTimes(diagonal=Constant(value=1.0)),
        weighting=AdaptivePower(power=power, offset=offset),
    )
    loss = method.loss(Nets(online=net), batch, moment(n))
    torch.autograd.backward(loss.total.sum())
    assert net.value.grad is not None
    square = (net.value.detach() - (batch.x1 - batch.noise)).square().sum(1)
    expected = 2.0 * square.sqrt() / (square + offset) ** power
    torch.testing.assert_close(net.value.grad.norm(dim=1), expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(loss.logs["error"], square, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_every_power_of_the_weight_is_exact_on_gaussian_data(power: float) -> None:
    """The noise of the target is symmetric there; the contract tests power 1."""
    method = MeanFlow(times=TIMES, weighting=AdaptivePower(power=power, offset=0.01))
    assert_stationary(method, ORACLE, Setting())


# Guidance.


STD = (0.3, 0.6)
UNCONDITIONAL = GaussianMap(mean=[0.2, 0.1], std=STD)
CONDITIONAL = GaussianMap(mean=[0.7, -0.2], std=STD)


def guided(scale: float) -> TwoMaps:
    """Gaussians of one width: guidance moves the mean, over every interval."""
    mean = scale * CONDITIONAL.mean + (1.0 - scale) * UNCONDITIONAL.mean
    return TwoMaps(GaussianMap(mean=mean, std=STD), UNCONDITIONAL)


def labelled_pairs(n: int, rng: Rng) -> Batch:
    x0, x1 = CONDITIONAL.draw(n, rng=rng)
    label = torch.zeros(n, dtype=torch.long)
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=Condition(label=label))


IGNORED = "ignore:method.guidance without label dropout:UserWarning"
"""An oracle knows its unconditional velocity, so the tests of guidance drop no label."""


@pytest.mark.filterwarnings(IGNORED)
class TestGuidedMeanFlow(MethodContract):
    """Labelled data, whose flow guidance of scale 2 pushes away from the unlabelled one."""

    exactness = Exact(
        setting=Setting(data=CONDITIONAL, batch=labelled_pairs),
        at=guided(2.0),
        control=MeanFlow(times=TIMES, label_dropout=LabelDropout(probability=0.0)),
    )

    @pytest.fixture
    def method(self) -> MeanFlow:
        return MeanFlow(
            times=TIMES,
            label_dropout=LabelDropout(probability=0.0),
            guidance=Guidance(omega=1.0, kappa=0.5),
        )


def test_guidance_without_label_dropout_warns_of_the_velocity_that_is_never_learnt() -> None:
    none = LabelDropout(probability=0.0)
    with pytest.warns(UserWarning, match="an unconditional velocity that the network never learns"):
        MeanFlow(label_dropout=none, guidance=Guidance(omega=2.0))


def test_guidance_by_a_velocity_that_is_never_trained_is_refused() -> None:
    times = SortedTimes(diagonal=Constant(value=0.0))
    MeanFlow(times=times)
    with pytest.raises(ValueError, match=r"method\.guidance reads the network's own velocity"):
        MeanFlow(times=times, guidance=Guidance(omega=2.0))


@pytest.mark.filterwarnings(IGNORED)
@pytest.mark.parametrize(("omega", "kappa"), [(0.2, 0.92), (2.0, 0.0)])
def test_the_fixed_point_of_guidance_has_scale_omega_over_one_minus_kappa(
    omega: float, kappa: float
) -> None:
    """On the diagonal, where guidance acts; the contract above tests every interval."""
    guidance = Guidance(omega=omega, kappa=kappa)
    method = MeanFlow(
        times=SortedTimes(diagonal=Constant(value=1.0)),
        weighting=Unweighted(),
        label_dropout=LabelDropout(probability=0.0),
        guidance=guidance,
    )
    setting = Setting(data=CONDITIONAL, batch=labelled_pairs)
    assert guidance.scale == pytest.approx(omega / (1.0 - kappa))
    assert_stationary(method, guided(guidance.scale), setting)
    assert_not_stationary(method, guided(guidance.scale - 0.5), setting)


def small_nets() -> Nets:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Nets(online=SmallMap(shape=(2,), domain=Domain()).double())


GUIDED = replace(PLAIN, guidance=Guidance(omega=1.0, kappa=0.5))


def rows_of_guidance(method: MeanFlow, unguided: MeanFlow) -> tuple[Tensor, Tensor]:
    """Which rows guidance has changed, and which rows had lost their label."""
    n, batch, nets = 64, pairs(64, labelled=True), small_nets()
    changed = (
        method.loss(nets, batch, moment(n)).total != unguided.loss(nets, batch, moment(n)).total
    )
    net = ObservedMap(nets.online)
    unguided.loss(Nets(online=net), batch, moment(n))
    label = net.calls[0].label
    assert label is not None
    return changed, label == NULL_LABEL


@pytest.mark.filterwarnings(IGNORED)
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_exactly_the_rows_with_a_label_are_guided(probability: float) -> None:
    dropout = LabelDropout(probability=probability)
    changed, dropped = rows_of_guidance(
        replace(GUIDED, label_dropout=dropout), replace(PLAIN, label_dropout=dropout)
    )
    assert torch.equal(changed, ~dropped)


@pytest.mark.filterwarnings(IGNORED)
def test_only_times_within_the_interval_are_guided() -> None:
    none = LabelDropout(probability=0.0)
    within = replace(
        GUIDED, label_dropout=none, guidance=replace(GUIDED.guidance, s_lo=0.4, s_hi=0.7)
    )
    changed, _ = rows_of_guidance(within, replace(PLAIN, label_dropout=none))
    s = TIMES.draw(64, moment(64), dtype=torch.float64).s
    assert torch.equal(changed, (s >= 0.4) & (s <= 0.7))
    assert 0 < int(changed.sum()) < 64


def test_guidance_of_scale_one_is_no_guidance_bit_for_bit() -> None:
    n, batch = 64, pairs(64, labelled=True)
    net = ObservedMap(small_nets().online)
    assert batch.condition is not None
    s = torch.linspace(0.0, 1.0, n, dtype=torch.float64)
    v = batch.x1 - batch.noise
    plain = torch.zeros(n, dtype=torch.bool)
    guidance = Guidance(omega=1.0, kappa=0.0)
    assert torch.equal(guidance.target(v, net, batch.x1, s, batch.condition, plain=plain), v)
    net.calls.clear()
    off = replace(PLAIN, guidance=guidance).loss(Nets(online=net), batch, moment(n)).total
    assert net.rows == [n, 48]
    wide_open = replace(PLAIN, guidance=Guidance(omega=3.0, s_lo=1.0, s_hi=1.0))
    assert torch.equal(wide_open.loss(Nets(online=net), batch, moment(n)).total, off)


def test_the_networks_in_the_target_are_on_the_diagonal_and_have_no_gradient() -> None:
    n, batch = 64, pairs(64, labelled=True)
    nets = small_nets()
    net = ObservedMap(nets.online)
    GUIDED.loss(Nets(online=net), batch, moment(n))
    null, conditional, prediction, derivative = net.calls
    assert null.label is not None
    assert bool((null.label == NULL_LABEL).all())
    for call in (null, conditional):
        assert torch.equal(call.s, call.t)
    assert len(prediction.x) == n
    assert len(derivative.x) == 48
    assert batch.condition is not None
    s = torch.full((n,), 0.5, dtype=torch.float64)
    plain = torch.zeros(n, dtype=torch.bool)
    v = batch.x1 - batch.noise
    target = GUIDED.guidance.target(v, nets.online, batch.x1, s, batch.condition, plain=plain)
    assert not target.requires_grad


def test_guidance_whose_scale_is_one_still_mixes_in_the_network() -> None:
    assert not Guidance().is_on
    assert Guidance(omega=0.5, kappa=0.5).is_on
