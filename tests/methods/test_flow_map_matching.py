"""Flow map matching: its four losses at exact maps, their teachers, and both directions of time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, final

import pytest
import torch
from torch import Tensor

from onestep.methods.core.coupling import StoredPairs
from onestep.methods.core.distance import SquaredL2
from onestep.methods.core.flow_map import Domain, FlowMap, Velocity
from onestep.methods.core.matching import (
    AbstractMatching,
    DirectMatching,
    EulerianMatching,
    Jumps,
    LagrangianMatching,
    ProgressiveMatching,
)
from onestep.methods.core.method import View
from onestep.methods.core.motion import end_motion, start_motion
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.rule import Progressive
from onestep.methods.core.schedule import Constant
from onestep.methods.core.shape import rows_like, sum_rows
from onestep.methods.core.tiling import EqualTiles
from onestep.methods.core.time_law import Uniform
from onestep.methods.core.times import DiagonalTimes, SortedTimes
from onestep.methods.flow_map_matching import FlowMapMatching
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.oracle import GaussianMap
from onestep.methods.oracle_mixture import MixtureMap1d
from onestep.tests.methods.contract import Exact, MethodContract, SmallMap
from onestep.tests.methods.exactness import (
    FEW,
    ORACLE,
    WRONG,
    Perturbed,
    Setting,
    mean_gradient,
)
from onestep.tests.methods.misweighted import MisweightedTiles
from onestep.tests.methods.observed import ObservedMap

TAUGHT = [LagrangianMatching(), EulerianMatching(), ProgressiveMatching(count=3)]
MATCHINGS = [*TAUGHT, DirectMatching()]


@final
@dataclass(frozen=True, kw_only=True)
class VelocityAtTheStart(AbstractMatching):
    """The teacher asked where the jump starts in place of where it ends."""

    @property
    def frozen(self) -> Mapping[str, View]:
        return {"teacher": View.VELOCITY}

    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Tensor:
        del now
        rate = end_motion(nets.online, jumps.start, jumps.s, jumps.t, None).rate
        return SquaredL2()(rate, nets.frozen["teacher"].velocity(jumps.start, jumps.s))


@final
@dataclass(frozen=True, kw_only=True)
class SignOfTheOtherConvention(AbstractMatching):
    """b - (t - s) D_s u - u in place of the sum."""

    @property
    def frozen(self) -> Mapping[str, View]:
        return {"teacher": View.VELOCITY}

    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Tensor:
        del now
        x, s, t = jumps.start, jumps.s, jumps.t
        b = nets.frozen["teacher"].velocity(x, s)
        rate = start_motion(nets.online, x, s, t, None, velocity=b).rate
        return SquaredL2()(2.0 * (b - nets.online(x, s, t)), rate)


@final
@dataclass(frozen=True, kw_only=True)
class NoWayBack(AbstractMatching):
    """The direct loss with the path's state at s in place of the jump back to it."""

    @property
    def frozen(self) -> Mapping[str, View]:
        return {}

    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Tensor:
        del now
        batch = jumps.batch
        v = jumps.path.at(batch.noise, batch.x1, jumps.t).v
        rate = end_motion(nets.online, jumps.start, jumps.s, jumps.t, None).rate
        return SquaredL2()(rate, v)


@final
@dataclass(frozen=True, kw_only=True)
class Misweighted(AbstractMatching):
    """The progressive loss of two halves, of which the first counts a third."""

    @property
    def frozen(self) -> Mapping[str, View]:
        return {"teacher": View.JUMP}

    def error(self, nets: Nets, jumps: Jumps, now: Moment) -> Tensor:
        x, s, t = jumps.start, jumps.s, jumps.t
        rule = Progressive(tiling=MisweightedTiles(tiling=EqualTiles(count=2)))
        return sum_rows(
            rule.residual(nets.online, nets.frozen["teacher"], x, s, t, None, now).square()
        )


WRONG_TAUGHT = [VelocityAtTheStart(), SignOfTheOtherConvention()]
BOTH = SortedTimes(law=Uniform(), diagonal=Constant(value=0.25))
# Fewer rows on the diagonal, whose noise hides the bias of the others.
HALF = SortedTimes(law=Uniform(), diagonal=Constant(value=0.5))
MOSTLY_OFF = SortedTimes(law=Uniform(), diagonal=Constant(value=0.05))


class TestLagrangianMatching(MethodContract):
    exactness = Exact(control=FlowMapMatching(matching=VelocityAtTheStart()))
    through: ClassVar[frozenset[str]] = frozenset({"teacher"})

    @pytest.fixture
    def method(self) -> FlowMapMatching:
        return FlowMapMatching()


