"""Consistency trajectory models: exact maps, limits of the method, its walks and its turns."""

from dataclasses import dataclass, replace
from typing import Final, final

import pytest
import torch
from torch import Tensor

from onestep.methods.consistency_trajectory import (
    CRITIC,
    ConsistencyTrajectory,
    TrajectoryTimes,
)
from onestep.methods.core.adversary import Adversary, ApproximateR1
from onestep.methods.core.condition import Condition
from onestep.methods.core.distance import SquaredL2
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.game import ONLINE
from onestep.methods.core.method import TEACHER
from onestep.methods.core.pair_times import KarrasSpacing, UniformSpacing
from onestep.methods.core.path import LinearPath
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.core.solver_step import AbstractSolverStep, EulerStep, SigmaHeunStep
from onestep.methods.core.times import DiagonalTimes
from onestep.methods.core.weighting import DenoiserWeighting
from onestep.methods.flow_matching import FlowMatching
from onestep.tests.methods.contract import Exact, Order, SmallMap
from onestep.tests.methods.exactness import ORACLE, WRONG
from onestep.tests.methods.game_contract import GameContract, Turn
from onestep.tests.methods.observed import AffineMap, ObservedMap


@final
@dataclass(frozen=True, kw_only=True)
class ExactStep(AbstractSolverStep):
    """The teacher's own jump: no error."""

    def __call__(
        self, teacher: FlowMap, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None
    ) -> Tensor:
        return teacher.jump(x, s, t, condition)


GAME: Final = ConsistencyTrajectory()


def local(steps: int, step: AbstractSolverStep = GAME.step) -> Turn:
    """A walk of one interval, without the noise of denoising."""
    times = TrajectoryTimes(steps=steps, longest=1)
    game = ConsistencyTrajectory(times=times, step=step, denoising=Constant(value=0.0))
    return Turn(game=game)


SOLVED: Final = ConsistencyTrajectory(step=ExactStep())
JUDGED: Final = ConsistencyTrajectory(
    adversary=Adversary(features={"first": 16}, width=8, penalty=ApproximateR1(weight=0.1))
)


class TestConsistencyTrajectory(GameContract):
    """Exact but for its solver, whose error in one interval is of third order."""

    players = (ONLINE,)
    through = frozenset({"target"})
    exactness = (
        (Turn(game=SOLVED), Exact()),
        (
            local(40),
            Order(
                order=3.0,
                gaps=(1 / 40, 1 / 80),
                methods=(local(40), local(80)),
                control=(local(40, EulerStep()), local(80, EulerStep())),
            ),
        ),
    )

    @pytest.fixture
    def game(self) -> ConsistencyTrajectory:
        return GAME


class TestConsistencyTrajectoryWithACritic(GameContract):
    """No closed form: the critic's optimum is that of its own small network."""

    players = (ONLINE, CRITIC)
    through = frozenset({"target", TEACHER})

    @pytest.fixture
    def game(self) -> ConsistencyTrajectory:
        return JUDGED


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def terms(
    game: ConsistencyTrajectory,
    n: int = 256,
    *,
    online: FlowMap = ORACLE,
    target: FlowMap = ORACLE,
    teacher: FlowMap = ORACLE,
) -> dict[str, Tensor]:
    nets = Nets(online=online, target=target, frozen={TEACHER: teacher})
    return dict(game.loss(ONLINE, nets, pairs(n), moment(n)).terms)


@pytest.mark.parametrize("longest", [1, 3, 17])
def test_the_exact_map_is_consistent_over_all_intervals(longest: int) -> None:
    game = replace(SOLVED, times=TrajectoryTimes(longest=longest))
    assert terms(game)["consistency"].max() <= 1e-20
    assert terms(game, online=WRONG)["consistency"].mean() >= 1e-3
    assert terms(game, teacher=WRONG)["consistency"].mean() >= 1e-3


def test_walks_leave_the_error_of_the_solver_alone() -> None:
    coarse, fine = (
        terms(replace(GAME, times=TrajectoryTimes(steps=steps)))["consistency"].mean()
        for steps in (17, 170)
    )
    assert coarse > 1e-6
    assert fine < 1e-4 * coarse


