"""Align Your Flow: both forms at exact maps, their limits, and guided teachers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, final

import pytest
import torch
from torch import Tensor

from onestep.methods.align_your_flow import AlignYourFlow
from onestep.methods.continuous_consistency import ContinuousConsistency
from onestep.methods.core.alignment import (
    AbstractAlignment,
    EulerianAlignment,
    Field,
    Jumped,
    LagrangianAlignment,
)
from onestep.methods.core.calculus import (
    AbstractDerivative,
    CentralDifference,
    ForwardDifference,
    Function,
)
from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.game import ONLINE
from onestep.methods.core.gap_times import GapTimes
from onestep.methods.core.guidance import LabelDropout
from onestep.methods.core.guided_teacher import WEAK, GuidedTeacher, NullCondition
from onestep.methods.core.length_weighting import LengthWeighting
from onestep.methods.core.method import TEACHER, Reading, View
from onestep.methods.core.motion import end_motion, start_motion
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.core.shape import rows_like
from onestep.methods.core.teacher import TeacherVelocity
from onestep.methods.core.time_law import LogitNormal, Uniform
from onestep.methods.core.times import SortedTimes, ToDataTimes
from onestep.methods.core.weighting import Unweighted
from onestep.methods.mean_flow import MeanFlow
from onestep.methods.nets.mlp import MLP
from onestep.methods.oracle import GaussianMap
from onestep.methods.oracle_mixture import MixtureMap1d
from onestep.tests.methods.contract import Exact, Order, Setting, SmallMap
from onestep.tests.methods.exactness import ORACLE, WRONG
from onestep.tests.methods.game_contract import GameContract, Turn
from onestep.tests.methods.observed import ObservedMap, ScaledMap, TwoMaps

WHOLE: Final = Constant(value=1.0)
NOTHING: Final = Constant(value=0.0)
ANYWHERE: Final = Reading(on=Domain(kind=DomainKind.DIAGONAL))
WIDE: Final = 1e9
"""An offset beside which no length of a step counts."""
EULERIAN: Final = AlignYourFlow(tangent=WHOLE)
LAGRANGIAN: Final = replace(EULERIAN, alignment=LagrangianAlignment())
FORMS: Final = (EULERIAN, LAGRANGIAN)


@final
@dataclass(frozen=True, kw_only=True)
class TheOtherSign(AbstractAlignment):
    """The derivative as in the paper's direction of time, taken over without its sign."""

    right: AbstractAlignment

    def velocity(self, field: Field, at: Jumped, *, u: Tensor) -> Tensor:
        return self.right.velocity(field, at, u=u)

    def bend(
        self,
        average: Function,
        v: Tensor,
        at: Jumped,
        *,
        u: Tensor,
        derivative: AbstractDerivative,
    ) -> Tensor:
        return -self.right.bend(average, v, at, u=u, derivative=derivative)


@final
@dataclass(frozen=True, kw_only=True)
class VelocityAtTheStart(AbstractAlignment):
    """The Lagrangian form with the teacher's velocity where the jump starts."""

    def velocity(self, field: Field, at: Jumped, *, u: Tensor) -> Tensor:
        return EulerianAlignment().velocity(field, at, u=u)

    def bend(
        self,
        average: Function,
        v: Tensor,
        at: Jumped,
        *,
        u: Tensor,
        derivative: AbstractDerivative,
    ) -> Tensor:
        return LagrangianAlignment().bend(average, v, at, u=u, derivative=derivative)


@final
@dataclass(frozen=True, kw_only=True)
class StandingState(AbstractAlignment):
    """The Eulerian form whose derivative forgets that the start time moves: tangent (v, 0, 0)."""

    def velocity(self, field: Field, at: Jumped, *, u: Tensor) -> Tensor:
        return EulerianAlignment().velocity(field, at, u=u)

    def bend(
        self,
        average: Function,
        v: Tensor,
        at: Jumped,
        *,
        u: Tensor,
        derivative: AbstractDerivative,
    ) -> Tensor:
        x, s, t = at
        return rows_like(t - s, x) * derivative.along(lambda x: average(x, s, t), (x,), (v,))


WRONG_FORMS: Final = (
    TheOtherSign(right=EulerianAlignment()),
    TheOtherSign(right=LagrangianAlignment()),
    VelocityAtTheStart(),
    StandingState(),
)


