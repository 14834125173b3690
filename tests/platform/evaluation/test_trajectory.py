"""Straightness and the semigroup error on maps where both are known."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap, Velocity
from onestep.methods.oracle import GaussianMap
from onestep.platform.evaluation.trajectory import allowed_triples, semigroup_error, straightness


def noise(n: int) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("std", "exact"), [(0.5, 0.214602), (0.6, 0.257522), (1.0, 0.429204), (2.0, 0.858407)]
)
def test_straightness_of_gaussian_data_matches_the_closed_form(std: float, exact: float) -> None:
    oracle = GaussianMap(mean=[0.0, 0.0], std=[std, std])
    x0 = noise(64)
    # Along each trajectory it is (2 - pi / 2) c x_0^2, so the law of x_0 adds no noise here.
    expected = exact * x0.square().mean(dim=1)
    found = straightness(oracle, x0, steps=512)
    assert torch.allclose(found, expected, rtol=0.02)


def test_straightness_of_optimally_paired_data_is_zero() -> None:
    oracle = GaussianMap(mean=[1.0, 1.0], std=[0.3, 0.3], rho=1.0)
    assert straightness(oracle, noise(32), steps=16).max() < 1e-12


def test_straightness_in_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 steps, got 1"):
        straightness(GaussianMap(mean=[0.0], std=[1.0]), noise(4)[:, :1], steps=1)


def test_straightness_without_a_velocity_is_refused() -> None:
    oracle = GaussianMap(mean=[0.0], std=[1.0], domain=Domain(kind=DomainKind.TO_DATA))
    with pytest.raises(ValueError, match="velocity"):
        straightness(oracle, noise(4)[:, :1])


@pytest.mark.parametrize(
    "domain", [Domain(), Domain(kind=DomainKind.GRID, steps=8), Domain(t_lo=0.1, t_hi=0.9)]
)
def test_an_exact_map_has_no_semigroup_error(domain: Domain) -> None:
    oracle = GaussianMap(mean=[1.0, -1.0], std=[0.4, 1.5], domain=domain)
    assert semigroup_error(oracle, noise(64)).max() < 1e-12


class Drifting(FlowMap):
    """u = t - s, whose jumps from s to t add (t - s)^2: two halves add half of the whole."""

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        del condition
        return (t - s)[:, None].expand_as(x)


def test_the_semigroup_error_of_an_inconsistent_map_matches_the_closed_form() -> None:
    domain = Domain(kind=DomainKind.GRID, steps=4)
    # (t - s)^2 - (t - m)^2 - (m - s)^2 at (0, 1/2, 1), (0, 1/4, 1/2) and (1/2, 3/4, 1).
    gaps = torch.tensor([0.5, 0.125, 0.125], dtype=torch.float64)
    found = semigroup_error(Drifting(domain=domain), noise(8))
    assert torch.allclose(found, gaps.square().mean().sqrt())


def test_a_dyadic_map_is_compared_on_its_own_grid_only() -> None:
    domain = Domain(kind=DomainKind.GRID, steps=2)
    assert allowed_triples(domain) == [(0.0, 0.5, 1.0)]
    assert len(allowed_triples(Domain())) == 6


@pytest.mark.parametrize("kind", [DomainKind.TO_DATA, DomainKind.FROM_NOISE, DomainKind.DIAGONAL])
def test_maps_whose_jumps_do_not_compose_are_refused(kind: DomainKind) -> None:
    oracle = GaussianMap(mean=[0.0, 0.0], std=[1.0, 1.0], domain=Domain(kind=kind))
    with pytest.raises(ValueError, match="cannot be composed"):
        semigroup_error(oracle, noise(4))


def test_an_euler_step_of_a_curved_velocity_does_not_compose() -> None:
    euler = Velocity(GaussianMap(mean=[0.0, 0.0], std=[0.3, 0.3]))
    euler.domain = Domain()
    assert semigroup_error(euler, noise(64)).mean() > 0.05