def test_a_jump_has_the_form_of_the_paper_in_noise_levels() -> None:
    """x_t / t = (sigma_t / sigma_s) x_s / s + (1 - sigma_t / sigma_s) g, g = x + (1 - s) u."""
    rng = Rng.seeded(3)
    x, u = (rng.normal(64, 2, dtype=torch.float64) for _ in range(2))
    s = 0.1 + 0.4 * rng.uniform(64, dtype=torch.float64)
    t = s + 0.4 * rng.uniform(64, dtype=torch.float64)
    online = AffineMap(ORACLE, size=2)
    with torch.no_grad():
        online.matrix.copy_(torch.tensor([[0.3, -0.2], [0.1, 0.7]]))
    ratio = ((1.0 - t) / t / ((1.0 - s) / s))[:, None]
    u = online(x, s, t)
    g = x + (1.0 - s)[:, None] * u
    theirs = ratio * x / s[:, None] + (1.0 - ratio) * g
    torch.testing.assert_close(online.jump(x, s, t) / t[:, None], theirs, atol=1e-12, rtol=1e-10)


def test_one_interval_is_plain_distillation_of_the_solver() -> None:
    game = replace(GAME, times=TrajectoryTimes(steps=1, longest=1), step=SigmaHeunStep())
    batch = pairs(256)
    s = torch.full((256,), KarrasSpacing().t_lo, dtype=torch.float64)
    one = torch.ones_like(s)
    x = LinearPath().at(batch.noise, batch.x1, s).x
    expected = SquaredL2()(WRONG.jump(x, s, one), SigmaHeunStep()(ORACLE, x, s, one, None))
    # The average stands still at the data, whatever it is.
    found = terms(game, online=WRONG, target=WRONG)["consistency"]
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_a_walk_to_the_end_of_its_jump_is_plain_distillation_of_many_steps() -> None:
    game = replace(GAME, times=TrajectoryTimes(steps=8, longest=8))
    batch, walk = pairs(2048), game.times.draw(2048, moment(2048))
    knots = game.times.knots(batch.x1)
    s, t, one = knots[walk.start], knots[walk.end], torch.ones(2048, dtype=torch.float64)
    x = LinearPath().at(batch.noise, batch.x1, s).x
    goal = x
    for k in range(8):
        here, there = ((walk.start + j).clamp(max=walk.end) for j in (k, k + 1))
        goal = SigmaHeunStep()(ORACLE, goal, knots[here], knots[there], None)
    expected = SquaredL2()(ORACLE.jump(WRONG.jump(x, s, t), t, one), ORACLE.jump(goal, t, one))
    found = terms(game, 2048, online=WRONG)["consistency"]
    whole = walk.middle == walk.end
    assert (whole & (walk.end - walk.start > 2)).sum() > 100
    torch.testing.assert_close(found[whole], expected[whole], atol=1e-12, rtol=1e-10)
    assert (found - expected)[~whole].abs().mean() > 0.02


def test_jumps_to_the_data_are_compared_as_in_consistency_distillation() -> None:
    """|f(x_s, s) - f(x_m, m)|^2 with f the network's jump to the data."""
    game = replace(GAME, times=TrajectoryTimes(steps=8, longest=1))
    batch, walk = pairs(2048), game.times.draw(2048, moment(2048))
    knots = game.times.knots(batch.x1)
    to_data = walk.end == 8
    assert to_data.sum() > 200
    s, m = knots[walk.start], knots[walk.middle]
    one = torch.ones_like(s)
    x = LinearPath().at(batch.noise, batch.x1, s).x
    there = SigmaHeunStep()(ORACLE, x, s, m, None)
    expected = SquaredL2()(WRONG.jump(x, s, one), WRONG.jump(there, m, one))
    found = terms(game, 2048, online=WRONG, target=ORACLE)["consistency"]
    torch.testing.assert_close(found[to_data], expected[to_data], atol=1e-12, rtol=1e-10)


def test_the_diagonal_learns_by_weighted_flow_matching() -> None:
    found = terms(GAME, online=WRONG)["denoising"]
    now = moment(256)
    GAME.times.draw(256, now)
    plain = FlowMatching(times=DiagonalTimes(law=GAME.law), weighting=DenoiserWeighting())
    want = plain.loss(Nets(online=WRONG), pairs(256), now).total
    torch.testing.assert_close(found, want, atol=1e-12, rtol=1e-12)
    halved = terms(replace(GAME, denoising=Constant(value=0.5)), online=WRONG)["denoising"]
    torch.testing.assert_close(halved, 0.5 * want)


