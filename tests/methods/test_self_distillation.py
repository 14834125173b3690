"""Self-distillation: its rules at exact maps, their limits and gradients, and who teaches."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onestep.methods.core.calculus import derivative_along
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.learned_weighting import LOSS_WEIGHT
from onestep.methods.core.method import Ema
from onestep.methods.core.motion import end_motion
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.rule import AbstractRule, Eulerian, Lagrangian, Progressive
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.core.shape import rows_like
from onestep.methods.core.tiling import EqualTiles, RandomTiles
from onestep.methods.core.time_law import Uniform
from onestep.methods.core.times import DiagonalTimes, SortedTimes
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.oracle_mixture import MixtureMap1d
from onestep.methods.self_distillation import SelfDistillation
from onestep.methods.shortcut import Shortcut
from onestep.tests.methods.contract import Exact, MethodContract, SmallMap
from onestep.tests.methods.exactness import ORACLE, WRONG, Perturbed
from onestep.tests.methods.misruled import (
    NoJacobian,
    SignOfTheOtherConvention,
    VelocityAtTheStart,
)
from onestep.tests.methods.misweighted import MisweightedTiles
from onestep.tests.methods.observed import ObservedMap

HALF = SortedTimes(law=Uniform(), diagonal=Constant(value=0.5))
PLAIN = SelfDistillation(times=HALF, learned=None)
TAUGHT = replace(PLAIN, target=Ema(decay=Constant(value=0.99)))
PSD_M = Progressive(tiling=EqualTiles(count=2))
PSD_U = Progressive(tiling=RandomTiles())
RULES = [Lagrangian(), Eulerian(), PSD_M, PSD_U]


MISWEIGHTED_M = Progressive(tiling=MisweightedTiles(tiling=EqualTiles(count=2)))
MISWEIGHTED_U = Progressive(tiling=MisweightedTiles(tiling=RandomTiles()))
WRONG_RULES = [
    SignOfTheOtherConvention(),
    VelocityAtTheStart(),
    NoJacobian(),
    MISWEIGHTED_M,
    MISWEIGHTED_U,
]
# Fewer rows on the diagonal, whose noise hides the bias of the others.
MOSTLY_OFF = SortedTimes(law=Uniform(), diagonal=Constant(value=0.1))


class TestLagrangian(MethodContract):
    exactness = Exact(control=replace(PLAIN, rule=SignOfTheOtherConvention()))

    @pytest.fixture
    def method(self) -> SelfDistillation:
        return SelfDistillation(times=HALF)


class TestEulerian(MethodContract):
    exactness = Exact(control=replace(PLAIN, rule=NoJacobian()))

    @pytest.fixture
    def method(self) -> SelfDistillation:
        return SelfDistillation(times=HALF, rule=Eulerian())


class TestProgressiveMiddle(MethodContract):
    exactness = Exact(control=replace(PLAIN, rule=MISWEIGHTED_M, times=MOSTLY_OFF))

    @pytest.fixture
    def method(self) -> SelfDistillation:
        return SelfDistillation(times=HALF, rule=PSD_M, learned=None)


class TestProgressiveUniform(MethodContract):
    exactness = Exact(control=replace(PLAIN, rule=MISWEIGHTED_U, times=MOSTLY_OFF))

    @pytest.fixture
    def method(self) -> SelfDistillation:
        return SelfDistillation(times=HALF, rule=PSD_U)


class TestTaughtByAMovingAverage(MethodContract):
    exactness = Exact(control=replace(TAUGHT, rule=SignOfTheOtherConvention()))

    @pytest.fixture
    def method(self) -> SelfDistillation:
        return TAUGHT


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def jumps(n: int = 128) -> tuple[Tensor, Tensor, Tensor]:
    rng = Rng.seeded(3)
    x = rng.normal(n, 2, dtype=torch.float64).clamp(-2.0, 2.0)
    s, t = rng.uniform(2 * n, dtype=torch.float64).reshape(2, n).sort(0).values
    return x, s, t


def residual(rule: AbstractRule, online: FlowMap, teacher: FlowMap | None = None) -> Tensor:
    x, s, t = jumps()
    teacher = online if teacher is None else teacher
    return rule.residual(online, teacher, x, s, t, None, moment(len(x)))


def small_map() -> SmallMap:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallMap(shape=(2,), domain=Domain()).double()


# The rules.


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_exact_map_obeys_every_rule(rule: AbstractRule) -> None:
    assert residual(rule, ORACLE).abs().max() <= 1e-12


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_exact_map_of_a_mixture_obeys_every_rule(rule: AbstractRule) -> None:
    mixture = MixtureMap1d(weights=[0.3, 0.7], means=[-1.5, 1.0], stds=[0.3, 0.6])
    # Divided differences of the quantile map, and their derivatives, lose a few digits.
    assert residual(rule, mixture).abs().max() <= 1e-7


@pytest.mark.parametrize("rule", WRONG_RULES, ids=str)
def test_the_exact_map_breaks_a_wrong_rule(rule: AbstractRule) -> None:
    assert residual(rule, ORACLE).square().sum(1).mean().sqrt() >= 0.1


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_another_map_breaks_every_rule(rule: AbstractRule) -> None:
    assert residual(rule, small_map()).square().sum(1).mean().sqrt() >= 0.005


def test_the_eulerian_residual_is_mean_flows_with_the_other_sign() -> None:
    net = small_map()
    x, s, t = jumps()
    v = net.velocity(x, s).detach()
    u, along = derivative_along(lambda x, s: net(x, s, t), (x, s), (v, torch.ones_like(s)))
    mean_flow = u - v - rows_like(t - s, x) * along
    torch.testing.assert_close(residual(Eulerian(), net), -mean_flow, atol=1e-14, rtol=0.0)


def gradient(loss: Tensor, net: FlowMap) -> Tensor:
    found = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def test_the_eulerian_gradient_is_not_mean_flows() -> None:
    """It passes through (t - s) d_s u as well."""
    net = small_map()
    x, s, t = jumps()
    v = net.velocity(x, s).detach()
    u, along = derivative_along(lambda x, s: net(x, s, t), (x, s), (v, torch.ones_like(s)))
    target = (v + rows_like(t - s, x) * along).detach()
    mean_flow = gradient((u - target).square().sum(), net)
    eulerian = gradient(residual(Eulerian(), net).square().sum(), net)
    cosine = torch.nn.functional.cosine_similarity(mean_flow, eulerian, dim=0)
    assert 0.5 <= cosine <= 0.999


def test_the_lagrangian_gradient_passes_through_the_derivative() -> None:
    """2 sum r . d(u + (t - s) d_t u) by finite differences in the parameters' direction."""
    net = Perturbed(ORACLE, size=2)
    with torch.no_grad():
        net.theta.fill_(0.1)
    teacher = ORACLE
    (got,) = torch.autograd.grad(residual(Lagrangian(), net, teacher).square().sum(), net.theta)
    x, s, t = jumps()
    left = residual(Lagrangian(), net, teacher).detach()
    expected = torch.zeros_like(got)
    for k in range(len(got)):
        rates = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                net.theta[k] += step
                rates.append(end_motion(net, x, s, t, None).rate)
                net.theta[k] -= step
        expected[k] = (2.0 * left * (rates[0] - rates[1]) / 2e-5).sum()
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_no_gradient_reaches_the_side_of_the_teacher(rule: AbstractRule) -> None:
    net, teacher = small_map(), Perturbed(ORACLE, size=2)
    torch.autograd.backward(residual(rule, net, teacher).square().sum())
    assert teacher.theta.grad is None
    assert any(p.grad is not None for p in net.parameters())


