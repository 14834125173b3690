"""Terminal velocity matching: its two lines, its teacher, its limits and its guidance."""

from dataclasses import dataclass, replace
from typing import final

import pytest
import torch
from torch import Tensor

from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.coupling import AbstractCoupling
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.gap_times import GapTimes
from onestep.methods.core.guidance import LabelDropout
from onestep.methods.core.method import AbstractMethod, Ema, Needs
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.rule import AbstractRule, Lagrangian
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.core.shape import sum_rows
from onestep.methods.core.time_law import LogitNormal
from onestep.methods.core.times import SortedTimes
from onestep.methods.oracle import GaussianMap
from onestep.methods.self_distillation import SelfDistillation
from onestep.methods.terminal_velocity_matching import TerminalVelocityMatching
from onestep.tests.methods.contract import CLASSES, Exact, MethodContract, SmallMap
from onestep.tests.methods.exactness import ORACLE, WRONG, Perturbed, Setting, assert_exactness
from onestep.tests.methods.misruled import SignOfTheOtherConvention, VelocityAtTheStart
from onestep.tests.methods.observed import ObservedMap, TwoMaps

PLAIN = TerminalVelocityMatching()
NONE = Constant(value=0.0)
# As good as none, which would warn where there is guidance.
KEPT = LabelDropout(probability=2.0**-40)


@final
class RightOnTheDiagonal(FlowMap):
    """The velocity of another map in place of its average: Euler steps, whatever their length."""

    def __init__(self, flow_map: FlowMap) -> None:
        super().__init__(domain=flow_map.domain)
        self.flow_map = flow_map

    def forward(
        self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None = None
    ) -> Tensor:
        del t
        return self.flow_map.velocity(x, s, condition)


@final
@dataclass(frozen=True, kw_only=True)
class Ruled(AbstractMethod):
    """The method with a rule of our own in place of its first line.

    Attributes:
        rule: The rule.
    """

    rule: AbstractRule
    coupling: AbstractCoupling = PLAIN.coupling

    @property
    def domain(self) -> Domain:
        return PLAIN.domain

    @property
    def needs(self) -> Needs:
        return PLAIN.needs

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        assert nets.target is not None
        velocity = PLAIN.loss(nets, batch, now).terms["velocity"]
        times = PLAIN.times.draw(len(batch), now, dtype=batch.x1.dtype)
        s, t = times.s, times.t
        x = PLAIN.path.at(batch.noise, batch.x1, s).x
        left = self.rule.residual(nets.online, nets.target, x, s, t, None, now)
        return Loss(terms={"terminal": sum_rows(left.square()), "velocity": velocity})


class TestTerminalVelocityMatching(MethodContract):
    """At a map that is right on the diagonal the second line is at rest, and the first is not."""

    exactness = Exact(control=RightOnTheDiagonal(ORACLE))

    @pytest.fixture
    def method(self) -> TerminalVelocityMatching:
        return PLAIN


@pytest.mark.parametrize("wrong", [SignOfTheOtherConvention(), VelocityAtTheStart()], ids=str)
def test_another_first_line_misses_the_oracle(wrong: AbstractRule) -> None:
    assert_exactness(Exact(control=Ruled(rule=wrong)), Ruled(rule=Lagrangian()))


def test_without_its_first_line_the_method_would_be_noticed() -> None:
    with pytest.raises(AssertionError, match="the negative control has z = "):
        assert_exactness(TestTerminalVelocityMatching.exactness, replace(PLAIN, strength=NONE))


STD = (0.3, 0.6)
UNCONDITIONAL = GaussianMap(mean=[0.2, 0.1], std=STD)
CONDITIONAL = GaussianMap(mean=[0.7, -0.2], std=STD)
SCALE = 2.0
GUIDED = TwoMaps(
    GaussianMap(mean=SCALE * CONDITIONAL.mean + (1.0 - SCALE) * UNCONDITIONAL.mean, std=STD),
    UNCONDITIONAL,
)
"""Gaussians of one width: guidance moves the mean, over every interval."""


def labelled_pairs(n: int, rng: Rng) -> Batch:
    x0, x1 = CONDITIONAL.draw(n, rng=rng)
    label = torch.zeros(n, dtype=torch.long)
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=Condition(label=label))


