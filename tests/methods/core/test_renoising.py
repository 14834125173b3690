"""What the errors of a map become when it is renoised, and when it is followed by jumps.

On N(0, std^2) a map that is too long by a share of the deviation stays linear, and so does every
sampler of it in its draws of noise: unit draws give the whole law. The table and the growth are
those of the recursion of such maps' variances.
"""

import math
from collections.abc import Callable
from typing import Final, final

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.gamma_sampler import GammaJumps
from onestep.methods.core.grid import AbstractGrid, KarrasGrid, ListGrid, UniformGrid
from onestep.methods.core.sampler import AbstractSampler, Jumps, Renoise
from onestep.methods.core.shape import rows_like
from onestep.methods.oracle import GaussianMap

Share = Callable[[Tensor, Tensor], Tensor]
TO_DATA: Final = Domain(kind=DomainKind.TO_DATA)
KARRAS: Final = Domain(kind=DomainKind.TO_DATA, t_lo=1.0 / 81.0)


@final
class TooLong(FlowMap):
    """The exact map of N(0, std^2), whose jumps from s to t are too long by a share e(s, t).

    Args:
        std: Standard deviation of the data.
        share: What a jump's end is too long by, of [b] starts and [b] ends.
        domain: Where the map is trained.
    """

    def __init__(self, std: float, share: Share, domain: Domain = TO_DATA) -> None:
        super().__init__(domain=domain)
        self.data, self.share = GaussianMap(mean=[0.0], std=[std]), share

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        end = rows_like(1.0 + self.share(s, t), x) * self.data.jump(x, s, t)
        return (end - x) / rows_like(t - s, x)


def width(sampler: AbstractSampler, flow_map: TooLong) -> float:
    """The samples' standard deviation less the data's."""
    noise = torch.eye(sampler.draws, dtype=torch.float64)[..., None]
    return sampler.sample(flow_map, noise).norm().item() - flow_map.data.std.item()


def constant(e: float) -> Share:
    return lambda s, t: torch.full_like(s, e)


def harder_at_noise(s: Tensor, t: Tensor) -> Tensor:
    return 0.01 + 0.2 * (1.0 - s) ** 4


def renoised(std: float, share: Share, grid: AbstractGrid, domain: Domain = TO_DATA) -> float:
    """Wasserstein distance of renoised samples to the data, for two normal laws of mean 0."""
    return abs(width(Renoise(grid=grid), TooLong(std, share, domain)))


@pytest.mark.parametrize(
    ("std", "e", "table"),
    [
        (0.5, 0.02, (0.010000, 0.012056, 0.018586, 0.029596, 0.048229, 0.136865)),
        (0.5, -0.02, (0.010000, 0.011944, 0.018107, 0.028103, 0.043908, 0.104064)),
        (1.0, 0.02, (0.020000, 0.030250, 0.048787, 0.081523, 0.138775, 0.433222)),
        (0.5, 0.0, (0.0,) * 6),
        (2.0, 0.0, (0.0,) * 6),
    ],
)
def test_renoising_adds_up_the_error_of_every_step(
    std: float, e: float, table: tuple[float, ...]
) -> None:
    found = [renoised(std, constant(e), UniformGrid(steps=n)) for n in (1, 2, 4, 8, 16, 64)]
    assert found == pytest.approx(table, abs=1e-6)