def test_halves_are_the_continuous_shortcut() -> None:
    n, batch = 64, pairs(64)
    nets = Nets(online=small_map(), target=ORACLE)
    shortcut = Shortcut(times=HALF, clip=1e6)
    ours = replace(PLAIN, rule=PSD_M, target=Ema(decay=Constant(value=0.999)))
    got = ours.loss(nets, batch, moment(n)).total
    torch.testing.assert_close(got, shortcut.loss(nets, batch, moment(n)).total)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_on_the_diagonal_every_rule_holds_by_itself(rule: AbstractRule) -> None:
    x, s, _ = jumps()
    net = small_map()
    left = rule.residual(net, net, x, s, s, None, moment(len(x)))
    assert left.abs().max() <= 1e-15


# The method.


def test_on_the_diagonal_it_is_flow_matching() -> None:
    n, batch, nets = 64, pairs(64), Nets(online=ORACLE)
    method = replace(PLAIN, times=SortedTimes(law=Uniform(), diagonal=Constant(value=1.0)))
    got = method.loss(nets, batch, moment(n)).total
    flow_matching = FlowMatching(times=DiagonalTimes(law=Uniform()))
    torch.testing.assert_close(got, flow_matching.loss(nets, batch, moment(n)).total)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_jumps_of_the_oracle_have_no_loss_and_other_rows_the_floor(rule: AbstractRule) -> None:
    """pi c / 2 for each coordinate on the diagonal; 100 000 rows, 4 standard errors."""
    n = 200_000
    method = replace(PLAIN, rule=rule)
    times = HALF.draw(n, moment(n), dtype=torch.float64)
    loss = method.loss(Nets(online=ORACLE), pairs(n), moment(n))
    assert loss.total[times.off_rows].max() <= 1e-20
    diagonal = loss.terms["flow_matching"][times.diagonal_rows]
    error = (diagonal.std() / len(diagonal) ** 0.5).item()
    assert abs(diagonal.mean().item() - math.pi * 0.9 / 2.0) <= 4.0 * error


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        (Lagrangian(), [32, 32, 32]),
        (Eulerian(), [32, 32, 32, 32]),
        (PSD_M, [32, 32, 32, 32]),
        (PSD_U, [32, 32, 32, 32]),
    ],
    ids=str,
)
def test_each_row_is_evaluated_only_where_it_counts(rule: AbstractRule, rows: list[int]) -> None:
    net = ObservedMap(small_map())
    replace(PLAIN, rule=rule).loss(Nets(online=net), pairs(64), moment(64))
    assert net.rows == rows
    assert torch.equal(net.calls[0].s, net.calls[0].t)
    assert bool((net.calls[-1].s <= net.calls[-1].t).all())


