"""Every sampler keeps the contract of samplers, and each domain gets the sampler it allows."""

from itertools import pairwise

import pytest
import torch

from onestep.methods.core.anchored import AnchoredSteps
from onestep.methods.core.coordinate import (
    AbstractCoordinate,
    AngleCoordinate,
    SigmaCoordinate,
    TimeCoordinate,
)
from onestep.methods.core.flow_map import Domain, DomainKind, Velocity
from onestep.methods.core.gamma_sampler import GammaJumps
from onestep.methods.core.grid import (
    AbstractGrid,
    HalvedEndGrid,
    KarrasGrid,
    ListGrid,
    UniformGrid,
)
from onestep.methods.core.multistep import DpmSolver
from onestep.methods.core.noise import draw_noise
from onestep.methods.core.ode import (
    Dopri5,
    Euler,
    Heun,
    HeunThenEuler,
    Midpoint,
    RungeKutta4,
)
from onestep.methods.core.path import TrigonometricPath, VariancePreservingPath
from onestep.methods.core.sampler import AbstractSampler, AnchoredJumps, Jumps, Renoise
from onestep.methods.core.sampler_choice import sampler_for
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.mean_flow import MeanFlow
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.core.contract import ORACLE, SamplerContract
from onestep.tests.methods.observed import ObservedMap

DIAGONAL = Domain(kind=DomainKind.DIAGONAL)
TO_DATA = Domain(kind=DomainKind.TO_DATA)
PAIRED = Domain(kind=DomainKind.TO_DATA, has_paired_noise=True)
FROM_NOISE = Domain(kind=DomainKind.FROM_NOISE)
GRID = Domain(kind=DomainKind.GRID, steps=8)
TO_DATA_EARLY = Domain(kind=DomainKind.TO_DATA, t_hi=0.9)
EARLY = Domain(t_lo=0.1, t_hi=0.9)
FROM_NOISE_EARLY = Domain(kind=DomainKind.FROM_NOISE, t_hi=0.9)
EDM = Domain(kind=DomainKind.DIAGONAL, t_lo=1.0 / 81.0, t_hi=1.0 / 1.002)
"""Noise levels from 80 to 0.002."""
VARIANCE_PRESERVING = FlowMatching(path=VariancePreservingPath()).domain


class TestEuler(SamplerContract):
    refused = (TO_DATA, FROM_NOISE)
    accepted = DIAGONAL

    def sampler(self, steps: int) -> AbstractSampler:
        return Euler(grid=UniformGrid(steps=steps))


class TestHeun(SamplerContract):
    refused = (TO_DATA, FROM_NOISE)
    accepted = GRID

    def sampler(self, steps: int) -> AbstractSampler:
        return Heun(grid=UniformGrid(steps=steps))


class TestHeunThenEuler(SamplerContract):
    refused = (TO_DATA, FROM_NOISE)
    accepted = GRID

    def sampler(self, steps: int) -> AbstractSampler:
        return HeunThenEuler(grid=HalvedEndGrid(steps=steps))


class TestMidpoint(SamplerContract):
    surpasses = True
    refused = (TO_DATA, FROM_NOISE)

    def sampler(self, steps: int) -> AbstractSampler:
        return Midpoint(grid=UniformGrid(steps=steps))


class TestRungeKutta4(SamplerContract):
    refused = (TO_DATA, FROM_NOISE)

    def sampler(self, steps: int) -> AbstractSampler:
        return RungeKutta4(grid=UniformGrid(steps=steps))


class TestHeunByAngle(SamplerContract):
    refused = (TO_DATA, FROM_NOISE)

    def sampler(self, steps: int) -> AbstractSampler:
        return Heun(grid=UniformGrid(steps=steps), coordinate=AngleCoordinate())


class TestDopri5(SamplerContract):
    refused = (TO_DATA, FROM_NOISE)

    def sampler(self, steps: int) -> AbstractSampler:
        return Dopri5(rtol=1e-8, atol=1e-8)

    def test_the_samples_are_exact_to_the_tolerance(self) -> None:
        assert self.error(1) < 1e-7

    def test_a_tolerance_of_zero_is_refused(self) -> None:
        with pytest.raises(ValueError, match="tolerances above 0"):
            Dopri5(rtol=0.0)


class TestJumps(SamplerContract):
    refused = (DIAGONAL, TO_DATA, FROM_NOISE, GRID)

    def sampler(self, steps: int) -> AbstractSampler:
        return Jumps(grid=UniformGrid(steps=steps))

    @pytest.mark.parametrize("steps", [1, 2, 5, 8])
    def test_the_samples_are_exact_at_any_number_of_jumps(self, steps: int) -> None:
        assert self.error(steps) < 1e-12