def warming(game: AlignYourFlow, share: float) -> Turn:
    """With a wide offset, so that the bias is linear in what is missing of the tangent."""
    return Turn(game=replace(game, tangent=Constant(value=share), offset=10.0))


def biased(game: AlignYourFlow) -> tuple[Turn, Order]:
    methods = warming(game, 0.8), warming(game, 0.9)
    turned = replace(game, alignment=TheOtherSign(right=game.alignment))
    control = warming(turned, 0.8), warming(turned, 0.9)
    return methods[1], Order(order=1.0, gaps=(0.2, 0.1), methods=methods, control=control)


class TestEulerianAlignment(GameContract):
    """Exact with the whole tangent, off by the order of what is missing of it."""

    players = (ONLINE,)
    exactness = (
        (
            Turn(game=EULERIAN),
            Exact(control=Turn(game=replace(EULERIAN, alignment=WRONG_FORMS[0]))),
        ),
        (Turn(game=EULERIAN), Exact()),
        biased(EULERIAN),
    )

    @pytest.fixture
    def game(self) -> AlignYourFlow:
        return AlignYourFlow()


class TestLagrangianAlignment(GameContract):
    """As the Eulerian: exact with the whole tangent, else off by the same order."""

    players = (ONLINE,)
    exactness = (
        (
            Turn(game=LAGRANGIAN),
            Exact(control=Turn(game=replace(LAGRANGIAN, alignment=VelocityAtTheStart()))),
        ),
        (Turn(game=LAGRANGIAN), Exact()),
        biased(LAGRANGIAN),
    )

    @pytest.fixture
    def game(self) -> AlignYourFlow:
        return replace(LAGRANGIAN, tangent=Linear(start=0.0, end=0.99), times=GapTimes())


def by_differences(derivative: AbstractDerivative) -> Turn:
    """Jumps away from both ends, beyond which a difference would ask."""
    times = SortedTimes(law=LogitNormal(std=0.5), diagonal=NOTHING)
    return Turn(game=replace(EULERIAN, times=times, derivative=derivative, offset=10.0))


class TestAlignmentByDifferences(GameContract):
    players = (ONLINE,)
    exactness = (
        (
            by_differences(CentralDifference(step=0.05)),
            Order(
                order=2.0,
                gaps=(0.1, 0.05),
                methods=(
                    by_differences(CentralDifference(step=0.1)),
                    by_differences(CentralDifference(step=0.05)),
                ),
                control=(
                    by_differences(ForwardDifference(step=0.1)),
                    by_differences(ForwardDifference(step=0.05)),
                ),
            ),
        ),
    )

    @pytest.fixture
    def game(self) -> AlignYourFlow:
        return replace(EULERIAN, derivative=CentralDifference())


POOR: Final = GaussianMap(mean=[0.4, 0.1], std=[0.3, 0.6])
DOUBLED: Final = GaussianMap(mean=[1.0, -0.5], std=[0.3, 0.6])
"""Where a scale of 2 leads from the poor map through the oracle."""
FIXED: Final = replace(EULERIAN, guidance=GuidedTeacher(lowest=2.0, highest=2.0))
DRAWN: Final = replace(EULERIAN, guidance=GuidedTeacher())


class TestAutoguidedAlignment(GameContract):
    players = (ONLINE,)
    exactness = tuple(
        (
            Turn(game=replace(FIXED, alignment=form.alignment)),
            Exact(
                setting=Setting(frozen={WEAK: POOR}),
                at=DOUBLED,
                control=Turn(game=replace(form, guidance=GuidedTeacher(lowest=3.0))),
            ),
        )
        for form in FORMS
    )

    @pytest.fixture
    def game(self) -> AlignYourFlow:
        return DRAWN


def moment(n: int, step: int = 0) -> Moment:
    return Moment(step=step, total=10, rng=Rng.seeded(5, step=step), batch_size=n)


def pairs(n: int) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def small() -> SmallMap:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallMap(shape=(2,), domain=Domain()).double()


def nets(online: FlowMap, frozen: Mapping[str, FlowMap] | None = None) -> Nets:
    return Nets(online=online, frozen={TEACHER: ORACLE} if frozen is None else frozen)


def residual(game: AlignYourFlow, online: FlowMap, teacher: FlowMap, n: int = 256) -> Tensor:
    """Squared length of g."""
    return game.loss(ONLINE, nets(online, {TEACHER: teacher}), pairs(n), moment(n)).logs["error"]


