"""Flow-guided distillation: its two terms, its guide, and when the guide has nothing to say."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onestep.methods.core.coupling import IndependentCoupling
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap, Velocity
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.flow_guided_distillation import FlowGuidedDistillation
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.contract import Exact, MethodContract
from onestep.tests.methods.exactness import WRONG, Setting, assert_not_stationary
from onestep.tests.methods.observed import ObservedMap

MEAN, STD = (0.7, -0.2), (0.3, 0.6)
FIRST = GaussianMap(mean=MEAN, std=STD)
SECOND = GaussianMap(mean=MEAN, std=STD, rho=1.0)
PLAIN = FlowGuidedDistillation()
ON_THE_FLOW = replace(PLAIN, own=Constant(value=0.0))
PAIRED = Setting(data=SECOND, frozen={"weak": Velocity(SECOND)})


class TestFlowGuidedDistillation(MethodContract):
    """Two steps of a straight flow are where its pairs are."""

    exactness = Exact(setting=PAIRED)

    @pytest.fixture
    def method(self) -> FlowGuidedDistillation:
        return PLAIN


class TestFlowGuidedDistillationOnTheFlow(MethodContract):
    exactness = Exact(setting=PAIRED)

    @pytest.fixture
    def method(self) -> FlowGuidedDistillation:
        return replace(PLAIN, own=Constant(value=0.5), guidance=Constant(value=3.0))


def test_a_curved_guide_leads_elsewhere() -> None:
    curved = replace(PAIRED, frozen={"weak": Velocity(FIRST)})
    assert_not_stationary(ON_THE_FLOW, SECOND, curved)


def moment(n: int, step: int = 0) -> Moment:
    return Moment(step=step, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int) -> Batch:
    x0, x1 = SECOND.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def loss(method: FlowGuidedDistillation, online: FlowMap, guide: FlowMap, n: int = 64) -> Loss:
    return method.loss(Nets(online=online, frozen={"weak": guide}), pairs(n), moment(n))


@pytest.mark.parametrize("own", [0.0, 0.5, 1.0])
def test_a_straight_guide_has_nothing_to_add_to_itself(own: float) -> None:
    method = replace(PLAIN, own=Constant(value=own))
    terms = loss(method, SECOND, Velocity(SECOND)).terms
    assert set(terms) == {"pairs", "guidance"}
    assert terms["pairs"].max() <= 1e-24
    assert terms["guidance"].max() <= 1e-24
    assert loss(method, WRONG, Velocity(SECOND)).terms["guidance"].min() > 1e-6


def test_without_guidance_it_is_the_distillation_of_the_pairs() -> None:
    terms = loss(replace(PLAIN, guidance=Constant(value=0.0)), WRONG, Velocity(FIRST)).terms
    batch = pairs(64)
    zero, one = torch.zeros(64).double(), torch.ones(64).double()
    expected = (WRONG.jump(batch.noise, zero, one) - batch.x1).square().sum(1)
    torch.testing.assert_close(terms["pairs"], expected)
    assert not terms["guidance"].any()


def two_steps(online: ObservedMap, guide: ObservedMap) -> tuple[Tensor, Tensor, Tensor]:
    """Fresh noise, the state at which the second step begins, and its time."""
    second = guide.calls[-1]
    return online.calls[1].x, second.x, second.t


@pytest.mark.parametrize("own", [0.0, 1.0])
def test_the_guide_takes_two_steps_from_fresh_noise(own: float) -> None:
    """The first is the student's own or the guide's; the second starts within [0.2, 0.8]."""
    online, guide = ObservedMap(WRONG), ObservedMap(Velocity(FIRST))
    found = loss(replace(PLAIN, own=Constant(value=own)), online, guide).terms["guidance"]
    assert online.rows == [64, 64]
    assert guide.rows == [64] * (1 if own == 1.0 else 2)
    z, y, s = two_steps(online, guide)
    assert not torch.equal(z, pairs(64).noise)
    assert bool(((s >= 0.2) & (s <= 0.8)).all())
    zero, one = torch.zeros_like(s), torch.ones_like(s)
    first = WRONG(z, zero, one) if own == 1.0 else FIRST.velocity(z, zero)
    torch.testing.assert_close(y, z + s[:, None] * first)
    there = y + (1.0 - s)[:, None] * FIRST.velocity(y, s)
    expected = (WRONG.jump(z, zero, one) - there).square().sum(1)
    torch.testing.assert_close(found, expected)


def test_the_share_of_own_steps_follows_its_schedule() -> None:
    method = replace(PLAIN, own=Linear(start=0.0, end=1.0))
    n, counts = 4096, []
    for step in (0, 5):
        online, guide = ObservedMap(WRONG), ObservedMap(Velocity(FIRST))
        nets = Nets(online=online, frozen={"weak": guide})
        method.loss(nets, pairs(n), moment(n, step))
        z, y, s = two_steps(online, guide)
        own = z + s[:, None] * WRONG(z, torch.zeros_like(s), torch.ones_like(s))
        counts.append(int(torch.isclose(y, own).all(1).sum()))
    assert counts[0] == 0
    assert abs(counts[1] - n / 2) <= 4 * (n / 4) ** 0.5


def test_no_gradient_runs_through_the_guide_or_the_own_step() -> None:
    """At the guide's target the gradient of the second term is that of a fixed target."""
    n = 64
    online = GaussianMap(mean=MEAN, std=STD)
    scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    class Scaled(FlowMap):
        def forward(self, x, s, t, condition=None):  # type: ignore[no-untyped-def]
            return scale * online(x, s, t)

    terms = loss(PLAIN, Scaled(domain=Domain()), Velocity(FIRST), n).terms
    (gradient,) = torch.autograd.grad(terms["guidance"].sum(), scale)
    observed, guide = ObservedMap(online), ObservedMap(Velocity(FIRST))
    loss(PLAIN, observed, guide, n)
    z, y, s = two_steps(observed, guide)
    u = online(z, torch.zeros_like(s), torch.ones_like(s))
    there = y + (1.0 - s)[:, None] * FIRST.velocity(y, s)
    torch.testing.assert_close(gradient, (2.0 * (z + u - there) * u).sum())


def test_the_student_knows_one_step_alone() -> None:
    assert PLAIN.domain == Domain(kind=DomainKind.TILING, steps=1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"coupling": IndependentCoupling()}, "trains on StoredPairs, got coupling Independent"),
        ({"s_lo": 0.9}, "0 <= s_lo <= s_hi <= 1, got 0.9 and 0.8"),
        ({"s_hi": 1.1}, "got 0.2 and 1.1"),
        ({"guidance": Constant(value=-1.0)}, r"method\.guidance must stay in \[0, inf\]"),
        ({"own": Constant(value=2.0)}, r"method\.own must stay in \[0, 1\]"),
        ({"generated": Constant(value=2.0)}, "share of generated pairs"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FlowGuidedDistillation(**values)  # type: ignore[arg-type]