def test_gradients_flow_through_the_average_on_the_left_and_nowhere_on_the_right() -> None:
    """The gradient is that of an estimate held against a constant."""
    online, batch = AffineMap(ORACLE, size=2), pairs(256)
    (found,) = torch.autograd.grad(terms(GAME, online=online)["consistency"].sum(), online.offset)
    walk = GAME.times.draw(256, moment(256))
    knots = GAME.times.knots(batch.x1)
    s, m, t = (knots[index] for index in walk)
    one = torch.ones_like(s)
    x = LinearPath().at(batch.noise, batch.x1, s).x
    with torch.no_grad():
        walked = GAME.walked(ORACLE, x, walk, batch)
        goal = ORACLE.jump(online.jump(walked, m, t), t, one)
    estimate = ORACLE.jump(online.jump(x, s, t), t, one)
    (want,) = torch.autograd.grad((estimate - goal).square().sum(), online.offset)
    assert want.abs().min() > 1e-3
    torch.testing.assert_close(found, want, atol=1e-9, rtol=1e-9)


def test_the_teacher_walks_as_far_as_the_longest_walk_and_rows_stop_where_they_are_told() -> None:
    teacher, game = ObservedMap(ORACLE), replace(GAME, step=EulerStep())
    batch, walk = pairs(256), game.times.draw(256, moment(256))
    knots = game.times.knots(batch.x1)
    x = LinearPath().at(batch.noise, batch.x1, knots[walk.start]).x
    got = game.walked(teacher, x, walk, batch)
    assert teacher.rows == [256] * 3
    for k in range(256):
        at = x[k : k + 1]
        for i in range(int(walk.start[k]), int(walk.middle[k])):
            at = EulerStep()(ORACLE, at, knots[i][None], knots[i + 1][None], None)
        torch.testing.assert_close(got[k : k + 1], at)


def test_the_law_of_a_walk_is_uniform_stage_by_stage() -> None:
    """Chi-square over all (start, middle, end) of a small grid."""
    times, n = TrajectoryTimes(steps=4, longest=2), 100_000
    walk = times.draw(n, moment(n))
    chances = {}
    for s in range(4):
        for t in range(s + 1, 5):
            lengths = range(1, min(2, t - s) + 1)
            for length in lengths:
                chances[s, s + length, t] = 1.0 / 4 / (4 - s) / len(lengths)
    assert sum(chances.values()) == pytest.approx(1.0)
    statistic = 0.0
    for (s, m, t), chance in chances.items():
        is_here = (walk.start == s) & (walk.middle == m) & (walk.end == t)
        statistic += (is_here.sum().item() - n * chance) ** 2 / (n * chance)
    assert len(chances) == 16
    assert statistic <= 37.7  # the 99.9 % quantile of 15 degrees of freedom


def test_the_critic_and_the_network_take_turns() -> None:
    def players(game: ConsistencyTrajectory, step: int) -> tuple[str, ...]:
        return game.players(Moment(step=step, total=10, rng=Rng.seeded(0)))

    assert [players(JUDGED, step) for step in range(3)] == [(CRITIC,), (ONLINE,), (CRITIC,)]
    assert [players(GAME, step) for step in range(3)] == [(ONLINE,)] * 3
    assert not GAME.needs.companions


def test_the_teacher_keeps_a_graph_in_the_turn_of_the_network_alone() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        teacher = SmallMap(shape=(2,), domain=Domain()).double()
        critic = JUDGED.needs.companions[CRITIC](teacher).double()
    online = AffineMap(ORACLE, size=2)
    nets = Nets(
        online=online, target=ORACLE, frozen={TEACHER: teacher}, companions={CRITIC: critic}
    )
    for player, has_graph in ((CRITIC, False), (ONLINE, True)):
        torch.autograd.backward(JUDGED.loss(player, nets, pairs(64), moment(64)).total.sum())
        assert (teacher.first.weight.grad is not None) is has_graph


def test_a_grid_from_pure_noise_is_refused_for_steps_in_the_noise_level() -> None:
    times = TrajectoryTimes(spacing=UniformSpacing())
    with pytest.raises(ValueError, match=r"begins above t = 0, got UniformSpacing"):
        ConsistencyTrajectory(times=times)
    assert ConsistencyTrajectory(times=times, step=EulerStep()).domain.t_lo == 0.0


@pytest.mark.parametrize(("steps", "longest"), [(0, 0), (4, 5), (4, 0)])
def test_walks_that_do_not_fit_the_grid_are_refused(steps: int, longest: int) -> None:
    with pytest.raises(ValueError, match="times need 1 <= longest <= steps"):
        TrajectoryTimes(steps=steps, longest=longest)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.denoising must stay in \[0, inf\]"):
        ConsistencyTrajectory(denoising=Constant(value=-1.0))