def started(game: AlignYourFlow, n: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """States, start and end times of the rows of ``pairs``."""
    times, batch = game.times.draw(n, moment(n), dtype=torch.float64), pairs(n)
    s = times.s[:, None]
    return (1.0 - s) * batch.noise + s * batch.x1, times.s, times.t


# The tangent.


@pytest.mark.parametrize("game", FORMS)
def test_the_exact_map_of_the_teacher_is_not_moved(game: AlignYourFlow) -> None:
    assert residual(game, ORACLE, ORACLE).max() <= 1e-22
    assert residual(game, ORACLE, WRONG).mean() >= 0.05


@pytest.mark.parametrize("game", FORMS)
def test_the_exact_map_of_a_mixture_is_not_moved(game: AlignYourFlow) -> None:
    mixture = MixtureMap1d(weights=[0.3, 0.7], means=[-1.5, 1.0], stds=[0.3, 0.6])
    # Divided differences of the quantile map, and their derivatives, lose a few digits.
    assert residual(game, mixture, mixture).max() <= 1e-12


@pytest.mark.parametrize("wrong", WRONG_FORMS)
def test_the_exact_map_is_moved_by_a_wrong_form(wrong: AbstractAlignment) -> None:
    assert residual(replace(EULERIAN, alignment=wrong), ORACLE, ORACLE).mean() >= 0.05


def test_both_forms_are_the_motions_of_a_jump() -> None:
    """g is the start's motion, or the teacher's velocity at the end less the end's."""
    net = small()
    x, s, t = started(EULERIAN)
    with torch.no_grad():
        start = start_motion(net, x, s, t, None, velocity=WRONG.velocity(x, s)).rate
        end, rate = end_motion(net, x, s, t, None)
        late = WRONG.velocity(end, t) - rate
    for game, g in ((EULERIAN, start), (LAGRANGIAN, late)):
        found = game.loss(ONLINE, nets(net, {TEACHER: WRONG}), pairs(64), moment(64))
        torch.testing.assert_close(found.logs["error"], g.square().sum(1))
        length = g.norm(dim=1)
        want = (t - s) * (length / (length + game.offset)).square()
        torch.testing.assert_close(found.total, want)


@pytest.mark.parametrize("game", FORMS)
def test_the_gradient_is_that_of_the_jump_times_its_constant_motion(game: AlignYourFlow) -> None:
    """-2 w' X . sg(g / (|g| + c)) with w' = 1, the form of the paper but for the factor."""
    net = small()
    x, s, t = started(game)
    with torch.no_grad():
        if game is EULERIAN:
            g = start_motion(net, x, s, t, None, velocity=WRONG.velocity(x, s)).rate
        else:
            end, rate = end_motion(net, x, s, t, None)
            g = WRONG.velocity(end, t) - rate
        step = g / (g.norm(dim=1, keepdim=True) + 0.1)
    paper = -2.0 * (net.jump(x, s, t) * step).sum()
    found = game.loss(ONLINE, nets(net, {TEACHER: WRONG}), pairs(64), moment(64)).total.sum()
    assert_same_gradient(net, found, paper)


def assert_same_gradient(net: SmallMap, found: Tensor, want: Tensor) -> None:
    weights = [net.first.weight, net.first.bias, net.last.weight, net.last.bias]
    got = torch.autograd.grad(found, weights)
    expected = torch.autograd.grad(want, weights)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-8, rtol=1e-6)


def test_without_bound_and_weight_it_is_mean_flow_along_the_teacher() -> None:
    """Row 5 of the table: weight 1 / (t - s), and pairs that move as the teacher does."""
    net, game = small(), replace(EULERIAN, weighting=LengthWeighting(power=0.0), offset=WIDE)
    x, s, _ = started(game)
    v, at = WRONG.velocity(x, s), s[:, None]
    along = Batch(x0=x - at * v, x1=x + (1.0 - at) * v, index=torch.arange(64))
    mean_flow = MeanFlow(times=game.times, weighting=Unweighted())
    want = mean_flow.loss(Nets(online=net), along, moment(64)).total.sum()
    found = game.loss(ONLINE, nets(net, {TEACHER: WRONG}), pairs(64), moment(64)).total.sum()
    assert_same_gradient(net, WIDE * found, want)


