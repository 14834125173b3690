"""Consistency distillation: its order, the fixed point that the solver makes, its teacher."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onestep.methods.consistency_distillation import ConsistencyDistillation
from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap, Velocity
from onestep.methods.core.guidance import LabelDropout
from onestep.methods.core.method import Reading
from onestep.methods.core.pair_times import GridTimes, UniformSpacing
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.core.solver_step import AbstractSolverStep, EulerStep, HeunStep, SigmaHeunStep
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.consistency import FixedPoint, karras_times, std_ratio
from onestep.tests.methods.contract import CLASSES, Elsewhere, MethodContract, Order
from onestep.tests.methods.exactness import ORACLE, WRONG, Setting, assert_order
from onestep.tests.methods.observed import ObservedMap


def uniform(steps: int, step: AbstractSolverStep) -> ConsistencyDistillation:
    times = GridTimes(spacing=UniformSpacing(), steps=Constant(value=float(steps)))
    return ConsistencyDistillation(times=times, step=step)


def karras(steps: int) -> ConsistencyDistillation:
    return ConsistencyDistillation(times=GridTimes(steps=Constant(value=float(steps))))


class TestConsistencyDistillation(MethodContract):
    """Heun's error in one step is of third order."""

    exactness = Order(
        order=3.0,
        gaps=(1 / 40, 1 / 80),
        methods=(karras(40), karras(80)),
        control=(replace(karras(40), step=EulerStep()), replace(karras(80), step=EulerStep())),
    )

    @pytest.fixture
    def method(self) -> ConsistencyDistillation:
        return ConsistencyDistillation()


@pytest.mark.parametrize(
    ("step", "order", "other"),
    [(EulerStep(), 2.0, HeunStep()), (HeunStep(), 3.0, EulerStep())],
    ids=repr,
)
def test_the_bias_of_a_pair_has_the_order_of_the_solver_plus_one(
    step: AbstractSolverStep, order: float, other: AbstractSolverStep
) -> None:
    methods, control = ((uniform(20, kind), uniform(40, kind)) for kind in (step, other))
    assert_order(Order(order=order, gaps=(1 / 20, 1 / 40), methods=methods, control=control))


def by(step: AbstractSolverStep) -> Callable[[Tensor, float, float], Tensor]:
    """How a solver's step of the exact teacher scales the distance to the mean."""

    def factor(std: Tensor, s: float, t: float) -> Tensor:
        widths = std.reshape(-1)
        teacher = GaussianMap(mean=torch.zeros_like(widths), std=widths)
        at = [torch.tensor([time], dtype=torch.float64) for time in (s, t)]
        x = torch.ones(1, len(widths), dtype=torch.float64)
        return step(teacher, x, at[0], at[1], None).reshape(std.shape)

    return factor


EIGHT = karras(8)
STILL = FixedPoint(ORACLE, EIGHT.times.spacing.knots(8), by(SigmaHeunStep()))


class TestConsistencyDistillationOnACoarseGrid(MethodContract):
    """The map that the solver makes has no loss, whatever the pairs."""

    exactness = Elsewhere(minimiser=STILL, setting=Setting(frozen={"target": STILL}))

    @pytest.fixture
    def method(self) -> ConsistencyDistillation:
        return EIGHT


@pytest.mark.parametrize(
    ("points", "want"),
    [
        (2, 80.002768),
        (3, 4.094629),
        (11, 1.174619),
        (18, 1.055278),
        (40, 1.009782),
        (81, 1.002260),
        (161, 1.000557),
    ],
)
def test_the_fixed_point_of_heun_has_the_widths_of_the_card(points: int, want: float) -> None:
    """Karras levels 80 to 0.002 and std 0.5; the width is compared with that at level 0.002."""
    found = std_ratio(karras_times(points), std=0.5, factor=by(SigmaHeunStep()))
    assert found / (1.0 + (0.002 / 0.5) ** 2) ** 0.5 == pytest.approx(want, abs=1.5e-6)


def moment(n: int) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int, *, labelled: bool = False) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    condition = Condition(label=torch.arange(n) % CLASSES) if labelled else None
    return Batch(x0=x0, x1=x1, index=torch.arange(n), condition=condition)


def losses(
    method: ConsistencyDistillation,
    batch: Batch,
    *,
    online: FlowMap = ORACLE,
    target: FlowMap = ORACLE,
    teacher: FlowMap = ORACLE,
) -> Tensor:
    nets = Nets(online=online, target=target, frozen={"teacher": teacher})
    return method.loss(nets, batch, moment(len(batch))).total


def test_the_fixed_point_has_no_loss_and_the_exact_map_has_the_solvers_error() -> None:
    assert losses(EIGHT, pairs(256), online=STILL, target=STILL).max() <= 1e-20
    assert losses(EIGHT, pairs(256)).mean() > 1e-4
    assert losses(karras(640), pairs(256)).max() <= 1e-9


def test_the_target_starts_where_the_teacher_has_stepped_to() -> None:
    target, method, batch = ObservedMap(ORACLE), uniform(4, EulerStep()), pairs(64)
    losses(method, batch, target=target, teacher=WRONG)
    pair = method.times.draw(64, moment(64), dtype=torch.float64)
    x = (1.0 - pair.s)[:, None] * batch.noise + pair.s[:, None] * batch.x1
    (call,) = target.calls
    torch.testing.assert_close(call.x, EulerStep()(WRONG, x, pair.s, pair.t, None))
    assert torch.equal(call.s, pair.t)


def test_the_teacher_is_seen_as_a_velocity_twice_a_row() -> None:
    teacher = ObservedMap(Velocity(ORACLE))
    losses(EIGHT, pairs(64), teacher=teacher)
    assert teacher.rows == [64, 64]
    for call in teacher.calls:
        assert torch.equal(call.s, call.t)
    on = Domain(kind=DomainKind.DIAGONAL, t_lo=EIGHT.times.t_lo)
    assert EIGHT.needs.frozen == {"teacher": Reading(on=on)}


def test_another_teacher_gives_another_loss() -> None:
    fine, batch = karras(40), pairs(64)
    assert losses(fine, batch, teacher=WRONG).mean() > 10.0 * losses(fine, batch).mean()


def test_the_moving_average_teaches_and_not_the_network_itself() -> None:
    fine, batch = karras(40), pairs(64)
    assert losses(fine, batch, target=WRONG).mean() > 10.0 * losses(fine, batch).mean()


def test_all_three_networks_see_the_same_labels() -> None:
    nets = [ObservedMap(ORACLE) for _ in range(3)]
    method = replace(EIGHT, label_dropout=LabelDropout(probability=0.5))
    batch = pairs(64, labelled=True)
    losses(method, batch, online=nets[0], target=nets[1], teacher=nets[2])
    seen = [call.label for net in nets for call in net.calls]
    assert len(seen) == 4
    for label in seen:
        assert label is not None
        assert seen[0] is not None
        assert torch.equal(label, seen[0])


@pytest.mark.parametrize("domain", [Domain(t_lo=0.1), Domain(t_hi=0.99)], ids=repr)
def test_a_teacher_whose_range_is_too_short_is_refused(domain: Domain) -> None:
    teacher = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6], domain=domain)
    with pytest.raises(
        ValueError,
        match=r"asks its teacher for domain diagonal on \[0\.0123457, 1\], got one with domain tri",
    ):
        losses(EIGHT, pairs(8), teacher=teacher)


def test_a_step_in_the_noise_level_from_pure_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="a grid that begins above t = 0, got UniformSpacing"):
        uniform(4, SigmaHeunStep())