def test_drawn_samples_have_the_width_of_the_table() -> None:
    noise = torch.randn(4, 1_000_000, 1, generator=torch.Generator().manual_seed(5))
    sampler = Renoise(grid=UniformGrid(steps=4))
    drawn = sampler.sample(TooLong(1.0, constant(0.02)), noise.double())
    assert drawn.std().item() - 1.0 == pytest.approx(0.048787, abs=2e-3)


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_small_errors_grow_with_the_steps_as_far_as_they_fade_towards_the_data(power: int) -> None:
    """Errors e (1 - s)^p end at e std G((p + 1) / 3) / 3 (3 std^2)^((p + 1) / 3) N^((2 - p) / 3).

    They grow for p < 2, stand still for p = 2 and decay above; the last assertion is of the power.
    """
    e, std = 1e-7, 0.5

    def share(s: Tensor, t: Tensor) -> Tensor:
        return e * (1.0 - s) ** power

    third = (power + 1.0) / 3.0
    scale = e * std * math.gamma(third) / 3.0 * (3.0 * std**2) ** third
    coarse, fine = (
        renoised(std, share, UniformGrid(steps=n)) / (scale * n ** ((2.0 - power) / 3.0))
        for n in (128, 512)
    )
    assert 0.75 < coarse < fine < 1.0
    assert math.log(fine / coarse, 4.0) < 0.06


def test_jumps_that_are_too_short_end_in_a_point_and_too_long_ones_in_no_law_at_all() -> None:
    grids = [UniformGrid(steps=n) for n in (16, 64, 256, 512)]
    short = [0.5 + width(Renoise(grid=g), TooLong(0.5, constant(-0.02))) for g in grids]
    assert short == sorted(short, reverse=True)
    assert 0.0 < short[-1] < 0.25
    assert renoised(0.5, constant(0.02), grids[-1]) > 0.9


def test_a_map_that_is_worse_at_noise_is_best_renoised_a_few_times() -> None:
    table = {1: 0.10500, 2: 0.03445, 3: 0.02262, 4: 0.01925, 6: 0.01816, 8: 0.01911, 16: 0.02595}
    table |= {64: 0.06469, 256: 0.18730}
    found = {n: renoised(0.5, harder_at_noise, UniformGrid(steps=n)) for n in table}
    assert found == pytest.approx(table, abs=6e-6)
    assert min(found, key=lambda n: found[n]) == 6
    times = [k / 100 for k in range(1, 100)]
    best = min(times, key=lambda t: renoised(0.5, harder_at_noise, ListGrid(inner=(t,))))
    assert best == 0.4
    assert renoised(0.5, harder_at_noise, ListGrid(inner=(best,))) == pytest.approx(
        0.02984, abs=6e-6
    )


def test_a_karras_grid_adds_up_more_than_a_uniform_one() -> None:
    found = [renoised(0.5, constant(0.02), KarrasGrid(steps=n), KARRAS) for n in (2, 4, 8, 16, 64)]
    assert found == pytest.approx([0.010391, 0.019514, 0.032588, 0.059029, 0.219212], abs=1e-6)


@pytest.mark.parametrize("inner", [(0.1,), (0.9, 0.95), (0.01, 0.5, 0.99)])
def test_the_exact_map_is_exact_in_law_on_any_grid(inner: tuple[float, ...]) -> None:
    assert renoised(0.5, constant(0.0), ListGrid(inner=inner)) < 1e-14


# The contrast: jumps of a map whose error vanishes with their length.


def by_length(s: Tensor, t: Tensor) -> Tensor:
    return 0.02 * (t - s)


@pytest.mark.parametrize(
    ("steps", "want"), [(1, 0.010000), (2, 0.010050), (16, 0.010094), (256, 0.010100)]
)
def test_jumps_keep_an_error_that_vanishes_with_their_length(steps: int, want: float) -> None:
    wrong = TooLong(0.5, by_length, Domain())
    assert width(Jumps(grid=UniformGrid(steps=steps)), wrong) == pytest.approx(want, abs=1e-6)


def test_fresh_noise_first_forgets_errors_and_then_adds_them_up() -> None:
    """For one map at 64 steps: a gamma between beats both the chain and renoising."""
    wrong = TooLong(0.5, by_length, Domain())
    grid = UniformGrid(steps=64)
    found = [width(GammaJumps(grid=grid, gamma=g), wrong) for g in (0.0, 0.3, 0.6, 0.9, 1.0)]
    assert 0.0 < min(found) < found[0] < found[-1]