def test_jumps_to_the_data_move_as_in_continuous_consistency() -> None:
    """Both unit steps have the same direction; one is that of F = -u but for a factor."""
    net, tiny = small(), replace(EULERIAN, offset=1e-12)
    s = 0.1 + 0.8 * Rng.seeded(2).uniform(64, dtype=torch.float64)
    x = Rng.seeded(3).normal(64, 2, dtype=torch.float64)
    v, one = WRONG.velocity(x, s), torch.ones_like(s)
    with torch.no_grad():
        g = start_motion(net, x, s, one, None, velocity=v).rate
        u = net(x, s, one)
    du_ds = (g - v + u) / (1.0 - s)[:, None]
    other = ContinuousConsistency(source=TeacherVelocity(), tangent=WHOLE, offset=1e-12)
    torch.testing.assert_close(tiny.bounded(g), -other.step(v - u, du_ds, s, share=1.0))


@pytest.mark.parametrize("game", FORMS)
def test_without_tangent_it_is_flow_matching_to_the_teacher_and_needs_no_derivative(
    game: AlignYourFlow,
) -> None:
    online = ObservedMap(small())
    found = residual(replace(game, tangent=NOTHING), online, WRONG, n=64)
    x, s, t = started(game)
    u = online.flow_map(x, s, t).detach()
    end = (x + (t - s)[:, None] * u, t) if game is LAGRANGIAN else (x, s)
    torch.testing.assert_close(found, (WRONG.velocity(*end) - u).square().sum(1))
    assert online.rows == [64]


@pytest.mark.parametrize("game", FORMS)
def test_rows_on_the_diagonal_are_flow_matching_and_pay_for_no_derivative(
    game: AlignYourFlow,
) -> None:
    times = SortedTimes(law=Uniform(), diagonal=Constant(value=0.75))
    game = replace(game, times=times, weighting=LengthWeighting(power=0.0))
    online, teacher = ObservedMap(small()), ObservedMap(WRONG)
    loss = game.loss(ONLINE, nets(online, {TEACHER: teacher}), pairs(64), moment(64))
    assert online.rows == [64, 16]
    assert teacher.rows == [64]
    drawn = times.draw(64, moment(64), dtype=torch.float64)
    rows, (call, _) = drawn.diagonal_rows, online.calls
    want = WRONG.velocity(call.x, call.s) - online.flow_map.velocity(call.x, call.s)
    torch.testing.assert_close(loss.logs["error"][rows], want.square().sum(1)[rows].detach())
    length = want.norm(dim=1)[rows]
    bounded = (length / (length + game.offset)).square()
    torch.testing.assert_close(loss.total[rows], bounded)
    assert bounded.min() > 0.0


@pytest.mark.parametrize("game", FORMS)
def test_rows_on_the_diagonal_are_refused_where_they_would_weigh_nothing(
    game: AlignYourFlow,
) -> None:
    times = SortedTimes(law=Uniform(), diagonal=Constant(value=0.5))
    with pytest.raises(ValueError, match=r"rows with s = t .* got LengthWeighting\(power=1.0\)"):
        replace(game, times=times)


def test_a_small_offset_gives_steps_of_length_one_and_none_gives_longer_ones() -> None:
    g = torch.tensor([[3.0, 4.0], [1e-3, 0.0], [0.0, 0.0]], dtype=torch.float64)
    lengths = replace(EULERIAN, offset=1e-12).bounded(g).norm(dim=1)
    assert lengths.tolist() == pytest.approx([1.0, 1.0, 0.0])
    for offset in (0.03, 0.1, 0.3):
        lengths = replace(EULERIAN, offset=offset).bounded(1e6 * g).norm(dim=1)
        assert lengths.max() < 1.0
    assert EULERIAN.bounded(g)[0].tolist() == pytest.approx([3.0 / 5.1, 4.0 / 5.1])


def test_jumps_weigh_as_a_power_of_their_length() -> None:
    net = small()
    _, s, t = started(EULERIAN)

    def weighted(power: float) -> Tensor:
        game = replace(EULERIAN, weighting=LengthWeighting(power=power))
        return game.loss(ONLINE, nets(net), pairs(64), moment(64)).total

    for power in (1.0, 2.0):
        torch.testing.assert_close(weighted(power), weighted(0.0) * (t - s) ** power)


