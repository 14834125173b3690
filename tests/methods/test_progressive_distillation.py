"""Progressive distillation: its target, its teachers, and what a ladder of stages learns."""

import re
from dataclasses import replace
from typing import final

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap, Velocity
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.guidance import LabelDropout
from onestep.methods.core.method import View
from onestep.methods.core.ode import Euler
from onestep.methods.core.path import VariancePreservingPath
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.sampler import Jumps
from onestep.methods.core.shape import rows_like
from onestep.methods.core.tiling import EqualTiles, tiled_velocity
from onestep.methods.core.times import TilingTimes
from onestep.methods.core.weighting import Unweighted
from onestep.methods.oracle import GaussianMap
from onestep.methods.progressive_distillation import ProgressiveDistillation
from onestep.tests.methods.contract import CLASSES, Elsewhere, Exact, MethodContract
from onestep.tests.methods.exactness import ORACLE, WRONG, Setting
from onestep.tests.methods.observed import ObservedMap

MEAN, STD = (0.7, -0.2), (0.3, 0.6)
FOUR = ProgressiveDistillation(times=TilingTimes(steps=4))
FOUR_BY_EULER = replace(FOUR, view=View.VELOCITY)
BY_FOURS = replace(FOUR, times=TilingTimes(steps=3), pieces=4, weighting=Unweighted())


@final
class TwoEulerSteps(FlowMap):
    """Two Euler steps of the oracle's velocity in one, in closed form.

    With v(x, t) = m + a(t) (x - t m), a = V' / 2V and V = (1 - t)^2 + t^2 c^2, a step of length h
    multiplies x - t m by 1 + h a(t), so that the mean of both velocities is
    m + (a(s) + a(s + h) (1 + h a(s))) / 2 (x - s m).
    """

    def __init__(self) -> None:
        super().__init__(domain=Domain())

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        mean, std = (torch.tensor(row, dtype=x.dtype) for row in (MEAN, STD))

        def rate(t: Tensor) -> Tensor:
            at = t[:, None]
            return (at * std**2 - (1.0 - at)) / ((1.0 - at) ** 2 + at**2 * std**2)

        h = ((t - s) / 2.0)[:, None]
        slope = (rate(s) + rate((s + t) / 2.0) * (1.0 + h * rate(s))) / 2.0
        return mean + slope * (x - s[:, None] * mean)


class TestProgressiveDistillation(MethodContract):
    """The teacher's jumps; Euler steps in their place miss the oracle."""

    exactness = Exact(control=FOUR_BY_EULER)

    @pytest.fixture
    def method(self) -> ProgressiveDistillation:
        return FOUR


class TestProgressiveDistillationOfAVelocity(MethodContract):
    exactness = Elsewhere(
        minimiser=TwoEulerSteps(), setting=Setting(frozen={"teacher": Velocity(ORACLE)})
    )

    @pytest.fixture
    def method(self) -> ProgressiveDistillation:
        return FOUR_BY_EULER


class TestProgressiveDistillationByFours(MethodContract):
    exactness = Exact(control=replace(BY_FOURS, view=View.VELOCITY))

    @pytest.fixture
    def method(self) -> ProgressiveDistillation:
        return BY_FOURS


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int, *, labelled: bool = False) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    condition = Condition(label=torch.arange(n) % CLASSES) if labelled else None
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=condition)


def losses(
    method: ProgressiveDistillation, online: FlowMap, teacher: FlowMap, batch: Batch
) -> Tensor:
    nets = Nets(online=online, frozen={"teacher": teacher})
    return method.loss(nets, batch, moment(len(batch))).total.detach()