class TestRenoise(SamplerContract):
    refused = (DIAGONAL, FROM_NOISE, GRID)
    accepted = TO_DATA

    def sampler(self, steps: int) -> AbstractSampler:
        return Renoise(grid=UniformGrid(steps=steps))

    @pytest.mark.parametrize("steps", [1, 2, 4])
    def test_the_samples_are_exact_in_law(self, steps: int) -> None:
        """Mean and standard deviation of 20 000 samples, within 4 standard errors."""
        sampler, n = self.sampler(steps), 20_000
        x = sampler.sample(ORACLE, self.noise(sampler, n))
        error = ORACLE.std / n**0.5
        assert ((x.mean(0) - ORACLE.mean).abs() <= 4.0 * error).all()
        assert ((x.std(0) - ORACLE.std).abs() <= 4.0 * error / 2.0**0.5).all()


class TestJumpsOnAGivenGrid(SamplerContract):
    refused = (DIAGONAL, FROM_NOISE)

    def sampler(self, steps: int) -> AbstractSampler:
        return Jumps(grid=ListGrid(inner=tuple(k / 7 for k in range(1, steps))))


@pytest.mark.parametrize(
    ("domain", "nfe", "found"),
    [
        (Domain(), 3, Jumps),
        (TO_DATA, 1, Jumps),
        (TO_DATA, 3, Renoise),
        (PAIRED, 1, Jumps),
        (PAIRED, 3, AnchoredJumps),
        (FROM_NOISE, 1, Jumps),
        (FROM_NOISE, 2, None),
        (GRID, 4, Jumps),
        (GRID, 3, None),
        (GRID, 16, None),
        (DIAGONAL, 1, Euler),
        (TO_DATA_EARLY, 1, None),
        (TO_DATA_EARLY, 3, None),
        (EARLY, 1, None),
        (EARLY, 2, Jumps),
        (EARLY, 3, Jumps),
        (VARIANCE_PRESERVING, 1, Euler),
        (VARIANCE_PRESERVING, 4, Heun),
        (MeanFlow(path=VariancePreservingPath()).domain, 1, Jumps),
        (EDM, 1, None),
        (EDM, 5, Heun),
        (EDM, 6, HeunThenEuler),
        (DIAGONAL, 2, Euler),
        (DIAGONAL, 3, Euler),
        (DIAGONAL, 4, Heun),
        (DIAGONAL, 5, HeunThenEuler),
    ],
    ids=str,
)
def test_each_domain_gets_the_sampler_that_it_allows(
    domain: Domain, nfe: int, found: type[AbstractSampler] | None
) -> None:
    sampler = sampler_for(domain, nfe)
    assert type(sampler) is (found or type(None))
    if sampler is not None:
        net = ObservedMap(GaussianMap(mean=[0.7], std=[0.5]), domain=domain)
        sampler.sample(net, torch.zeros(sampler.draws, 4, 1, dtype=torch.float64))
        assert len(net.calls) == sampler.evaluations(domain) == nfe


@pytest.mark.parametrize("nfe", [8, 16, 36])
def test_an_even_number_that_ends_with_a_denoising_is_nearly_as_exact_as_an_odd_one(
    nfe: int,
) -> None:
    """The rule of Euler is no match: its samples are too narrow."""
    oracle = ObservedMap(GaussianMap(mean=[0.0], std=[0.5]), domain=EDM)
    noise = torch.ones(1, 1, 1, dtype=torch.float64)

    def error(sampler: AbstractSampler | None) -> float:
        assert sampler is not None
        return abs(sampler.sample(oracle, noise).item() / 0.5 - 1.0)

    assert error(sampler_for(EDM, nfe)) < 1.5 * error(sampler_for(EDM, nfe + 1))
    assert error(Euler(grid=UniformGrid(steps=nfe - 1))) > 10.0 * error(sampler_for(EDM, nfe))


@pytest.mark.parametrize("std", [1e-6, 0.5, 1.0])
def test_a_rest_of_time_that_is_left_out_changes_less_than_a_grey_level(std: float) -> None:
    """States up to four standard deviations, at the end of the variance-preserving path."""
    oracle = GaussianMap(mean=[0.0], std=[std], path=VariancePreservingPath())
    t_hi = torch.full((9,), VARIANCE_PRESERVING.t_hi, dtype=torch.float64)
    noise = oracle.path.coefficients(t_hi).alpha[0]
    x = torch.linspace(-4.0, 4.0, 9, dtype=torch.float64)[:, None] * (std**2 + noise**2).sqrt()
    moved = (1.0 - t_hi)[:, None] * oracle.velocity(x, t_hi)
    assert moved.abs().max() < 0.5 * (2.0 / 255.0)


# A map whose range ends before the data and begins after the noise.


