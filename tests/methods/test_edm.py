"""EDM: its weight in either form, its floor, its range, and students that it teaches."""

from pathlib import Path

import pytest
import torch
from scipy import stats

from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.grid import KarrasGrid
from onestep.methods.core.ode import Euler
from onestep.methods.core.record import Batch, Loss, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.time_law import LogitNormal
from onestep.methods.core.times import DiagonalTimes
from onestep.methods.core.weighting import DenoiserWeighting, Unweighted
from onestep.methods.edm import EDM
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.nets.preconditioning import Preconditioned
from onestep.methods.oracle import GaussianMap
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.experiment import PairGeneration
from onestep.platform.training.pair_generation import generate_pairs
from onestep.tests.methods.contract import Exact, MethodContract, SmallMap
from onestep.tests.methods.core.contract import LEAST_P
from onestep.tests.methods.exactness import ORACLE, WRONG
from onestep.tests.methods.teaching import distilled, moment, on, pairs


class TestEDM(MethodContract):
    exactness = Exact()

    @pytest.fixture
    def method(self) -> EDM:
        return EDM()


PAPER = EDM()


def loss(flow_map: FlowMap, batch: Batch, method: EDM | FlowMatching = PAPER) -> Loss:
    return method.loss(Nets(online=flow_map), batch, moment(len(batch)))


def net() -> SmallMap:
    torch.manual_seed(0)
    return SmallMap(shape=(2,), domain=Domain()).double()


@pytest.mark.parametrize("sigma_data", [0.5, 0.8])
def test_the_loss_is_that_of_the_denoiser_in_its_own_terms(sigma_data: float) -> None:
    """D(y, sigma) with the paper's factors around a network F, and the paper's weight."""
    inner, batch = net(), pairs(64)
    wrapped = Preconditioned(
        shape=(2,), domain=Domain(), net=lambda **_: inner, sigma_data=sigma_data
    )
    method = EDM(weighting=DenoiserWeighting(sigma_data=sigma_data))
    found = loss(wrapped, batch, method)
    assert found.times is not None
    sigma = ((1.0 - found.times) / found.times)[:, None]
    y = batch.x1 + sigma * batch.noise
    total = sigma**2 + sigma_data**2
    raw = inner.velocity(y / total.sqrt(), found.times)
    denoised = sigma_data**2 / total * y + sigma * sigma_data / total.sqrt() * raw
    weight = total / (sigma * sigma_data) ** 2
    want = (weight * (denoised - batch.x1) ** 2).sum(1)
    torch.testing.assert_close(found.total, want, atol=1e-10, rtol=1e-10)
    other = loss(wrapped, batch, EDM(weighting=Unweighted()))
    assert (other.total - want).abs().max() > 0.1


def test_it_is_flow_matching_that_looks_elsewhere() -> None:
    same = FlowMatching(
        times=DiagonalTimes(law=LogitNormal(mean=1.2, std=1.2)), weighting=DenoiserWeighting()
    )
    assert torch.equal(loss(net(), pairs(64)).total, loss(net(), pairs(64), same).total)


def test_the_noise_levels_have_the_law_of_the_paper() -> None:
    times = loss(net(), pairs(8192)).times
    assert times is not None
    log_level = torch.log((1.0 - times) / times).numpy()
    assert stats.kstest(log_level, stats.norm(-1.2, 1.2).cdf).pvalue > LEAST_P
    assert stats.kstest(log_level, stats.norm(-1.1, 1.2).cdf).pvalue < LEAST_P


@pytest.mark.parametrize(("std", "floor"), [(0.5, 1.0), (1.0, None)])
def test_data_of_the_declared_width_leave_a_loss_of_one_in_each_coordinate(
    std: float, floor: float | None
) -> None:
    """200 000 pairs, 4 standard errors; the weight is that of another width in the control."""
    data = GaussianMap(mean=[0.0, 0.0], std=std)
    found = loss(data, pairs(200_000, data)).total.detach()
    away = abs(found.mean().item() - 2.0) / (found.std().item() / len(found) ** 0.5)
    assert away <= 4.0 if floor is not None else away >= 20.0


def test_a_new_preconditioned_network_starts_at_that_floor() -> None:
    """A network of zeros, against the oracle on the same pairs."""
    data = GaussianMap(mean=[0.0, 0.0], std=0.5)
    inner = net()
    torch.nn.init.zeros_(inner.last.weight)
    torch.nn.init.zeros_(inner.last.bias)
    new = Preconditioned(shape=(2,), domain=Domain(), net=lambda **_: inner)
    batch = pairs(64, data)
    torch.testing.assert_close(loss(new, batch).total, loss(data, batch).total)


