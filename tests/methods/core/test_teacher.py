"""Frozen models are asked only where they were trained, and a sentence says where that is."""

import math
from dataclasses import replace
from typing import Final

import pytest
import torch

from onestep.methods.align_your_flow import AlignYourFlow
from onestep.methods.consistency_distillation import ConsistencyDistillation
from onestep.methods.consistency_trajectory import ConsistencyTrajectory
from onestep.methods.continuous_consistency import ContinuousConsistency
from onestep.methods.core.coupling import MinibatchOTCoupling
from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.guided_teacher import GuidedTeacher
from onestep.methods.core.matching import (
    AbstractMatching,
    EulerianMatching,
    LagrangianMatching,
    ProgressiveMatching,
)
from onestep.methods.core.method import AbstractLearner, AbstractMethod, View
from onestep.methods.core.path import VariancePreservingPath
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.core.teacher import TeacherVelocity, require_readings
from onestep.methods.core.time_law import Uniform
from onestep.methods.core.times import (
    DyadicTimes,
    FromNoiseTimes,
    SortedTimes,
    TilingTimes,
    ToDataTimes,
)
from onestep.methods.ddpm import DDPM
from onestep.methods.dmd2 import DMD2
from onestep.methods.edm import EDM
from onestep.methods.flow_generator_matching import FlowGeneratorMatching
from onestep.methods.flow_guided_distillation import FlowGuidedDistillation
from onestep.methods.flow_map_matching import FlowMapMatching
from onestep.methods.progressive_distillation import ProgressiveDistillation
from onestep.methods.truncated_consistency import TruncatedConsistency
from onestep.tests.methods.exactness import ORACLE, WRONG
from onestep.tests.methods.observed import ObservedMap

DIAGONAL, TO_DATA = Domain(kind=DomainKind.DIAGONAL), Domain(kind=DomainKind.TO_DATA)
FROM_NOISE = Domain(kind=DomainKind.FROM_NOISE)
PAIRED = Domain(kind=DomainKind.DIAGONAL, has_paired_noise=True)
MIDDLE = Domain(kind=DomainKind.DIAGONAL, t_lo=0.3, t_hi=0.7)
EDMS, DDPMS = EDM().domain, DDPM().domain
TO_THE_DATA = EDM(sigma_min=0.0).domain
WHOLE = EDM(sigma_min=0.0, sigma_max=None).domain


def tiling(steps: int) -> Domain:
    return Domain(kind=DomainKind.TILING, steps=steps)


def grid(steps: int) -> Domain:
    return Domain(kind=DomainKind.GRID, steps=steps)


