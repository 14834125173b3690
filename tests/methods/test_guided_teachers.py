"""Whatever a method asks its teacher, a guided one answers as the teacher that it amounts to would.

Velocities of Gaussians of one width are affine in the mean, so that a good and a poor map guided by
a scale of 2 are the map of a third Gaussian, and the losses on both must be the same.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
import torch
from torch import Tensor

from onestep.methods.align_your_flow import AlignYourFlow
from onestep.methods.consistency_distillation import ConsistencyDistillation
from onestep.methods.consistency_trajectory import ConsistencyTrajectory
from onestep.methods.continuous_consistency import ContinuousConsistency
from onestep.methods.core.adversary import Adversary
from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.game import ONLINE, AbstractGame
from onestep.methods.core.generator_form import InverseDistillation
from onestep.methods.core.guidance import LabelDropout
from onestep.methods.core.guided_teacher import (
    WEAK,
    AbstractTeacherGuidance,
    GuidanceInput,
    GuidedTeacher,
    NullCondition,
    Unguided,
)
from onestep.methods.core.matching import (
    DirectMatching,
    EulerianMatching,
    LagrangianMatching,
    ProgressiveMatching,
)
from onestep.methods.core.method import TEACHER, AbstractLearner, AbstractMethod, View
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.relativistic import RelativisticAdversary
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.core.teacher import TeacherVelocity
from onestep.methods.core.times import SortedTimes
from onestep.methods.dmd2 import DMD2
from onestep.methods.flow_generator_matching import FlowGeneratorMatching
from onestep.methods.flow_map_matching import FlowMapMatching
from onestep.methods.oracle import GaussianMap
from onestep.methods.progressive_distillation import ProgressiveDistillation
from onestep.tests.methods.contract import SmallMap
from onestep.tests.methods.observed import ObservedMap, ScaledMap, TwoMaps

STD: Final = [0.3, 0.6]
GOOD: Final = GaussianMap(mean=[0.7, -0.2], std=STD)
POOR: Final = GaussianMap(mean=[0.4, 0.1], std=STD)
DOUBLED: Final = GaussianMap(mean=[1.0, -0.5], std=STD)
FIXED: Final = GuidedTeacher(lowest=2.0, highest=2.0)
BY_LABELS: Final = GuidedTeacher(guide=NullCondition(), lowest=2.0, highest=2.0)
DRAWN: Final = GuidedTeacher(lowest=1.0, highest=3.0)
TOLD: Final = GuidanceInput(lowest=1.0, highest=3.0)
HALF: Final = SortedTimes(diagonal=Constant(value=0.5))

Learner = AbstractMethod | AbstractGame
Make = Callable[[AbstractTeacherGuidance], Learner]
LEARNERS: Final[dict[str, Make]] = {
    "align_your_flow": lambda guidance: AlignYourFlow(guidance=guidance),
    "consistency_distillation": lambda guidance: ConsistencyDistillation(guidance=guidance),
    "consistency_trajectory": lambda guidance: ConsistencyTrajectory(guidance=guidance),
    "continuous_consistency": lambda guidance: ContinuousConsistency(
        source=TeacherVelocity(guidance=guidance), weighting=None
    ),
    "dmd2": lambda guidance: DMD2(guidance=guidance),
    "flow_generator_matching": lambda guidance: FlowGeneratorMatching(guidance=guidance),
    "flow_map_matching_lagrangian": lambda guidance: FlowMapMatching(
        matching=LagrangianMatching(), times=HALF, guidance=guidance
    ),
    "flow_map_matching_eulerian": lambda guidance: FlowMapMatching(
        matching=EulerianMatching(), times=HALF, guidance=guidance
    ),
    "progressive_distillation": lambda guidance: ProgressiveDistillation(
        view=View.VELOCITY, guidance=guidance
    ),
}
BY_JUMPS: Final[dict[str, Make]] = {
    "flow_map_matching_progressive": lambda guidance: FlowMapMatching(
        matching=ProgressiveMatching(), guidance=guidance
    ),
    "progressive_distillation": lambda guidance: ProgressiveDistillation(guidance=guidance),
}


def batch(n: int = 64) -> Batch:
    x0, x1 = GOOD.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def moment(n: int = 64) -> Moment:
    """Late enough that warm-ups have ended and every player moves."""
    return Moment(step=4, total=10, rng=Rng.seeded(5), batch_size=n)


def losses(
    learner: Learner, frozen: dict[str, FlowMap], rows: Batch | None = None, **nets: Any
) -> list[Tensor]:
    """The loss of every player on a network that heeds no scale, and the network's gradient."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        online = SmallMap(shape=(2,), domain=learner.domain).double()
        companions = {
            name: make(online).double() for name, make in learner.needs.companions.items()
        }
    given = Nets(
        **{"online": online, "target": online, "frozen": frozen, "companions": companions} | nets
    )
    rows = batch() if rows is None else rows
    if isinstance(learner, AbstractGame):
        players = learner.players(moment())
        totals = [learner.loss(player, given, rows, moment()).total for player in players]
    else:
        totals = [learner.loss(given, rows, moment()).total]
    weights = [weight for weight in given.online.parameters() if weight.requires_grad]
    if not weights or not totals[-1].requires_grad:
        return totals
    return [*totals, *torch.autograd.grad(totals[-1].mean(), weights, allow_unused=True)]