class TestEulerianMatching(MethodContract):
    exactness = Exact(control=FlowMapMatching(matching=SignOfTheOtherConvention()))

    @pytest.fixture
    def method(self) -> FlowMapMatching:
        return FlowMapMatching(matching=EulerianMatching())


class TestDirectMatching(MethodContract):
    exactness = Exact(control=FlowMapMatching(matching=NoWayBack()))

    @pytest.fixture
    def method(self) -> FlowMapMatching:
        return FlowMapMatching(matching=DirectMatching())


class TestProgressiveMatching(MethodContract):
    exactness = Exact(control=FlowMapMatching(matching=Misweighted(), times=MOSTLY_OFF))

    @pytest.fixture
    def method(self) -> FlowMapMatching:
        return FlowMapMatching(matching=ProgressiveMatching(count=3), times=BOTH)


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def small_map() -> SmallMap:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallMap(shape=(2,), domain=Domain()).double()


def losses(
    matching: AbstractMatching, online: FlowMap, teacher: FlowMap = ORACLE, n: int = 256
) -> Tensor:
    nets = Nets(online=online, frozen={"teacher": teacher} if matching.frozen else {})
    return FlowMapMatching(matching=matching).loss(nets, pairs(n), moment(n)).total.detach()


@pytest.mark.parametrize("matching", TAUGHT, ids=str)
def test_the_exact_map_of_the_teacher_has_no_loss(matching: AbstractMatching) -> None:
    assert losses(matching, ORACLE).max() <= 1e-22


@pytest.mark.parametrize("matching", TAUGHT, ids=str)
def test_the_exact_map_of_a_mixture_has_no_loss(matching: AbstractMatching) -> None:
    mixture = MixtureMap1d(weights=[0.3, 0.7], means=[-1.5, 1.0], stds=[0.3, 0.6])
    # Divided differences of the quantile map, and their derivatives, lose a few digits.
    assert losses(matching, mixture, mixture).max() <= 1e-12


@pytest.mark.parametrize("matching", WRONG_TAUGHT, ids=str)
def test_the_exact_map_has_a_wrong_loss(matching: AbstractMatching) -> None:
    assert losses(matching, ORACLE).mean() >= 0.05


@pytest.mark.parametrize("matching", TAUGHT, ids=str)
def test_the_map_of_another_velocity_has_a_loss(matching: AbstractMatching) -> None:
    assert losses(matching, ORACLE, WRONG).mean() >= 0.05


def test_the_direct_loss_of_the_exact_map_is_the_noise_of_the_end() -> None:
    """sigma^2 / S_t^2 for each coordinate at the end t; 200 000 rows, 4 standard errors."""
    n = 200_000
    times = FlowMapMatching().times.draw(n, moment(n), dtype=torch.float64)
    now = moment(n)
    FlowMapMatching().times.draw(n, now, dtype=torch.float64)
    is_turned = now.rng.uniform(n) < 0.5
    end = torch.where(is_turned, times.s, times.t)
    difference = losses(DirectMatching(), ORACLE, n=n) - ORACLE.floor(end)
    error = (difference.std() / n**0.5).item()
    assert abs(difference.mean().item()) <= 4.0 * error


def test_the_way_back_of_the_exact_map_has_no_loss_of_its_own() -> None:
    without = losses(DirectMatching(cycle=Constant(value=0.0)), ORACLE)
    with_it = losses(DirectMatching(cycle=Constant(value=9.0)), ORACLE)
    torch.testing.assert_close(with_it, without, atol=1e-12, rtol=0.0)
    other = small_map()
    assert (
        losses(DirectMatching(), other) - losses(DirectMatching(cycle=Constant(value=0.0)), other)
    ).min() > 0.0


def test_the_direct_loss_jumps_both_ways() -> None:
    net = ObservedMap(ORACLE)
    losses(DirectMatching(), net)
    back, forth = net.calls
    assert torch.equal(back.s, forth.t)
    assert torch.equal(back.t, forth.s)
    assert 96 <= int((forth.s < forth.t).sum()) <= 160


def test_the_lagrangian_gradient_passes_through_the_teacher() -> None:
    """By finite differences of the whole loss, the teacher's velocity at a moved end included."""
    net = Perturbed(ORACLE, size=2)
    with torch.no_grad():
        net.theta.fill_(0.1)
    nets = Nets(online=net, frozen={"teacher": WRONG})

    def total() -> Tensor:
        return FlowMapMatching().loss(nets, pairs(64), moment(64)).total.sum()

    (got,) = torch.autograd.grad(total(), net.theta)
    expected = torch.zeros_like(got)
    for k in range(len(got)):
        found = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                net.theta[k] += step
                found.append(total().item())
                net.theta[k] -= step
        expected[k] = (found[0] - found[1]) / 2e-5
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("matching", [EulerianMatching(), ProgressiveMatching()], ids=str)
def test_the_other_teachers_have_no_gradient(matching: AbstractMatching) -> None:
    teacher = Perturbed(ORACLE, size=2)
    nets = Nets(online=small_map(), frozen={"teacher": teacher})
    loss = FlowMapMatching(matching=matching).loss(nets, pairs(64), moment(64))
    torch.autograd.backward(loss.total.sum())
    assert teacher.theta.grad is None