HALF: Final = SortedTimes(law=Uniform(), diagonal=Constant(value=0.5))
TWICE: Final = ProgressiveMatching(count=2)
SOON: Final = FlowGuidedDistillation(s_lo=0.5, s_hi=0.5)
ASKED: Final[dict[str, tuple[AbstractLearner, list[Domain], list[Domain]]]] = {
    "lmd": (FlowMapMatching(), [Domain(), DIAGONAL, WHOLE, PAIRED], [MIDDLE, EDMS, TO_DATA]),
    "lmd and the path": (FlowMapMatching(times=HALF), [DIAGONAL], [PAIRED]),
    "lmd and the path of paired noise": (
        FlowMapMatching(times=HALF, coupling=MinibatchOTCoupling()),
        [PAIRED],
        [DIAGONAL],
    ),
    "lmd and a guided velocity": (
        FlowMapMatching(times=HALF, guidance=GuidedTeacher()),
        [DIAGONAL, PAIRED],
        [MIDDLE],
    ),
    "emd": (FlowMapMatching(matching=EulerianMatching()), [DIAGONAL, WHOLE], [MIDDLE, DDPMS]),
    "lmd on a path that ends early": (
        FlowMapMatching(path=VariancePreservingPath()),
        [DIAGONAL, replace(DIAGONAL, t_hi=1.0 - 1e-5)],
        [replace(DIAGONAL, t_hi=0.999)],
    ),
    "pfmm": (
        FlowMapMatching(matching=TWICE),
        [Domain()],
        [DIAGONAL, TO_DATA, FROM_NOISE, grid(64), tiling(2), Domain(t_hi=0.9)],
    ),
    "pfmm to the data": (
        FlowMapMatching(matching=TWICE, times=ToDataTimes()),
        [Domain()],
        [TO_DATA, DIAGONAL],
    ),
    "pfmm of one jump": (
        FlowMapMatching(matching=TWICE, times=FromNoiseTimes()),
        [Domain(), tiling(2), grid(2)],
        [tiling(1), FROM_NOISE, grid(1)],
    ),
    "pfmm in threes": (
        FlowMapMatching(matching=ProgressiveMatching(count=3), times=TilingTimes(steps=2)),
        [Domain(), tiling(6)],
        [tiling(3), grid(8)],
    ),
    "pfmm on a grid": (
        FlowMapMatching(matching=TWICE, times=DyadicTimes(steps=8)),
        [Domain(), grid(16), grid(64)],
        [grid(8), tiling(16)],
    ),
    "ayf": (AlignYourFlow(), [DIAGONAL, grid(4), PAIRED], [EDMS, DDPMS, TO_THE_DATA, TO_DATA]),
    "cd": (ConsistencyDistillation(), [DIAGONAL, TO_THE_DATA], [EDMS, DDPMS, MIDDLE]),
    "ctm": (ConsistencyTrajectory(), [DIAGONAL, TO_THE_DATA], [EDMS, DDPMS, MIDDLE, PAIRED]),
    "scd": (
        ContinuousConsistency(source=TeacherVelocity()),
        [DIAGONAL, TO_THE_DATA],
        [EDMS, DDPMS, MIDDLE],
    ),
    "scd from noise": (
        ContinuousConsistency(source=TeacherVelocity(), t_lo=0.0),
        [WHOLE],
        [TO_THE_DATA],
    ),
    "pd by jumps": (
        ProgressiveDistillation(),
        [Domain(), tiling(2), grid(64)],
        [tiling(4), DIAGONAL, TO_DATA],
    ),
    "pd by velocity": (
        ProgressiveDistillation(view=View.VELOCITY),
        [DIAGONAL, replace(DIAGONAL, t_hi=0.5)],
        [replace(DIAGONAL, t_hi=0.4), EDMS, DDPMS],
    ),
    "tcm": (
        TruncatedConsistency(),
        [TO_DATA, Domain(), replace(TO_DATA, t_lo=0.01)],
        [replace(TO_DATA, t_lo=0.9), DIAGONAL, FROM_NOISE, tiling(1)],
    ),
    "weak flow from its own step": (
        FlowGuidedDistillation(),
        [DIAGONAL, EDMS, DDPMS, replace(DIAGONAL, t_lo=0.2, t_hi=0.8)],
        [replace(DIAGONAL, t_lo=0.4, t_hi=0.6), TO_DATA],
    ),
    "weak flow from noise": (
        FlowGuidedDistillation(own=Constant(value=0.5)),
        [DIAGONAL, replace(DIAGONAL, t_hi=0.8)],
        [replace(DIAGONAL, t_lo=0.2, t_hi=0.8), EDMS, DDPMS],
    ),
    "weak flow at one time": (SOON, [MIDDLE], [replace(DIAGONAL, t_lo=0.6)]),
    "fgm": (
        FlowGeneratorMatching(),
        [DIAGONAL, EDMS, DDPMS, MIDDLE],
        [TO_DATA, FROM_NOISE, PAIRED],
    ),
    "dmd2": (DMD2(), [DIAGONAL, EDMS, DDPMS, MIDDLE], [TO_DATA, FROM_NOISE, PAIRED]),
}
TAKEN = [(name, domain) for name, (_, fit, _) in ASKED.items() for domain in fit]
REFUSED = [(name, domain) for name, (_, _, unfit) in ASKED.items() for domain in unfit]


def nets(learner: AbstractLearner, domain: Domain) -> Nets:
    frozen = {role: ObservedMap(ORACLE, domain=domain) for role in learner.needs.frozen}
    return Nets(online=WRONG, frozen=frozen)


@pytest.mark.parametrize(("name", "domain"), TAKEN, ids=str)
def test_a_model_that_knows_where_it_is_asked_is_taken(name: str, domain: Domain) -> None:
    learner = ASKED[name][0]
    require_readings(learner.needs, nets(learner, domain))


