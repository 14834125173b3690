"""The sampler of consistency functions that keeps to its noise: where it is exact, where not."""

import math

import pytest
import torch
from torch import Tensor

from onestep.methods.consistency_distillation import ConsistencyDistillation
from onestep.methods.consistency_training import ConsistencyTraining
from onestep.methods.continuous_consistency import ContinuousConsistency
from onestep.methods.core.coupling import IndependentCoupling, MinibatchOTCoupling, StoredPairs
from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.global_ot import GlobalOTCoupling
from onestep.methods.core.grid import ListGrid, UniformGrid
from onestep.methods.core.loom import Loom
from onestep.methods.core.method import AbstractMethod
from onestep.methods.core.noise import draw_noise
from onestep.methods.core.sampler import AbstractSampler, AnchoredJumps, Renoise
from onestep.methods.easy_consistency_tuning import EasyConsistencyTuning
from onestep.methods.improved_consistency_training import ImprovedConsistencyTraining
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.core.contract import SamplerContract
from onestep.tests.methods.observed import ObservedMap

PAIRED = Domain(kind=DomainKind.TO_DATA, t_lo=0.05, has_paired_noise=True)
STRAIGHT = GaussianMap(mean=[0.7], std=[0.5], rho=1.0)
"""Its noise is paired with the data by optimal transport: each noise has one datum."""
CURVED = GaussianMap(mean=[0.7], std=[0.5])
UNIT = torch.eye(4, dtype=torch.float64)[..., None]


def width(sampler: AbstractSampler, flow_map: GaussianMap) -> float:
    """The samples' standard deviation: the map and its samplers are linear in the noise."""
    x = sampler.sample(flow_map, UNIT[: sampler.draws, : sampler.draws])
    start = sampler.sample(flow_map, torch.zeros_like(UNIT[: sampler.draws, :1]))
    return (x - start).norm().item()


class TestAnchoredJumps(SamplerContract):
    refused = (
        Domain(kind=DomainKind.DIAGONAL),
        Domain(kind=DomainKind.FROM_NOISE),
        Domain(kind=DomainKind.GRID, steps=8),
    )
    accepted = PAIRED

    def sampler(self, steps: int) -> AbstractSampler:
        return AnchoredJumps(grid=UniformGrid(steps=steps))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_with_noise_paired_by_transport_each_noise_leads_to_its_own_datum(steps: int) -> None:
    noise = torch.linspace(-2.0, 2.0, 32, dtype=torch.float64).reshape(1, 32, 1)
    found = AnchoredJumps(grid=UniformGrid(steps=steps)).sample(STRAIGHT, noise)
    torch.testing.assert_close(found, 0.7 + 0.5 * noise[0], atol=1e-12, rtol=0.0)


def test_fresh_noise_makes_the_samples_of_paired_noise_too_narrow() -> None:
    """The state at 1/2 has the deviation sqrt(2) (1 + .5) / 4 in place of (1 + .5) / 2."""
    grid = UniformGrid(steps=2)
    found = width(Renoise(grid=grid), STRAIGHT)
    assert found == pytest.approx(0.5 * math.hypot(0.5, 0.5 * 0.5) / 0.75, abs=1e-12)
    assert found < 0.4
    assert width(AnchoredJumps(grid=grid), STRAIGHT) == pytest.approx(0.5, abs=1e-12)


def test_noise_kept_makes_the_samples_of_independent_noise_too_wide() -> None:
    grid = UniformGrid(steps=2)
    assert width(AnchoredJumps(grid=grid), CURVED) > 0.6
    assert width(Renoise(grid=grid), CURVED) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.8])
def test_two_steps_are_exact_with_the_correlation_of_the_coupling_and_with_no_other(
    rho: float,
) -> None:
    oracle, grid = GaussianMap(mean=[0.7], std=[0.5], rho=rho), UniformGrid(steps=2)
    found = width(AnchoredJumps(grid=grid, correlation=rho), oracle)
    assert found == pytest.approx(0.5, abs=1e-12)
    assert width(AnchoredJumps(grid=grid), oracle) > 0.5 * (1.0 + 0.15 * (1.0 - rho))
    if rho:
        assert width(Renoise(grid=grid), oracle) < 0.5 * (1.0 - 0.15 * rho)


def test_without_correlation_noise_is_renewed_as_in_renoise() -> None:
    grid = UniformGrid(steps=3)
    noise = draw_noise(5, (1,), seed=0, draws=3).double()
    found = AnchoredJumps(grid=grid, correlation=0.0).sample(CURVED, noise)
    torch.testing.assert_close(found, Renoise(grid=grid).sample(CURVED, noise), atol=0.0, rtol=0.0)


@pytest.mark.parametrize("correlation", [-0.1, 1.1, float("nan")])
def test_a_correlation_out_of_range_is_refused(correlation: float) -> None:
    with pytest.raises(ValueError, match=r"^correlation must lie in \[0, 1\], got"):
        AnchoredJumps(correlation=correlation)


def test_each_state_lies_between_the_first_noise_and_the_last_result() -> None:
    net = ObservedMap(CURVED, domain=PAIRED)
    x0 = UNIT[0]
    found = AnchoredJumps(grid=ListGrid(inner=(0.3,))).sample(net, x0[None])

    def jump(x: Tensor, s: float) -> Tensor:
        return CURVED.jump(x, torch.full_like(x[:, 0], s), torch.ones_like(x[:, 0]))

    first = jump(0.95 * x0, 0.05)
    torch.testing.assert_close(found, jump(0.7 * x0 + 0.3 * first, 0.3), atol=1e-12, rtol=0.0)
    assert len(net.calls) == 2


@pytest.mark.parametrize(
    "method",
    [
        ConsistencyTraining,
        ImprovedConsistencyTraining,
        EasyConsistencyTuning,
        ContinuousConsistency,
        ConsistencyDistillation,
    ],
)
def test_a_consistency_function_says_whether_its_noise_was_paired(
    method: type[AbstractMethod],
) -> None:
    for coupling in (MinibatchOTCoupling(), GlobalOTCoupling(), Loom(), StoredPairs()):
        assert method(coupling=coupling).domain.has_paired_noise
    assert not method(coupling=IndependentCoupling()).domain.has_paired_noise