def test_the_teacher_is_asked_where_and_when_the_jump_ends() -> None:
    teacher = ObservedMap(ORACLE)
    losses(LagrangianMatching(), WRONG, teacher, n=64)
    (call,) = teacher.calls
    times = FlowMapMatching().times.draw(64, moment(64), dtype=torch.float64)
    batch = pairs(64)
    x = (
        rows_like(1.0 - times.s, batch.noise) * batch.noise
        + rows_like(times.s, batch.x1) * batch.x1
    )
    assert torch.equal(call.s, times.t)
    torch.testing.assert_close(call.x, WRONG.jump(x, times.s, times.t), atol=1e-12, rtol=0.0)


@pytest.mark.parametrize("count", [2, 4])
def test_progressive_matching_is_the_composition_of_the_teachers_jumps(count: int) -> None:
    teacher, online = WRONG, small_map()
    times = FlowMapMatching().times.draw(64, moment(64), dtype=torch.float64)
    batch = pairs(64)
    x = (
        rows_like(1.0 - times.s, batch.noise) * batch.noise
        + rows_like(times.s, batch.x1) * batch.x1
    )
    end, h = x, (times.t - times.s) / count
    for k in range(count):
        end = teacher.jump(end, times.s + k * h, times.s + (k + 1) * h)
    miss = (online.jump(x, times.s, times.t) - end).square().sum(1).detach()
    got = losses(ProgressiveMatching(count=count), online, teacher, n=64)
    torch.testing.assert_close(got * (times.t - times.s).square(), miss)


def test_a_velocity_whose_jumps_would_be_euler_steps_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"its teacher for domain triangle .* got one with domain diag"
    ):
        losses(ProgressiveMatching(), ORACLE, Velocity(ORACLE))


@pytest.mark.parametrize("matching", MATCHINGS, ids=str)
def test_on_the_diagonal_it_is_flow_matching(matching: AbstractMatching) -> None:
    n, batch, teacher = 64, pairs(64), ObservedMap(ORACLE)
    nets = Nets(online=ORACLE, frozen={"teacher": teacher})
    times = SortedTimes(law=Uniform(), diagonal=Constant(value=1.0))
    got = FlowMapMatching(matching=matching, times=times).loss(nets, batch, moment(n)).total
    flow_matching = FlowMatching(times=DiagonalTimes(law=Uniform()))
    torch.testing.assert_close(got, flow_matching.loss(nets, batch, moment(n)).total)
    assert not teacher.calls


@pytest.mark.parametrize(
    ("matching", "frozen"),
    [
        (LagrangianMatching(), {"teacher": View.VELOCITY}),
        (EulerianMatching(), {"teacher": View.VELOCITY}),
        (ProgressiveMatching(), {"teacher": View.JUMP}),
        (DirectMatching(), {}),
    ],
    ids=str,
)
def test_a_matching_asks_for_the_teacher_that_it_looks_at(
    matching: AbstractMatching, frozen: dict[str, View]
) -> None:
    asked = FlowMapMatching(matching=matching).needs.frozen
    assert {role: reading.view for role, reading in asked.items()} == frozen


def test_senseless_values_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 equal tiles, got 1"):
        ProgressiveMatching(count=1)
    with pytest.raises(ValueError, match=r"method.matching.cycle must stay in \[0, inf\], got -2"):
        DirectMatching(cycle=Constant(value=-2.0))
    assert replace(FlowMapMatching(), matching=DirectMatching()).domain == Domain()


@pytest.mark.parametrize("pairs", [0.8, 0.0])
def test_a_diagonal_agrees_with_the_teacher_where_both_pair_noise_with_data_alike(
    pairs: float,
) -> None:
    """The other map is what the noise of the pairs has no velocity for: it is to be told apart."""
    paired = Domain(has_paired_noise=True)
    teacher = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6], rho=0.8, domain=paired)
    data = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6], rho=pairs)
    method = FlowMapMatching(times=HALF, coupling=StoredPairs())
    setting = Setting(data=data, frozen={"teacher": teacher})
    z = mean_gradient(method, teacher, setting, samples=FEW).z
    assert z < 5.0 if pairs == 0.8 else z > 8.0