@pytest.mark.parametrize(("name", "domain"), REFUSED, ids=str)
def test_a_model_that_does_not_is_refused(name: str, domain: Domain) -> None:
    learner = ASKED[name][0]
    with pytest.raises(ValueError, match=r"^the method (asks its|reads the|takes states)"):
        require_readings(learner.needs, nets(learner, domain))


def test_what_guides_a_teacher_has_to_know_the_same_times() -> None:
    learner = ConsistencyDistillation(guidance=GuidedTeacher())
    frozen = {"teacher": ObservedMap(ORACLE), "weak": ObservedMap(ORACLE, domain=EDMS)}
    with pytest.raises(ValueError, match="asks its weak for domain diagonal"):
        require_readings(learner.needs, Nets(online=WRONG, frozen=frozen))


@pytest.mark.parametrize(
    ("name", "domain", "sentence"),
    [
        (
            "cd",
            EDMS,
            "the method asks its teacher for domain diagonal on [0.0123457, 1], got one with "
            "domain diagonal on [0.0123457, 0.998004]: allowed from 0.0123457 to 1 is diagonal, "
            "grid or triangle",
        ),
        (
            "pd by jumps",
            tiling(4),
            "the method asks its teacher for domain tiling of 2 steps on [0, 1], got one with "
            "domain tiling of 4 steps on [0, 1]: allowed from 0 to 1 is tiling of 2 steps, grid "
            "of 2 or more, or triangle",
        ),
        (
            "pfmm to the data",
            TO_DATA,
            "the method asks its teacher for domain triangle on [0, 1], got one with domain "
            "to_data on [0, 1]: allowed from 0 to 1 is triangle",
        ),
        (
            "dmd2",
            PAIRED,
            "the method takes states of noise independent of the data to have the velocity of its "
            "teacher, got one, which was trained with noise paired with them",
        ),
    ],
)
def test_the_sentence_names_what_is_needed_and_what_would_do(
    name: str, domain: Domain, sentence: str
) -> None:
    learner = ASKED[name][0]
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        require_readings(learner.needs, nets(learner, domain))
    assert str(refused.value) == sentence


@pytest.mark.parametrize("name", ["lmd", "emd", "weak flow from noise"])
def test_a_method_without_a_platform_refuses_it_as_well(name: str) -> None:
    method, _, (domain, *_) = ASKED[name]
    assert isinstance(method, AbstractMethod)
    given = nets(method, domain)
    with pytest.raises(ValueError, match="the method asks its"):
        method.loss(given, rows(8), moment(8))
    assert not any(observed(given, role).calls for role in given.frozen)


@pytest.mark.parametrize("matching", [LagrangianMatching(), EulerianMatching(), TWICE], ids=str)
def test_a_teacher_is_asked_where_its_matching_says(matching: AbstractMatching) -> None:
    method = FlowMapMatching(matching=matching)
    needed = method.needs.frozen["teacher"].on
    assert needed is not None
    given = nets(method, Domain())
    method.loss(given, rows(512), moment(512))
    calls = observed(given, "teacher").calls
    jumps = [jump for c in calls for jump in zip(c.s.tolist(), c.t.tolist(), strict=True)]
    assert all(needed.admits(s, t) for s, t in jumps)
    # They fill the range, so that a shorter one would not do.
    assert min(s for s, _ in jumps) < 0.1
    assert max(t for _, t in jumps) > 0.9


@pytest.mark.parametrize("own", [0.0, 0.5, 1.0])
def test_a_weak_flow_is_asked_from_where_its_reading_begins(own: float) -> None:
    method = FlowGuidedDistillation(own=Constant(value=own))
    needed = method.needs.frozen["weak"].on
    assert needed is not None
    assert (needed.t_lo, needed.t_hi) == (0.0 if own < 1.0 else 0.2, 0.8)
    given = nets(method, needed)
    method.loss(given, rows(512), moment(512))
    times = torch.cat([call.t for call in observed(given, "weak").calls])
    assert math.isclose(times.min().item(), needed.t_lo, abs_tol=0.01)
    assert needed.t_lo <= times.min() <= times.max() <= needed.t_hi


def observed(given: Nets, role: str) -> ObservedMap:
    found = given.frozen[role]
    assert isinstance(found, ObservedMap)
    return found


def rows(n: int) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)
