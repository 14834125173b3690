"""Probes give exact maps what they deserve, and ask no map what it was not trained for."""

import math

import pytest
import torch
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.oracle import GaussianMap
from onestep.platform.training.probe import (
    PROBES,
    ROWS,
    Composition,
    Ground,
    Samples,
    Tangent,
    ask_all,
    draws_of,
    probes_of,
)

STD = 0.6


class Shift(FlowMap):
    """Moves every state by the same velocity, of which a label asks for more."""

    def __init__(self, velocity: float, *, domain: Domain | None = None) -> None:
        super().__init__(domain=domain or Domain())
        self.speed = velocity

    def forward(
        self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None = None
    ) -> Tensor:
        del s, t
        if condition is None or condition.label is None:
            return torch.full_like(x, self.speed)
        return self.speed * condition.label[:, None].expand_as(x).to(x)


def ground(*, draws: int = 1, condition: Condition | None = None, mean: float = 0.5) -> Ground:
    rng = torch.Generator().manual_seed(4)
    data = mean + STD * torch.randn(ROWS, 3, generator=rng, dtype=torch.float64)
    return Ground.of(data, condition, draws=draws, seed=2)


def asked(flow_map: FlowMap, on: Ground) -> dict[str, float]:
    return ask_all(probes_of(flow_map.domain), flow_map, on)


def test_an_exact_map_is_near_the_data_and_composes() -> None:
    found = asked(GaussianMap(mean=[0.5] * 3, std=[STD] * 3).double(), ground())
    assert abs(found["one_step"]) < 0.03
    assert abs(found["many_steps"] - found["one_step"]) < 1e-9
    assert found["composition"] < 1e-9
    assert found["motion"] == pytest.approx((1.0 - STD) / STD, rel=0.1)
    assert found["width"] == pytest.approx(1.0, rel=0.1)


def test_a_point_in_the_middle_of_the_data_is_one_away() -> None:
    on = ground()
    middle = on.data.mean(0, keepdim=True).expand_as(on.data)
    assert on.apart(middle, on.data) == pytest.approx(1.0)
    assert asked(Shift(0.0), on)["noise"] == pytest.approx(on.apart(on.noise[0], on.data))


def test_a_map_that_shifts_all_noise_does_not_move_it() -> None:
    found = asked(Shift(3.0), ground())
    assert found["motion"] < 1e-12
    assert found["one_step"] > 1.0


def test_the_tangent_of_a_map_that_does_nothing_is_the_speed_of_its_start() -> None:
    on = ground()
    found = Tangent().ask(Shift(0.0), on)
    speed = (on.data[:64] - on.noise[0, :64]).square().mean(1).sqrt() / on.spread
    low, high = torch.quantile(speed, speed.new_tensor([0.5, 0.95])).tolist()
    assert found["tangent"] == pytest.approx(low, rel=1e-6)
    assert found["tangent_95"] == pytest.approx(high, rel=1e-6)


def test_the_tangent_sees_a_network_that_is_rough_in_time() -> None:
    class Rough(FlowMap):
        def forward(
            self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None = None
        ) -> Tensor:
            del t, condition
            return torch.sin(1e4 * s)[:, None].expand_as(x)

    assert Tangent().ask(Rough(domain=Domain()), ground())["tangent"] > 20.0


def test_each_sample_is_asked_for_under_the_condition_of_its_datum() -> None:
    label = torch.arange(ROWS) % 2
    on = ground(condition=Condition(label=label), mean=0.0)
    noise = on.noise[0]
    expected = on.apart(noise + 4.0 * label[:, None], on.data)
    assert Samples().ask(Shift(4.0), on)["one_step"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("domain", "names"),
    [
        (Domain(kind=DomainKind.DIAGONAL), {"many_steps", "motion", "noise", "width"}),
        (
            Domain(kind=DomainKind.DIAGONAL, is_straight=True),
            {"one_step", "many_steps", "gap", "motion", "noise", "width"},
        ),
        (Domain(kind=DomainKind.FROM_NOISE), {"one_step", "motion", "noise", "width"}),
        (
            Domain(kind=DomainKind.TO_DATA),
            {"one_step", "many_steps", "gap", "motion", "noise", "tangent", "tangent_95"},
        ),
        (
            Domain(kind=DomainKind.GRID, steps=8),
            {"one_step", "many_steps", "gap", "motion", "composition"},
        ),
        (Domain(kind=DomainKind.TILING, steps=4), {"many_steps", "motion", "noise", "width"}),
        (Domain(kind=DomainKind.TRIANGLE, path="trigonometric"), {"composition"}),
    ],
    ids=lambda value: str(value.kind) if isinstance(value, Domain) else "",
)
def test_a_map_is_asked_what_it_was_trained_for(domain: Domain, names: set[str]) -> None:
    on = ground(draws=draws_of(domain))
    found = asked(Shift(0.1, domain=domain), on)
    assert names <= set(found)
    assert ("composition" in found) is ("composition" in names)
    assert ("tangent" in found) is ("tangent" in names)
    assert ("one_step" in found) is ("one_step" in names or domain.kind is DomainKind.TRIANGLE)


def test_every_probe_serves_some_domain_and_says_so() -> None:
    triangle = Domain()
    assert probes_of(triangle) == PROBES
    assert not Composition().applies(Domain(kind=DomainKind.TO_DATA))
    assert not Tangent().applies(Domain(kind=DomainKind.FROM_NOISE))


def test_a_broken_map_gives_numbers_that_say_so() -> None:
    found = asked(Shift(math.nan), ground())
    assert {name for name, value in found.items() if not math.isnan(value)} == {"noise"}


def test_data_that_do_not_vary_are_refused() -> None:
    with pytest.raises(ValueError, match="data that vary, got one point"):
        Ground.of(torch.ones(8, 2), None, draws=1, seed=0)