def test_the_terms_share_the_rows() -> None:
    times = HALF.draw(64, moment(64))
    nets = Nets(online=small_map())
    loss = PLAIN.loss(nets, pairs(64), moment(64))
    assert bool((loss.terms["flow_matching"][times.off_rows] == 0.0).all())
    assert bool((loss.terms["self_distillation"][times.diagonal_rows] == 0.0).all())
    assert torch.equal(loss.total, loss.logs["error"])


def test_the_strength_weighs_the_rows_off_the_diagonal_alone() -> None:
    nets, batch = Nets(online=small_map()), pairs(64)
    whole = PLAIN.loss(nets, batch, moment(64)).terms
    method = replace(PLAIN, strength=Linear(start=0.25, end=1.0))
    weak = method.loss(nets, batch, moment(64)).terms
    assert torch.equal(weak["flow_matching"], whole["flow_matching"])
    assert torch.equal(weak["self_distillation"], 0.25 * whole["self_distillation"])


def test_the_moving_average_teaches_where_there_is_one() -> None:
    method = replace(PLAIN, target=Ema(decay=Constant(value=0.99)))
    off = HALF.draw(64, moment(64)).off_rows

    def error(target: FlowMap) -> Tensor:
        nets = Nets(online=ORACLE, target=target)
        return method.loss(nets, pairs(64), moment(64)).total[off]

    assert error(ORACLE).max() <= 1e-20
    assert error(WRONG).min() > 0.0


def test_the_learned_weight_divides_each_error_by_what_is_usual() -> None:
    method = SelfDistillation(times=HALF)
    online = small_map()
    assert method.learned is not None
    weight = method.learned.companion(online).double()
    nets = Nets(online=online, companions={LOSS_WEIGHT: weight})
    plain = PLAIN.loss(nets, pairs(64), moment(64)).total
    constant = dict(weight.named_parameters())["constant"]
    with torch.no_grad():
        constant.fill_(math.log(2.0))
    got = method.loss(nets, pairs(64), moment(64)).total
    torch.testing.assert_close(got, (plain + 0.01) / 2.0 + math.log(2.0))


def test_a_negative_strength_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method.strength must stay in \[0, inf\], got -1"):
        SelfDistillation(strength=Constant(value=-1.0))