def test_single_precision_keeps_the_velocity_that_the_denoiser_loses() -> None:
    """At the paper's least noise level; (D - x) / (1 - t) has lost three digits there."""
    inner = net()
    wrapped = Preconditioned(shape=(2,), domain=Domain(), net=lambda **_: inner)
    x, t = pairs(256).x1, torch.full((256,), EDM().domain.t_hi, dtype=torch.float64)
    want = wrapped.velocity(x, t)
    kept = wrapped.float().velocity(x.float(), t.float())
    sigma, y = ((1.0 - t) / t).float()[:, None], x.float() / t.float()[:, None]
    total = sigma**2 + 0.25
    raw = inner.velocity(y / total.sqrt(), t.float())
    denoised = 0.25 / total * y + 0.5 * sigma / total.sqrt() * raw
    lost = (denoised - x.float()) / (1.0 - t.float())[:, None]
    assert (kept - want).abs().max() < 2e-6
    assert (lost - want).abs().max() > 1e-5


# The range.


@pytest.mark.parametrize(
    ("method", "t_lo", "t_hi"),
    [
        (EDM(), 0.012346, 0.998004),
        (EDM(sigma_min=0.0), 0.012346, 1.0),
        (EDM(sigma_max=None), 0.0, 0.998004),
    ],
    ids=["paper", "to the data", "from pure noise"],
)
def test_the_range_is_that_of_the_noise_levels(method: EDM, t_lo: float, t_hi: float) -> None:
    assert (method.domain.t_lo, method.domain.t_hi) == pytest.approx((t_lo, t_hi), abs=6e-7)


@pytest.mark.parametrize("levels", [(-0.1, 80.0), (80.0, 80.0)])
def test_noise_levels_out_of_order_are_refused(levels: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=f"sigma_min < sigma_max, got {levels[0]} and 80.0"):
        EDM(sigma_min=levels[0], sigma_max=levels[1])


def test_one_step_from_the_noise_is_the_mean_of_the_data() -> None:
    """The posterior mean at sigma_max: never a one-step generator."""
    data = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6], domain=EDM(sigma_min=0.0).domain)
    noise = Rng.seeded(3).normal(1, 64, 2, dtype=torch.float64)
    found = Euler(grid=KarrasGrid(steps=1)).sample(data, noise)
    torch.testing.assert_close(found, data.mean.expand(64, 2), atol=0.03, rtol=0.0)


# Students.


def test_it_teaches_a_consistency_model() -> None:
    teacher = EDM(sigma_min=0.0).domain
    assert distilled(on(teacher)).max() <= 1e-9
    assert distilled(on(teacher, WRONG)).mean() > 1e-7
    assert torch.equal(distilled(on(teacher)), distilled(ORACLE))


@pytest.mark.parametrize(
    "teacher", [EDM(), EDM(sigma_min=0.0, sigma_max=20.0)], ids=["before the data", "after 80"]
)
def test_a_teacher_whose_levels_do_not_reach_the_students_is_refused(teacher: EDM) -> None:
    with pytest.raises(
        ValueError, match=r"asks its teacher for domain diagonal on \[0\.0123457, 1\]"
    ):
        distilled(on(teacher.domain))


@pytest.mark.parametrize("method", [EDM(), EDM(sigma_min=0.0)], ids=["paper", "to the data"])
def test_it_makes_the_pairs_of_reflow(method: EDM, tmp_path: Path) -> None:
    """From its own first level, where leaving out the data moves a pair by 1 / 81 of them."""
    dataset = EightGaussians(samples=128, held_out=64).load()
    settings = PairGeneration(count=64, steps=400, real=False)
    made = generate_pairs(on(method.domain), dataset, settings, tmp_path, lineage={}).generated
    want = ORACLE.mean.float() + ORACLE.std.float() * made.x0
    torch.testing.assert_close(made.x1, want, atol=0.02, rtol=0.0)


def test_it_cannot_take_data_back_to_pure_noise(tmp_path: Path) -> None:
    dataset = EightGaussians(samples=128, held_out=64).load()
    settings = PairGeneration(count=8, steps=4, real=True)
    with pytest.raises(ValueError, match=r"inversion needs a map on \[0, 1\], got one on \[0\.01"):
        generate_pairs(on(EDM().domain), dataset, settings, tmp_path, lineage={})