def assert_same(found: list[Tensor], want: list[Tensor]) -> None:
    for one, other in zip(found, want, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def views(learner: AbstractLearner) -> dict[str, View]:
    """How each frozen model is looked at."""
    return {role: reading.view for role, reading in learner.needs.frozen.items()}


def differ(found: list[Tensor], other: list[Tensor]) -> bool:
    pairs = zip(found, other, strict=True)
    return any((one - two).abs().max() > 1e-3 for one, two in pairs if one is not None)


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_a_guided_teacher_is_the_teacher_that_it_amounts_to(make: Make) -> None:
    found = losses(make(FIXED), {TEACHER: GOOD, WEAK: POOR})
    learner = make(FIXED)
    assert views(learner) == {TEACHER: View.VELOCITY, WEAK: View.VELOCITY}
    assert learner.needs.scales is None
    if isinstance(learner, FlowMapMatching | ConsistencyTrajectory):
        # Without guidance their diagonal follows the pairs.
        assert_same(found, losses(make(replace(FIXED, lowest=3.0, highest=3.0)), HALFWAY))
    else:
        assert_same(found, losses(make(Unguided()), {TEACHER: DOUBLED}))
    other = replace(FIXED, lowest=3.0, highest=3.0)
    assert differ(found, losses(make(other), {TEACHER: GOOD, WEAK: POOR}))


HALFWAY: Final[dict[str, FlowMap]] = {
    TEACHER: GOOD,
    WEAK: GaussianMap(mean=[0.55, -0.05], std=STD),
}
"""What a scale of 3 leads as far away from as a scale of 2 from the poor map."""


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_a_teacher_without_its_labels_guides(make: Make) -> None:
    learner = make(BY_LABELS)
    assert views(learner) == {TEACHER: View.GUIDED}
    labelled = replace(batch(), condition=Condition(label=torch.zeros(64, dtype=torch.long)))
    if learner.label_dropout.probability > 0.0:
        learner = replace(learner, label_dropout=LabelDropout(probability=0.0))  # type: ignore[call-arg]
    found = losses(learner, {TEACHER: TwoMaps(GOOD, POOR)}, labelled)
    plain = replace(learner, **_guidance_of(learner, FIXED))  # type: ignore[arg-type]
    assert_same(found, losses(plain, {TEACHER: GOOD, WEAK: POOR}, labelled))
    with pytest.raises(ValueError, match="needs labelled rows, got no condition"):
        losses(learner, {TEACHER: GOOD})


def _guidance_of(learner: Learner, guidance: AbstractTeacherGuidance) -> dict[str, Any]:
    if isinstance(learner, ContinuousConsistency):
        return {"source": TeacherVelocity(guidance=guidance)}
    return {"guidance": guidance}


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_scales_that_are_drawn_are_those_that_a_scaled_teacher_is_told(make: Make) -> None:
    """A pair of maps guided by drawn scales, and one map that takes the scale as an input."""
    frozen: dict[str, FlowMap] = {TEACHER: GOOD, WEAK: POOR}
    found = losses(make(DRAWN), frozen)
    assert make(DRAWN).needs.scales == make(TOLD).needs.scales == (1.0, 3.0)
    assert_same(found, losses(make(TOLD), {TEACHER: ScaledMap(GOOD, POOR)}))
    assert differ(found, losses(make(FIXED), frozen))


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_the_student_is_told_the_scale_and_the_frozen_maps_are_not(make: Make) -> None:
    """A map that is told no scale fails where it is the student, and is enough as a teacher."""
    learner = make(DRAWN)
    frozen: dict[str, FlowMap] = {TEACHER: ObservedMap(GOOD), WEAK: ObservedMap(POOR)}
    scaled = ScaledMap(GOOD, POOR)
    companions = {name: scaled for name in learner.needs.companions}
    losses(learner, frozen, online=scaled, target=scaled, companions=companions)
    asked = [each for each in frozen.values() if isinstance(each, ObservedMap)]
    assert all(each.calls for each in asked)
    assert all(call.scale is None for each in asked for call in each.calls)
    with pytest.raises(AssertionError):
        losses(make(FIXED), frozen, online=scaled, target=scaled, companions=companions)


@pytest.mark.parametrize("make", BY_JUMPS.values(), ids=BY_JUMPS)
def test_a_student_of_jumps_is_told_what_its_teacher_is(make: Make) -> None:
    learner, scaled = make(TOLD), ScaledMap(GOOD, POOR)
    assert views(learner) == {TEACHER: View.JUMP}
    (found,) = losses(learner, {TEACHER: scaled}, online=scaled)
    assert found.max() <= 1e-20
    (wrong,) = losses(learner, {TEACHER: GOOD}, online=scaled)
    assert wrong.mean() >= 1e-3


@pytest.mark.parametrize("make", BY_JUMPS.values(), ids=BY_JUMPS)
def test_jumps_of_a_teacher_are_not_guided_from_outside(make: Make) -> None:
    with pytest.raises(ValueError, match="is read as a velocity, got view jump"):
        make(FIXED)


def test_a_matching_without_a_teacher_has_nothing_to_guide() -> None:
    with pytest.raises(ValueError, match="needs a matching with a teacher, got DirectMatching"):
        FlowMapMatching(matching=DirectMatching(), guidance=FIXED)


@pytest.mark.parametrize(
    "learner",
    [
        FlowMapMatching(times=SortedTimes(diagonal=Constant(value=1.0)), guidance=FIXED),
        ConsistencyTrajectory(guidance=FIXED),
    ],
    ids=["flow_map_matching", "consistency_trajectory"],
)
def test_the_diagonal_follows_the_guided_teacher(learner: Learner) -> None:
    frozen: dict[str, FlowMap] = {TEACHER: GOOD, WEAK: POOR}

    def diagonal(online: FlowMap) -> Tensor:
        given = Nets(online=online, target=online, frozen=frozen)
        if isinstance(learner, AbstractGame):
            return learner.loss(ONLINE, given, batch(), moment()).terms["denoising"]
        return learner.loss(given, batch(), moment()).total

    assert diagonal(DOUBLED).max() <= 1e-20
    assert diagonal(GOOD).mean() >= 1e-2


EARLY: Final = GaussianMap(mean=[0.4, 0.1], std=STD, domain=Domain(t_hi=0.6))


@pytest.mark.parametrize("name", ["dmd2", "flow_generator_matching"])
def test_times_stay_where_both_maps_were_trained(name: str) -> None:
    learner = LEARNERS[name](FIXED)
    assert isinstance(learner, AbstractGame)
    for weak, latest in ((EARLY, 0.6), (POOR, 1.0)):
        frozen: dict[str, FlowMap] = {TEACHER: GOOD, WEAK: weak}
        companions = {name: DOUBLED for name in learner.needs.companions}
        given = Nets(online=DOUBLED, frozen=frozen, companions=companions)
        times = learner.loss(ONLINE, given, batch(), moment()).times
        assert times is not None
        assert 0.5 < times.max() <= latest
        assert (times.max() == 0.6) == (weak is EARLY)


@pytest.mark.parametrize(
    "name",
    [
        "align_your_flow",
        "consistency_distillation",
        "consistency_trajectory",
        "continuous_consistency",
    ],
)
def test_a_guide_that_was_not_trained_up_to_the_data_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"asks its weak for domain .* got one with domain .* \[0, 0.6\]"
    ):
        losses(LEARNERS[name](FIXED), {TEACHER: GOOD, WEAK: EARLY})


