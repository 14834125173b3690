"""DDPM: its loss in the diffusion's own terms, its floor, its flow up to the data, its students."""

from itertools import pairwise

import pytest
import torch

from onestep.methods.core.diffusion_clock import (
    AbstractDiffusionClock,
    CosineClock,
    DiscreteClock,
    LinearRateClock,
)
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.method import View
from onestep.methods.core.ode import Euler, Heun
from onestep.methods.core.path import VariancePreservingPath
from onestep.methods.core.prediction import NoisePrediction
from onestep.methods.core.record import Batch, Loss, Nets
from onestep.methods.ddpm import DDPM
from onestep.methods.nets.diffusion import DiffusionVelocity
from onestep.methods.oracle import GaussianMap
from onestep.methods.progressive_distillation import ProgressiveDistillation
from onestep.tests.methods.contract import Exact, MethodContract, SmallMap
from onestep.tests.methods.exactness import ORACLE, WRONG
from onestep.tests.methods.teaching import distilled, moment, on, pairs

CLOCKS = (DiscreteClock(), LinearRateClock(), CosineClock())
each_clock = pytest.mark.parametrize("clock", CLOCKS, ids=repr)
TO_THE_DATA = DDPM(clock=LinearRateClock(tau_min=0.0))


class TestDDPM(MethodContract):
    exactness = Exact()

    @pytest.fixture
    def method(self) -> DDPM:
        return DDPM()


class TestDDPMInContinuousTime(MethodContract):
    exactness = Exact()

    @pytest.fixture
    def method(self) -> DDPM:
        return DDPM(clock=LinearRateClock())


def loss(flow_map: FlowMap, batch: Batch, method: DDPM) -> Loss:
    return method.loss(Nets(online=flow_map), batch, moment(len(batch)))


def noise_predicting(clock: AbstractDiffusionClock) -> tuple[SmallMap, DiffusionVelocity]:
    torch.manual_seed(0)
    inner = SmallMap(shape=(2,), domain=Domain()).double()
    return inner, DiffusionVelocity(
        shape=(2,),
        domain=DDPM(clock=clock).domain,
        net=lambda **_: inner,
        prediction=NoisePrediction(),
        clock=clock,
    )


def test_the_loss_is_that_of_the_noise_on_the_variance_preserving_path() -> None:
    """The network is told z and the clock of the same diffusion, and nothing of ours."""
    clock, path, batch = LinearRateClock(), VariancePreservingPath(), pairs(64)
    inner, net = noise_predicting(clock)
    found = loss(net, batch, DDPM(clock=clock))
    assert found.times is not None
    r = 1.0 - clock.tau(found.times)
    z = path.at(batch.noise, batch.x1, r).x
    want = (inner.velocity(z, r) - batch.noise).square().sum(1)
    torch.testing.assert_close(found.total, want, atol=1e-8, rtol=1e-8)
    other = (inner.velocity(z, 1.0 - r) - batch.noise).square().sum(1)
    assert (found.total - other).abs().max() > 0.01


@each_clock
def test_the_floor_is_what_the_state_leaves_open_of_the_noise(
    clock: AbstractDiffusionClock,
) -> None:
    """s^2 t^2 / V_t in each coordinate; 200 000 pairs, 4 standard errors, 20 for another map."""
    method, batch = DDPM(clock=clock), pairs(200_000)
    found = loss(ORACLE, batch, method)
    assert found.times is not None
    t, spread = found.times[:, None], ORACLE.std.square()
    floor = (spread * t**2 / ((1.0 - t) ** 2 + spread * t**2)).sum(1)

    def away(flow_map: FlowMap) -> float:
        excess = loss(flow_map, batch, method).total.detach() - floor
        return (excess.mean() / (excess.std() / len(excess) ** 0.5)).abs().item()

    assert away(ORACLE) <= 4.0
    assert away(WRONG) >= 20.0


@each_clock
def test_the_range_is_the_clocks(clock: AbstractDiffusionClock) -> None:
    domain = DDPM(clock=clock).domain
    assert domain.kind is DomainKind.DIAGONAL
    assert (domain.t_lo, domain.t_hi) == (clock.t_lo, clock.t_hi)
    batch = pairs(4096)
    times = loss(ORACLE, batch, DDPM(clock=clock)).times
    assert times is not None
    assert domain.t_lo - 1e-12 <= times.min() <= times.max() <= domain.t_hi + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_velocity_is_finite_at_both_ends(dtype: torch.dtype) -> None:
    """Also at the data themselves, where a division by 1 - t would not be."""
    inner, net = noise_predicting(LinearRateClock(tau_min=0.0))
    domain, x = TO_THE_DATA.domain, torch.ones(2, 2, dtype=dtype)
    assert domain.t_hi == 1.0
    ends = torch.tensor([domain.t_lo, 1.0], dtype=dtype)
    v = net.to(dtype).velocity(x, ends)
    assert v.isfinite().all()
    assert torch.equal(v[1], (x - inner.velocity(x, torch.ones_like(ends)))[1])


@pytest.mark.slow
def test_its_flow_followed_by_the_diffusions_own_clock_ends_at_the_same_data() -> None:
    """Heun's rule along the variance-preserving ODE, then mapped, against the exact flow map."""
    path, clock = VariancePreservingPath(), LinearRateClock()
    diffusion = GaussianMap(mean=ORACLE.mean, std=ORACLE.std, path=path)
    z = pairs(64).noise
    readings = torch.linspace(0.05, 0.9, 2001, dtype=torch.float64)
    times = clock.time(1.0 - readings)

    def scale(r: torch.Tensor) -> torch.Tensor:
        at = path.coefficients(r)
        return at.alpha + at.beta

    start = z / scale(readings[0])
    for r, end in pairwise(readings):
        first = diffusion.velocity(z, r.expand(64))
        second = diffusion.velocity(z + (end - r) * first, end.expand(64))
        z = z + 0.5 * (end - r) * (first + second)
    want = ORACLE.jump(start, times[0].expand(64), times[-1].expand(64))
    torch.testing.assert_close(z / scale(readings[-1]), want, atol=1e-5, rtol=1e-5)


def test_its_velocity_is_sampled_as_any_other() -> None:
    """400 steps of Heun's rule; the range begins where 1 / 158 of the data is left out."""
    noise = pairs(64).noise[None]
    for method in (DDPM(), TO_THE_DATA):
        found = Heun(grid=UniformGrid(steps=400)).sample(on(method.domain), noise)
        torch.testing.assert_close(found, ORACLE.jump(noise[0], *_whole(64)), atol=0.02, rtol=0.0)
        one = Euler(grid=UniformGrid(steps=1)).sample(on(method.domain), noise)
        torch.testing.assert_close(one, ORACLE.mean.expand(64, 2), atol=0.05, rtol=0.0)


def _whole(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)


# Students.


def test_it_teaches_a_consistency_model_if_its_range_reaches_the_data() -> None:
    assert distilled(on(TO_THE_DATA.domain)).max() <= 1e-9
    with pytest.raises(
        ValueError, match=r"got one with domain diagonal on \[0\.0063\d+, 0\.990099\]"
    ):
        distilled(on(DDPM().domain))


def test_a_student_that_begins_at_pure_noise_refuses_it() -> None:
    method = ProgressiveDistillation(view=View.VELOCITY)
    nets = Nets(online=ORACLE, frozen={"teacher": on(TO_THE_DATA.domain)})
    with pytest.raises(
        ValueError, match=r"asks its teacher for domain diagonal on \[0, 0\.5\], got one"
    ):
        method.loss(nets, pairs(8), moment(8))