class TestHeunByNoiseLevel(SamplerContract):
    """EDM's sampler, against the standard deviations that it has on data of width 1/2.

    With more steps than these the last one, from the least noise level to the data, has the error.
    """

    steps = (16, 32)
    refused = (TO_DATA, FROM_NOISE)
    accepted = Domain(kind=DomainKind.DIAGONAL, t_lo=1.0 / 81.0)
    oracle = GaussianMap(mean=[0.7, -0.2], std=[0.5, 1.4], domain=accepted)

    def sampler(self, steps: int) -> AbstractSampler:
        return Heun(grid=KarrasGrid(steps=steps), coordinate=SigmaCoordinate())

    @pytest.mark.parametrize(
        ("intervals", "golden"),
        [(8, 0.639060), (17, 0.527625), (39, 0.504877), (78, 0.501176), (255, 0.500095)],
    )
    def test_the_width_of_the_samples_is_that_of_edm(self, intervals: int, golden: float) -> None:
        """The last step, from the last level to the data, is the denoising at the end."""
        oracle = GaussianMap(mean=[0.0], std=[0.5], domain=EDM)
        noise = torch.ones(1, 1, 1, dtype=torch.float64)
        got = self.sampler(intervals).sample(oracle, noise).item()
        assert got == pytest.approx(golden, abs=2e-6)


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        (Dopri5(rtol=1e-10, atol=1e-10), DomainKind.DIAGONAL),
        (RungeKutta4(grid=UniformGrid(steps=200)), DomainKind.DIAGONAL),
        (Jumps(), DomainKind.TRIANGLE),
        (Jumps(grid=UniformGrid(steps=3)), DomainKind.TRIANGLE),
    ],
    ids=["Dopri5", "RungeKutta4", "1 jump", "3 jumps"],
)
def test_a_range_that_ends_early_is_left_by_one_denoising(
    sampler: AbstractSampler, kind: DomainKind
) -> None:
    oracle = GaussianMap(mean=[0.7], std=[0.5], domain=Domain(kind=kind, t_lo=0.1, t_hi=0.9))
    noise = torch.tensor([[[0.3]]], dtype=torch.float64)
    got = sampler.sample(oracle, noise)
    low, high = (torch.tensor([t], dtype=torch.float64) for t in (0.1, 0.9))
    x = oracle.jump(0.9 * noise[0], low, high)
    torch.testing.assert_close(got, x + 0.1 * oracle.velocity(x, high), atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    "sampler", [Jumps(grid=UniformGrid(steps=3)), Heun()], ids=["jumps", "ode"]
)
def test_the_denoising_counts_among_the_evaluations(sampler: AbstractSampler) -> None:
    net = ObservedMap(GaussianMap(mean=[0.7], std=[0.5], domain=EARLY))
    sampler.sample(net, torch.zeros(1, 4, 1, dtype=torch.float64))
    assert len(net.calls) == sampler.evaluations(EARLY) == (sampler.evaluations(Domain()) or 0) + 1


@pytest.mark.parametrize(
    ("sampler", "domain", "words"),
    [
        (Renoise(), TO_DATA_EARLY, r"reaches the data, got one that ends at t = 0\.9"),
        (
            AnchoredJumps(),
            TO_DATA_EARLY,
            r"AnchoredJumps needs .* reaches the data, got one that ends",
        ),
        (Renoise(), Domain(t_hi=0.9), r"reaches the data, got one that ends at t = 0\.9"),
        (Jumps(), TO_DATA_EARLY, r"1 jumps need a map trained from 0 to 0\.9"),
        (Jumps(), FROM_NOISE_EARLY, r"denoising at t = 0\.9 needs a map trained on the diagonal"),
    ],
)
def test_a_map_that_cannot_be_led_to_the_data_is_refused(
    sampler: AbstractSampler, domain: Domain, words: str
) -> None:
    net = ObservedMap(ORACLE, domain=domain)
    with pytest.raises(ValueError, match=words):
        sampler.sample(net, torch.zeros(sampler.draws, 4, 2, dtype=torch.float64))
    assert len(net.calls) == 0


BENT = Domain(path="trigonometric")


@pytest.mark.parametrize(
    ("sampler", "who"),
    [
        (Renoise(), "Renoise"),
        (GammaJumps(gamma=0.5), "renoising"),
        (DpmSolver(), "DpmSolver"),
        (AnchoredSteps(), "AnchoredSteps"),
        (AnchoredJumps(), "AnchoredJumps"),
        (Heun(coordinate=AngleCoordinate()), "AngleCoordinate"),
    ],
)
def test_what_goes_by_the_linear_path_refuses_a_map_of_another(
    sampler: AbstractSampler, who: str
) -> None:
    with pytest.raises(
        ValueError, match=f"{who} needs a map of the linear path, got one of the path trigonom"
    ):
        sampler.check(BENT)
    assert sampler_for(BENT, 2) == Jumps(grid=UniformGrid(steps=2))


