"""Autoguidance: velocities extrapolated from a worse map, for samplers and for students."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from onestep.methods.continuous_consistency import ContinuousConsistency
from onestep.methods.core.autoguidance import Guided, Unconditional, guided_velocity
from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.guided_teacher import (
    WEAK,
    GuidanceInput,
    GuidedTeacher,
    NullCondition,
    WeakModel,
)
from onestep.methods.core.method import TEACHER, Reading, View
from onestep.methods.core.ode import RungeKutta4
from onestep.methods.core.path import TrigonometricPath
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.core.teacher import TeacherVelocity
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.contract import Exact, Setting
from onestep.tests.methods.exactness import assert_exactness
from onestep.tests.methods.observed import ObservedMap, TwoMaps

STD = (0.3, 0.6)
GOOD = GaussianMap(mean=[0.7, -0.2], std=STD)
POOR = GaussianMap(mean=[0.4, 0.1], std=STD)
DOUBLED = GaussianMap(mean=[1.0, -0.5], std=STD)
BENT = GaussianMap(mean=[0.4, 0.1], std=STD, path=TrigonometricPath())
LABELS = Condition(label=torch.zeros(64, dtype=torch.long))


def states() -> tuple[torch.Tensor, torch.Tensor]:
    rng = Rng.seeded(1)
    return rng.normal(64, 2, dtype=torch.float64), rng.uniform(64, dtype=torch.float64)


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


@pytest.mark.parametrize(
    ("scale", "mean"),
    [(0.0, [0.4, 0.1]), (0.5, [0.55, -0.05]), (1.0, [0.7, -0.2]), (2.0, [1.0, -0.5])],
)
def test_a_guided_velocity_leads_on_from_the_weak_through_the_strong(
    scale: float, mean: list[float]
) -> None:
    """Velocities of Gaussians of one width are linear in their means."""
    x, t = states()
    found = Guided(GOOD, POOR, scale=scale).velocity(x, t)
    moved = GaussianMap(mean=mean, std=STD)
    torch.testing.assert_close(found, moved.velocity(x, t), atol=1e-12, rtol=0)


def test_a_scale_of_one_changes_no_bit() -> None:
    x, t = states()
    found = guided_velocity(GOOD, POOR, x, t, None, scale=torch.ones_like(t))
    assert torch.equal(found, GOOD.velocity(x, t))


def test_any_sampler_of_velocities_samples_a_guided_one() -> None:
    noise = states()[0][None]
    found = RungeKutta4(grid=UniformGrid(steps=200)).sample(Guided(GOOD, POOR, scale=2.0), noise)
    want = DOUBLED.mean + DOUBLED.std * noise[0]
    torch.testing.assert_close(found, want, atol=1e-7, rtol=0)


def test_guidance_by_labels_is_guidance_by_the_map_without_them() -> None:
    x, t = states()
    teacher = TwoMaps(GOOD, POOR)
    found = Guided(teacher, Unconditional(teacher), scale=2.0).velocity(x, t, LABELS)
    torch.testing.assert_close(found, DOUBLED.velocity(x, t), atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="needs labelled rows, got no condition"):
        Guided(GOOD, Unconditional(GOOD), scale=2.0).velocity(x, t)


def test_a_guided_velocity_is_one_where_both_maps_are() -> None:
    late = GaussianMap(mean=[0.0], std=[1.0], domain=Domain(t_lo=0.1))
    early = GaussianMap(mean=[0.0], std=[1.0], domain=Domain(t_hi=0.9))
    found = Guided(late, early, scale=2.0).domain
    assert found == Domain(kind=DomainKind.DIAGONAL, t_lo=0.1, t_hi=0.9)


Make = Callable[[], object]
TO_DATA = GaussianMap(mean=[0.0], std=[1.0], domain=Domain(kind=DomainKind.TO_DATA))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Guided(GOOD, POOR, scale=-0.5), "a finite scale of at least 0, got -0.5"),
        (lambda: Guided(GOOD, TO_DATA, scale=2.0), "its weak map needs a map trained on the diag"),
        (lambda: Guided(GOOD, BENT, scale=2.0), "of one path, got linear and trigonometric"),
        (lambda: Guided(TO_DATA, GOOD, scale=2.0), "its strong map needs a map trained on the dia"),
        (lambda: GuidedTeacher(lowest=0.5), "1 <= lowest <= highest, .*got 0.5 and 3"),
        (lambda: GuidedTeacher(highest=1.0), "the highest above 1, got 1.0 and 1.0"),
        (lambda: GuidedTeacher(lowest=4.0), "got 4.0 and 3.0"),
        (lambda: GuidedTeacher(highest=float("inf")), "needs finite scales .* got 1.0 and inf"),
        (lambda: GuidanceInput(lowest=2.0, highest=2.0), "lowest < highest, got 2.0 twice"),
        (lambda: GuidanceInput(lowest=0.5), "1 <= lowest <= highest, .*got 0.5 and 3"),
    ],
)
def test_guidance_that_makes_no_sense_is_refused(make: Make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


# A teacher in training.


def rows(n: int) -> Batch:
    return Batch(x1=torch.zeros(n, 2, dtype=torch.float64), index=torch.arange(n))


def test_scales_are_drawn_uniformly_between_both_ends() -> None:
    """Kolmogorov and Smirnov at the 99.9 % quantile, 20 000 draws."""
    n = 20_000
    told = GuidedTeacher(lowest=1.5, highest=4.0).tell(None, rows(n), moment(n))
    assert told is not None
    assert told.guidance is not None
    share = ((told.guidance - 1.5) / 2.5).sort().values
    steps = torch.arange(n, dtype=torch.float64) / n
    distance = torch.maximum((share - steps).abs(), (share - steps - 1.0 / n).abs()).max()
    assert distance.item() <= 1.95 / n**0.5


def test_a_fixed_scale_takes_no_random_numbers_and_is_not_told() -> None:
    now, guided = moment(8), GuidedTeacher(lowest=2.0, highest=2.0)
    assert guided.tell(LABELS, rows(8), now) is LABELS
    assert torch.equal(now.rng.uniform(8), moment(8).rng.uniform(8))


@pytest.mark.parametrize("is_auto", [True, False])
def test_each_row_of_a_teacher_is_guided_by_its_own_scale(is_auto: bool) -> None:
    x, t = states()
    scale = 1.0 + Rng.seeded(3).uniform(64, dtype=torch.float64)
    teacher: FlowMap = GOOD if is_auto else TwoMaps(GOOD, POOR)
    guided = GuidedTeacher(guide=WeakModel() if is_auto else NullCondition())
    nets = Nets(online=GOOD, frozen={TEACHER: teacher} | ({WEAK: POOR} if is_auto else {}))
    frozen = guided.frozen(Reading())
    assert set(frozen) == set(nets.frozen)
    assert frozen[TEACHER].view is (View.VELOCITY if is_auto else View.GUIDED)
    found = guided.teacher(nets).velocity(x, t, replace(LABELS, guidance=scale))
    for k in (0, 63):
        mean = scale[k] * GOOD.mean + (1.0 - scale[k]) * POOR.mean
        want = GaussianMap(mean=mean, std=STD).velocity(x[k : k + 1], t[k : k + 1])
        torch.testing.assert_close(found[k : k + 1], want, atol=1e-12, rtol=0)


def test_each_frozen_map_is_evaluated_once() -> None:
    x, t = states()
    strong, weak = ObservedMap(GOOD), ObservedMap(POOR)
    nets = Nets(online=GOOD, frozen={TEACHER: strong, WEAK: weak})
    GuidedTeacher(lowest=2.0, highest=2.0).teacher(nets).velocity(x, t)
    assert strong.rows == weak.rows == [64]


def test_a_method_that_takes_a_velocity_takes_a_guided_one() -> None:
    """Continuous consistency from an exact pair of teachers stands still at the doubled way."""
    source = TeacherVelocity(guidance=GuidedTeacher(lowest=2.0, highest=2.0))
    method = ContinuousConsistency(source=source, tangent=Constant(value=1.0), weighting=None)
    on = Domain(kind=DomainKind.DIAGONAL, t_lo=method.t_lo)
    assert method.needs.frozen == dict.fromkeys((TEACHER, WEAK), Reading(on=on))
    setting = Setting(data=GOOD, frozen={TEACHER: GOOD, WEAK: POOR})
    assert_exactness(Exact(setting=setting, at=DOUBLED), method)