class TestGuided(MethodContract):
    """Labelled data, whose flow guidance pushes away from the unlabelled one, jumps included."""

    exactness = Exact(
        setting=Setting(data=CONDITIONAL, batch=labelled_pairs, frozen={"target": GUIDED}),
        at=GUIDED,
        control=TerminalVelocityMatching(scale=1.5, label_dropout=KEPT),
    )

    @pytest.fixture
    def method(self) -> TerminalVelocityMatching:
        return TerminalVelocityMatching(scale=SCALE, label_dropout=KEPT)


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int, *, labelled: bool = False) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    condition = Condition(label=torch.arange(n) % CLASSES) if labelled else None
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=condition)


def small_map(seed: int = 0) -> SmallMap:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SmallMap(shape=(2,), domain=Domain()).double()


def found(method: TerminalVelocityMatching, online: FlowMap, target: FlowMap, batch: Batch) -> Loss:
    return method.loss(Nets(online=online, target=target), batch, moment(len(batch)))


def drawn(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Start, end and the time of the velocity, as the loss draws them."""
    now = moment(n)
    times = PLAIN.times.draw(n, now, dtype=torch.float64)
    return times.s, times.t, PLAIN.velocity_law.draw(n, now.rng, dtype=torch.float64)


def test_the_exact_map_has_no_terminal_loss_and_its_velocity_the_floor() -> None:
    """The variance of the velocity at each time; 200 000 rows, 4 standard errors."""
    n = 200_000
    loss = found(PLAIN, ORACLE, ORACLE, pairs(n))
    assert loss.terms["terminal"].max() <= 1e-20
    difference = loss.terms["velocity"] - ORACLE.floor(drawn(n)[2])
    error = (difference.std() / n**0.5).item()
    assert abs(difference.mean().item()) <= 4.0 * error


def test_the_target_teaches_the_terminal_velocity_alone() -> None:
    own, other = (found(PLAIN, ORACLE, target, pairs(64)) for target in (ORACLE, WRONG))
    assert other.terms["terminal"].min() > 0.0
    assert torch.equal(own.terms["velocity"], other.terms["velocity"])


def test_the_target_is_asked_where_and_when_the_online_jump_ends() -> None:
    target = ObservedMap(ORACLE)
    found(PLAIN, WRONG, target, pairs(64))
    (call,) = target.calls
    s, t, _ = drawn(64)
    batch = pairs(64)
    x = PLAIN.path.at(batch.noise, batch.x1, s).x
    assert torch.equal(call.s, t)
    assert torch.equal(call.t, t)
    torch.testing.assert_close(call.x, WRONG.jump(x, s, t), atol=1e-12, rtol=0.0)


def test_the_terminal_line_is_the_lagrangian_rule_of_a_moving_average() -> None:
    times = SortedTimes(diagonal=Linear(start=0.0, end=0.5))  # none at the first step
    nets = Nets(online=small_map(), target=small_map(seed=1))
    ours = replace(PLAIN, times=times).loss(nets, pairs(64), moment(64)).terms["terminal"]
    rule = SelfDistillation(times=times, target=Ema(decay=Constant(value=0.99)), learned=None)
    torch.testing.assert_close(ours, rule.loss(nets, pairs(64), moment(64)).total)


def test_the_gradient_passes_through_the_derivative_and_stops_at_the_target() -> None:
    net, target = Perturbed(ORACLE, size=2), Perturbed(ORACLE, size=2)
    with torch.no_grad():
        net.theta.fill_(0.1)

    def rates() -> tuple[Tensor, Tensor]:
        """d_t X and the target's velocity, by differences of the jump."""
        s, t, _ = drawn(64)
        batch = pairs(64)
        x = PLAIN.path.at(batch.noise, batch.x1, s).x
        h = 1e-5
        rate = (net.jump(x, s, t + h) - net.jump(x, s, t - h)) / (2.0 * h)
        return rate, target.velocity(net.jump(x, s, t), t).detach()

    (got,) = torch.autograd.grad(
        found(PLAIN, net, target, pairs(64)).terms["terminal"].sum(), net.theta
    )
    rate, aim = rates()
    (expected,) = torch.autograd.grad((rate - aim).square().sum(), net.theta)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    assert target.theta.grad is None


def test_rows_on_the_diagonal_have_a_velocity_and_nothing_else() -> None:
    online, target = ObservedMap(small_map()), ObservedMap(ORACLE)
    method = replace(PLAIN, times=GapTimes(diagonal=Constant(value=0.75)))
    loss = found(method, online, target, pairs(64))
    assert online.rows == [64, 16]
    assert target.rows == [16]
    assert int((loss.terms["terminal"] > 0.0).sum()) == 16
    assert int((loss.terms["velocity"] > 0.0).sum()) == 64
    none = replace(PLAIN, times=GapTimes(diagonal=Constant(value=1.0)))
    online.calls.clear()
    assert bool((found(none, online, target, pairs(64)).terms["terminal"] == 0.0).all())
    assert online.rows == [64]


def test_the_velocity_is_at_a_time_of_its_own() -> None:
    online = ObservedMap(small_map())
    method = replace(PLAIN, velocity_law=LogitNormal(mean=3.0, std=0.1))
    found(method, online, ORACLE, pairs(64))
    assert torch.equal(online.calls[0].s, online.calls[0].t)
    assert online.calls[0].s.min() > 0.9
    assert online.calls[1].s.mean() < 0.6


def test_the_strength_weighs_the_terminal_line_alone() -> None:
    whole = found(PLAIN, WRONG, ORACLE, pairs(64)).terms
    double = found(replace(PLAIN, strength=Constant(value=2.0)), WRONG, ORACLE, pairs(64)).terms
    assert torch.equal(double["terminal"], 2.0 * whole["terminal"])
    assert torch.equal(double["velocity"], whole["velocity"])


# Guidance.


def test_the_guided_velocity_is_the_stated_one_and_both_lines_are_scaled() -> None:
    online, target = small_map(), small_map(seed=1)
    batch = pairs(64, labelled=True)
    assert batch.condition is not None
    loss = found(replace(PLAIN, scale=2.0, label_dropout=KEPT), online, target, batch)
    plain = found(replace(PLAIN, label_dropout=KEPT), online, target, batch)
    now = moment(64)
    PLAIN.times.draw(64, now, dtype=torch.float64)
    e = PLAIN.velocity_law.draw(64, now.rng, dtype=torch.float64)
    x, v = PLAIN.path.at(batch.noise, batch.x1, e)
    aim = 2.0 * v - target.velocity(x, e, batch.condition.null())
    expected = (online.velocity(x, e, batch.condition) - aim).square().sum(1) / 4.0
    torch.testing.assert_close(loss.terms["velocity"], expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(loss.terms["terminal"], plain.terms["terminal"] / 4.0)


def test_rows_without_a_label_are_not_guided() -> None:
    online, target = small_map(), small_map(seed=1)
    batch = pairs(64, labelled=True)
    none = replace(PLAIN, label_dropout=LabelDropout(probability=1.0))
    guided = found(replace(none, scale=3.0), online, target, batch)
    for name, plain in found(none, online, target, batch).terms.items():
        torch.testing.assert_close(guided.terms[name], plain, atol=1e-14, rtol=0.0)
    seen = ObservedMap(online)
    found(none, seen, target, batch)
    for call in seen.calls:
        assert call.label is not None
        assert bool((call.label == NULL_LABEL).all())


def test_a_scale_of_one_asks_the_target_once() -> None:
    target = ObservedMap(small_map(seed=1))
    found(PLAIN, small_map(), target, pairs(64, labelled=True))
    assert target.rows == [64]


def test_guidance_without_labels_is_refused_and_without_dropout_warns() -> None:
    with pytest.warns(UserWarning, match="an unconditional velocity that the network never learns"):
        TerminalVelocityMatching(scale=2.0, label_dropout=LabelDropout(probability=0.0))
    with pytest.raises(ValueError, match="guidance needs labelled data"):
        found(replace(PLAIN, scale=2.0), ORACLE, ORACLE, pairs(64))


def test_senseless_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method.scale must be finite and at least 1, got 0.5"):
        TerminalVelocityMatching(scale=0.5)
    with pytest.raises(ValueError, match=r"method.strength must stay in \[0, inf\], got -1"):
        TerminalVelocityMatching(strength=Constant(value=-1.0))