@pytest.mark.parametrize(
    "sampler",
    [
        Renoise(grid=UniformGrid(steps=1)),
        GammaJumps(gamma=0.0),
        Jumps(grid=UniformGrid(steps=3)),
        RungeKutta4(grid=UniformGrid(steps=80)),
    ],
)
def test_what_mixes_no_noise_in_is_exact_on_any_path(sampler: AbstractSampler) -> None:
    oracle = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6], path=TrigonometricPath())
    noise = torch.tensor([[[0.3, -1.0]]], dtype=torch.float64)
    want = torch.tensor([[0.7 + 0.3 * 0.3, -0.2 - 0.6]], dtype=torch.float64)
    torch.testing.assert_close(sampler.sample(oracle, noise), want, atol=1e-8, rtol=0)


def test_the_jump_of_a_velocity_is_an_euler_step() -> None:
    field, x = Velocity(ORACLE), torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    s, t = torch.tensor([0.2], dtype=x.dtype), torch.tensor([0.9], dtype=x.dtype)
    want = x + 0.7 * ORACLE.velocity(x, s)
    torch.testing.assert_close(field.jump(x, s, t), want, atol=1e-12, rtol=0)


# Grids and coordinates.


@pytest.mark.parametrize(
    "grid", [UniformGrid(steps=5), KarrasGrid(steps=5), ListGrid(inner=(0.2, 0.3, 0.5, 0.9))]
)
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.01, 0.99)])
def test_a_grid_rises_from_the_first_to_the_last_time(
    grid: AbstractGrid, low: float, high: float
) -> None:
    times = grid.times(low, high)
    assert len(times) == grid.steps + 1 == 6
    assert (times[0], times[-1]) == (low, high)
    assert all(a < b for a, b in pairwise(times))


def test_the_karras_grid_has_the_times_of_the_paper() -> None:
    want = [
        *(0.012346, 0.017069, 0.023932, 0.034043, 0.049134, 0.071890, 0.106372, 0.158348),
        *(0.234917, 0.342075, 0.478888, 0.630776, 0.771342, 0.877565, 0.943443, 0.977580),
        *(0.992528, 0.998004),
    ]
    assert KarrasGrid(steps=17).times(EDM.t_lo, EDM.t_hi) == pytest.approx(want, abs=6e-7)


@pytest.mark.parametrize("coordinate", [TimeCoordinate(), SigmaCoordinate(), AngleCoordinate()])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.93])
def test_a_coordinate_follows_the_same_curve(coordinate: AbstractCoordinate, t: float) -> None:
    """Clock and time are inverse, and the slope is that of the rescaled trajectory."""
    assert coordinate.time(coordinate.clock(t)) == pytest.approx(t, abs=1e-12)
    x, h = torch.tensor([[0.4, -1.1]], dtype=torch.float64), 1e-6
    start = torch.tensor([t], dtype=torch.float64)
    ahead, behind = (ORACLE.jump(x, start, start + d) * coordinate.scale(t + d) for d in (h, -h))
    difference = (ahead - behind) / (coordinate.clock(t + h) - coordinate.clock(t - h))
    slope = coordinate.slope(x, t, ORACLE.velocity(x, start))
    torch.testing.assert_close(slope, difference, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: UniformGrid(steps=0), "at least 1 step, got 0"),
        (lambda: KarrasGrid(sigma_min=3.0, sigma_max=1.0), "0 < sigma_min < sigma_max"),
        (lambda: ListGrid(inner=(0.5, 0.5)), "rise strictly inside"),
        (lambda: ListGrid(inner=(0.05,)).times(0.1, 1.0), "inside the map's range"),
        (lambda: AngleCoordinate(sigma_data=0.0), "sigma_data > 0, got 0.0"),
    ],
)
def test_a_grid_or_coordinate_that_makes_no_sense_is_refused(build: type, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


# Noise to sample from.


def test_the_noise_of_a_sample_depends_on_its_number_alone() -> None:
    whole = draw_noise(6, (1, 4), seed=3, draws=2)
    assert whole.shape == (2, 6, 1, 4)
    assert torch.equal(draw_noise(2, (1, 4), seed=3, draws=2, start=4), whole[:, 4:])
    assert torch.equal(draw_noise(6, (1, 4), seed=3), whole[:1])
    assert not torch.equal(draw_noise(6, (1, 4), seed=4), whole[:1])


def test_the_noise_is_standard_normal_across_samples() -> None:
    noise = draw_noise(2000, (4,), seed=0)[0]
    assert (noise.mean(0).abs() <= 4.0 / 2000**0.5).all()
    assert ((noise.std(0) - 1.0).abs() <= 4.0 / 4000**0.5).all()