def test_the_warm_up_ends_where_the_paper_does() -> None:
    shares = [AlignYourFlow().tangent(moment(8, step=step)) for step in (0, 1, 9)]
    assert shares == pytest.approx([0.0, 0.99, 0.99])
    assert AlignYourFlow().offset == 0.1


# Guidance.


@pytest.mark.parametrize("game", FORMS)
def test_a_student_that_is_told_each_scale_can_follow_all_of_them(game: AlignYourFlow) -> None:
    game = replace(game, guidance=GuidedTeacher())
    found = game.loss(
        ONLINE,
        nets(ScaledMap(ORACLE, POOR), {TEACHER: ORACLE, WEAK: POOR}),
        pairs(256),
        moment(256),
    )
    assert found.logs["error"].max() <= 1e-20
    wrong = nets(ScaledMap(ORACLE, POOR), {TEACHER: ORACLE, WEAK: ORACLE})
    assert game.loss(ONLINE, wrong, pairs(256), moment(256)).logs["error"].mean() >= 0.05


def test_the_student_takes_a_scale_where_it_is_drawn() -> None:
    assert EULERIAN.needs.frozen == {TEACHER: ANYWHERE}
    assert FIXED.needs.frozen == DRAWN.needs.frozen == {TEACHER: ANYWHERE, WEAK: ANYWHERE}
    assert DRAWN.needs.scales == (1.0, 3.0)
    assert FIXED.needs.scales is None
    assert EULERIAN.needs.scales is None
    with pytest.raises(AssertionError):
        FIXED.loss(
            ONLINE,
            nets(ScaledMap(ORACLE, POOR), {TEACHER: ORACLE, WEAK: POOR}),
            pairs(8),
            moment(8),
        )


def test_the_frozen_maps_are_asked_once_each_and_told_no_scale() -> None:
    """A network that takes no scale refuses one."""
    plain = MLP(shape=(2,), domain=Domain(), width=4, depth=1, embedding_width=4).double()
    teacher, weak = ObservedMap(plain), ObservedMap(plain)
    DRAWN.loss(
        ONLINE, nets(ScaledMap(ORACLE, POOR), {TEACHER: teacher, WEAK: weak}), pairs(64), moment(64)
    )
    assert teacher.rows == weak.rows == [64]


def test_guidance_by_labels_leaves_rows_without_one_alone() -> None:
    """A student that is the doubled map where there is a label, and the poor one where not."""
    game = replace(
        EULERIAN,
        guidance=GuidedTeacher(guide=NullCondition(), lowest=2.0, highest=2.0),
        label_dropout=LabelDropout(probability=0.5),
    )
    assert game.needs.frozen == {TEACHER: replace(ANYWHERE, view=View.GUIDED)}
    teacher, student = TwoMaps(ORACLE, POOR), TwoMaps(DOUBLED, POOR)
    batch = replace(pairs(256), condition=Condition(label=torch.zeros(256, dtype=torch.long)))
    found = game.loss(ONLINE, nets(student, {TEACHER: teacher}), batch, moment(256))
    assert found.logs["error"].max() <= 1e-20
    with pytest.raises(ValueError, match="needs labelled rows, got no condition"):
        game.loss(ONLINE, nets(ORACLE), pairs(8), moment(8))


# Construction.


def test_a_teacher_whose_range_is_too_short_is_refused() -> None:
    early = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6], domain=Domain(t_hi=0.99))
    with pytest.raises(
        ValueError, match=r"for domain diagonal on \[0, 1\], got one .* \[0, 0.99\]"
    ):
        residual(EULERIAN, ORACLE, early)


def test_all_jumps_to_the_data_can_be_trained_alone() -> None:
    game = replace(EULERIAN, times=ToDataTimes(law=LogitNormal()))
    assert game.domain == Domain(kind=DomainKind.TO_DATA)
    assert residual(game, ORACLE, ORACLE).max() <= 1e-22


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AlignYourFlow(tangent=Linear(start=0.0, end=1.2)), r"method.tangent must stay in"),
        (lambda: AlignYourFlow(offset=0.0), r"method\.offset must be finite and above 0, got 0"),
        (lambda: AlignYourFlow(chains=()), r"method\.chains must hold .* at least 1, got \(\)"),
        (lambda: AlignYourFlow(chains=(2, 0)), r"method\.chains must hold .*got \(2, 0\)"),
        (lambda: LengthWeighting(power=-1.0), r"a power in \[0, 4\], got -1"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