def tiles(steps: int, n: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """States and jumps on the tiling."""
    s = (torch.arange(n) % steps).double() / steps
    return Rng.seeded(3).normal(n, 2, dtype=torch.float64), s, s + 1.0 / steps


@final
class Student(FlowMap):
    """What a stage would learn without error: its own target, at every state."""

    def __init__(self, method: ProgressiveDistillation, teacher: FlowMap) -> None:
        super().__init__(domain=method.domain)
        self.method, self.teacher = method, teacher

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        return self.method.target(self.teacher, x, s, t, condition)


@pytest.mark.parametrize("pieces", [2, 4])
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_the_jumps_of_the_oracle_are_one_jump_of_the_oracle(steps: int, pieces: int) -> None:
    x, s, t = tiles(steps)
    method = ProgressiveDistillation(times=TilingTimes(steps=steps), pieces=pieces)
    got = method.target(ORACLE, x, s, t, None)
    torch.testing.assert_close(got, ORACLE(x, s, t), atol=1e-12, rtol=1e-12)


def test_the_target_is_where_two_euler_steps_lead() -> None:
    """(x'' - x) / (t - s) with x' = x + h v(x, s) and x'' = x' + h v(x', s + h)."""
    x, s, t = tiles(4)
    h = (t - s) / 2.0
    there = x + rows_like(h, x) * ORACLE.velocity(x, s)
    there = there + rows_like(h, x) * ORACLE.velocity(there, s + h)
    got = FOUR_BY_EULER.target(ORACLE, x, s, t, None)
    torch.testing.assert_close(got, (there - x) / rows_like(t - s, x), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(got, TwoEulerSteps()(x, s, t), atol=1e-12, rtol=1e-12)
    assert (got - ORACLE(x, s, t)).square().sum(1).mean().sqrt() >= 0.02


def last_student(first: int, teacher: FlowMap) -> FlowMap:
    """What is left at one step of a ladder that begins with so many."""
    steps, student, view = first, teacher, View.VELOCITY
    while steps > 1:
        steps //= 2
        method = ProgressiveDistillation(times=TilingTimes(steps=steps), view=view)
        student, view = Student(method, student), View.JUMP
    return student


@pytest.mark.parametrize("first", [2, 8])
def test_a_ladder_of_stages_learns_the_euler_solver_of_its_first_teacher(first: int) -> None:
    """Each stage halves the steps, the last one takes a single step."""
    student = last_student(first, Velocity(ORACLE))
    noise = Rng.seeded(2).normal(64, 2, dtype=torch.float64)
    got = Jumps().sample(student, noise[None])
    euler = Euler(grid=UniformGrid(steps=first)).sample(Velocity(ORACLE), noise[None])
    torch.testing.assert_close(got, euler, atol=1e-12, rtol=1e-12)
    exact = ORACLE.jump(noise, torch.zeros(64).double(), torch.ones(64).double())
    assert (got - exact).square().sum(1).mean().sqrt() >= 0.02


@pytest.mark.parametrize(
    ("first", "slope"),
    [(4, 0.340541), (16, 0.455683), (64, 0.488555), (256, 0.497114), (1024, 0.499277)],
)
def test_the_last_student_has_the_slope_of_the_card(first: int, slope: float) -> None:
    """T16: the product of the Euler factors of the first teacher, on data of std 0.5."""
    student = last_student(first, Velocity(GaussianMap(mean=[0.0], std=[0.5])))
    one = torch.ones(1, dtype=torch.float64)
    assert student.jump(one[:, None], 0.0 * one, one).item() == pytest.approx(slope, abs=6e-7)


def test_a_student_of_one_step_has_the_target_of_a_shortcut() -> None:
    """Frans et al. teach the same with the network's own average in place of a fixed teacher."""
    x, s, t = tiles(1)
    halves = EqualTiles(count=2).draw(len(x), moment(len(x)), dtype=torch.float64)
    shortcut = tiled_velocity(WRONG, x, s, t, None, tiles=halves)
    got = ProgressiveDistillation().target(WRONG, x, s, t, None)
    torch.testing.assert_close(got, shortcut, atol=1e-12, rtol=1e-12)


def test_the_teacher_takes_its_steps_one_after_the_other() -> None:
    online, teacher = ObservedMap(ORACLE), ObservedMap(WRONG)
    losses(FOUR, online, teacher, pairs(32))
    assert online.rows == [32]
    first, second = teacher.calls
    assert torch.equal(first.t, second.s)
    torch.testing.assert_close(second.t - first.s, torch.full((32,), 0.25).double())
    torch.testing.assert_close(second.x, WRONG.jump(first.x, first.s, first.t))
    assert torch.equal(first.x, online.calls[0].x)


def test_a_velocity_is_asked_on_its_diagonal() -> None:
    teacher = ObservedMap(Velocity(ORACLE))
    losses(FOUR_BY_EULER, ORACLE, teacher, pairs(32))
    assert all(torch.equal(call.s, call.t) for call in teacher.calls)


def test_the_weight_is_the_larger_one_of_data_and_noise() -> None:
    batch, plain = pairs(64), replace(FOUR, weighting=Unweighted())
    s = FOUR.times.draw(64, moment(64), dtype=torch.float64).s
    expected = torch.maximum(s, 1.0 - s).square() * losses(plain, WRONG, ORACLE, batch)
    torch.testing.assert_close(losses(FOUR, WRONG, ORACLE, batch), expected)


def test_student_and_teacher_lose_the_same_labels() -> None:
    online, teacher = ObservedMap(ORACLE), ObservedMap(ORACLE)
    method = replace(FOUR, label_dropout=LabelDropout(probability=0.5))
    losses(method, online, teacher, pairs(64, labelled=True))
    seen = online.calls[0].label
    assert seen is not None
    assert 0 < int((seen == NULL_LABEL).sum()) < 64
    for call in teacher.calls:
        assert call.label is not None
        assert torch.equal(call.label, seen)


def test_the_student_knows_its_own_steps_alone() -> None:
    assert FOUR.domain == Domain(kind=DomainKind.TILING, steps=4)
    assert FOUR.domain.admits(0.25, 0.5)
    assert not FOUR.domain.admits(0.0, 1.0)


@pytest.mark.parametrize(
    ("view", "domain"),
    [
        (View.JUMP, Domain()),
        (View.JUMP, Domain(kind=DomainKind.TILING, steps=8)),
        (View.JUMP, Domain(kind=DomainKind.GRID, steps=64)),
        (View.VELOCITY, Domain()),
        (View.VELOCITY, Domain(kind=DomainKind.DIAGONAL)),
        (View.VELOCITY, Domain(kind=DomainKind.DIAGONAL, t_hi=0.9)),
    ],
)
def test_a_teacher_that_knows_the_steps_is_taken(view: View, domain: Domain) -> None:
    teacher = ObservedMap(ORACLE, domain=domain)
    assert losses(replace(FOUR, view=view), ORACLE, teacher, pairs(8)).isfinite().all()


@pytest.mark.parametrize(
    ("view", "domain"),
    [
        (View.JUMP, Domain(kind=DomainKind.TILING, steps=4)),
        (View.JUMP, Domain(kind=DomainKind.GRID, steps=4)),
        (View.JUMP, Domain(kind=DomainKind.DIAGONAL)),
        (View.JUMP, Domain(kind=DomainKind.FROM_NOISE)),
        (View.JUMP, Domain(t_hi=0.9)),
        (View.VELOCITY, Domain(kind=DomainKind.TILING, steps=8)),
        (View.VELOCITY, Domain(kind=DomainKind.DIAGONAL, t_hi=0.8)),
        (View.VELOCITY, Domain(kind=DomainKind.DIAGONAL, t_lo=0.1)),
    ],
)
def test_a_teacher_that_does_not_know_the_steps_is_refused(view: View, domain: Domain) -> None:
    teacher = ObservedMap(ORACLE, domain=domain)
    asked = "tiling of 8 steps on [0, 1]" if view is View.JUMP else "diagonal on [0, 0.875]"
    if view is View.VELOCITY and domain.kind is DomainKind.TILING:
        sentence = "the method reads the teacher as a velocity, got one with domain tiling"
    else:
        sentence = f"the method asks its teacher for domain {asked}, got one with domain"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        losses(replace(FOUR, view=view), ORACLE, teacher, pairs(8))
    assert not teacher.calls


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.pieces must be at least 2, got 1"):
        ProgressiveDistillation(pieces=1)
    with pytest.raises(ValueError, match="got VariancePreservingPath"):
        ProgressiveDistillation(path=VariancePreservingPath())
    with pytest.raises(ValueError, match="solver"):
        ProgressiveDistillation(view="solver")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"method\.view must be jump or velocity, got guided"):
        ProgressiveDistillation(view=View.GUIDED)


def test_the_oracle_of_the_closed_form_is_the_one_of_the_tests() -> None:
    x, s, _ = tiles(4)
    oracle = GaussianMap(mean=MEAN, std=STD)
    assert torch.equal(oracle.velocity(x, s), ORACLE.velocity(x, s))