def test_real_data_have_no_guided_velocity() -> None:
    with pytest.raises(ValueError, match="takes the teacher for their velocity, which a guided"):
        FlowGeneratorMatching(form=InverseDistillation(), guidance=FIXED)
    FlowGeneratorMatching(form=InverseDistillation(alpha=1.0, beta=1.0), guidance=FIXED)


READING: Final = {"features": {"flow_map.first": 16}, "width": 8}


@pytest.mark.parametrize(
    "learner",
    [
        AlignYourFlow(guidance=DRAWN, adversary=RelativisticAdversary(**READING)),
        ConsistencyTrajectory(guidance=DRAWN, adversary=Adversary(**READING)),
    ],
    ids=["align_your_flow", "consistency_trajectory"],
)
def test_a_critic_reads_the_teacher_without_a_scale(learner: AbstractGame) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = SmallMap(shape=(2,), domain=Domain()).double()
        heads = {name: make(inner).double() for name, make in learner.needs.companions.items()}
    teacher, weak = ObservedMap(inner), ObservedMap(POOR)
    given = Nets(
        online=ScaledMap(GOOD, POOR),
        target=ScaledMap(GOOD, POOR),
        frozen={TEACHER: teacher, WEAK: weak},
        companions=heads,
    )
    for player in (*learner.needs.companions, ONLINE):
        learner.loss(player, given, batch(), moment())
    assert len(teacher.calls) > len(weak.calls)  # the critic's beside the guided ones
    assert all(call.scale is None for call in teacher.calls)


def test_what_a_teacher_is_told_of_a_condition() -> None:
    labels = Condition(label=torch.zeros(4, dtype=torch.long), guidance=torch.ones(4))
    for guidance, scale in ((Unguided(), None), (DRAWN, None), (TOLD, labels.guidance)):
        told = guidance.of_teacher(labels)
        assert told is not None
        assert told.guidance is scale
    assert DRAWN.of_teacher(Condition(guidance=torch.ones(4))) is None
    assert DRAWN.of_teacher(None) is None
