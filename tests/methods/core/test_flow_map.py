"""Domains say where a map was trained; velocity and jump follow from the average velocity."""

import pytest
import torch

from onestep.methods.core.flow_map import Domain, DomainKind, Velocity
from onestep.methods.core.path import TrigonometricPath
from onestep.methods.oracle import GaussianMap

ORACLE = GaussianMap(mean=[0.7, -0.2], std=[0.5, 1.4])


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (Domain(kind=DomainKind.DIAGONAL), [(0.3, 0.3), (1, 1)], [(0.3, 0.4)]),
        (Domain(kind=DomainKind.TO_DATA), [(0.3, 1), (0, 1)], [(0.3, 0.9), (0, 0)]),
        (Domain(kind=DomainKind.FROM_NOISE), [(0, 1), (0, 0.4)], [(0.1, 1)]),
        (Domain(kind=DomainKind.FROM_NOISE, t_lo=0.1), [(0.1, 1)], [(0, 1), (0.2, 1)]),
        (Domain(), [(0, 1), (0.2, 0.7), (0.5, 0.5)], [(0.7, 0.2), (0.5, 1.1), (-0.1, 0.5)]),
        (
            Domain(kind=DomainKind.GRID, steps=4),
            [(0, 1), (0.5, 1), (0.25, 0.5), (0.3, 0.3)],
            [(0.25, 0.75), (0, 0.125), (0, 0.75), (0.3, 0.8)],
        ),
        (
            Domain(kind=DomainKind.TILING, steps=3),
            [(0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)],
            [(0, 1), (0, 2 / 3), (0.1, 0.1 + 1 / 3), (0.3, 0.3), (0, 1 / 6), (1, 4 / 3)],
        ),
        (
            Domain(t_lo=0.1, t_hi=0.9),
            [(0.1, 0.9), (0.1 - 1e-8, 0.9 + 1e-8), (0.9, 0.9)],
            [(0, 0.9), (0.1, 1), (0.09, 0.5), (0.5, 0.91), (0, 0), (1, 1)],
        ),
        (Domain(kind=DomainKind.TO_DATA, t_lo=0.1), [(0.1, 1)], [(0, 1)]),
        (
            Domain(kind=DomainKind.DIAGONAL, t_lo=0.1, t_hi=0.9),
            [(0.1, 0.1), (0.3, 0.3)],
            [(0, 0), (0.95, 0.95)],
        ),
    ],
    ids=lambda value: str(value.kind) if isinstance(value, Domain) else None,
)
def test_a_domain_admits_the_jumps_it_was_trained_on(
    domain: Domain, inside: list[tuple[float, float]], outside: list[tuple[float, float]]
) -> None:
    assert all(domain.admits(s, t) for s, t in inside)
    assert not any(domain.admits(s, t) for s, t in outside)
    assert domain.has_velocity == domain.admits(0.3, 0.3)


SOME = (
    Domain(),
    Domain(t_lo=0.25, t_hi=0.75),
    Domain(kind=DomainKind.DIAGONAL),
    Domain(kind=DomainKind.DIAGONAL, t_lo=0.25, t_hi=0.75),
    Domain(kind=DomainKind.TO_DATA),
    Domain(kind=DomainKind.TO_DATA, t_lo=0.25),
    Domain(kind=DomainKind.FROM_NOISE),
    Domain(kind=DomainKind.FROM_NOISE, t_lo=0.25),
    *(Domain(kind=DomainKind.GRID, steps=steps) for steps in (1, 2, 8)),
    *(Domain(kind=DomainKind.TILING, steps=steps) for steps in (1, 2, 3, 6, 8)),
    *(Domain(kind=DomainKind.TILING, steps=steps, t_lo=0.25) for steps in (1, 3)),
    Domain(kind=DomainKind.TILING, steps=2, t_lo=0.25, t_hi=0.75),
)


@pytest.mark.parametrize("other", SOME, ids=lambda domain: domain.words)
@pytest.mark.parametrize("domain", SOME, ids=lambda domain: domain.words)
def test_a_domain_includes_another_where_it_admits_all_its_jumps(
    domain: Domain, other: Domain
) -> None:
    """All jumps between the multiples of 1 / 48, among which are those of every domain here."""
    times = [k / 48 for k in range(49)]
    jumps = [(s, t) for s in times for t in times if other.admits(s, t)]
    assert domain.includes(other) == all(domain.admits(s, t) for s, t in jumps)


def test_a_domain_survives_a_registry() -> None:
    for domain in (
        Domain(),
        Domain(kind=DomainKind.GRID, steps=16),
        Domain(kind=DomainKind.TILING, steps=3),
        Domain(kind=DomainKind.TO_DATA, t_lo=0.1),
        Domain(kind=DomainKind.DIAGONAL, is_straight=True),
        Domain(path="trigonometric"),
    ):
        values = domain.to_dict()
        assert type(values["kind"]) is str
        assert Domain.from_dict(values) == domain


def test_a_domain_of_a_record_without_a_path_is_linear() -> None:
    values = Domain().to_dict()
    del values["path"]
    assert Domain.from_dict(values) == Domain()


def test_a_velocity_is_of_the_path_of_its_network() -> None:
    bent = GaussianMap(mean=[0.7], std=[0.5], path=TrigonometricPath())
    assert Velocity(bent).domain.path == bent.domain.path == "trigonometric"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"t_lo": 0.5, "t_hi": 0.5}, "0 <= t_lo < t_hi <= 1, got 0.5 and 0.5"),
        ({"t_hi": 1.5}, "got 0.0 and 1.5"),
        ({"kind": DomainKind.GRID, "steps": 12}, "power of two"),
        ({"kind": DomainKind.GRID}, "power of two"),
        ({"kind": DomainKind.TILING}, "at least 1 for kind tiling"),
        ({"steps": 8}, "0 otherwise, got 8 for triangle"),
        ({"is_straight": True}, "only a domain of kind diagonal can be straight, got triangle"),
        (
            {"kind": DomainKind.DIAGONAL, "is_straight": True, "path": "bent"},
            "only a domain of the linear path can be straight, got bent",
        ),
    ],
)
def test_a_domain_that_makes_no_sense_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Domain(**values)  # type: ignore[arg-type]


def test_a_jump_adds_the_average_velocity_over_the_interval() -> None:
    x = torch.tensor([[0.3, -1.0], [0.1, 0.2]], dtype=torch.float64)
    s, t = torch.tensor([0.1, 0.5]).double(), torch.tensor([0.9, 0.5]).double()
    want = x + (t - s)[:, None] * ORACLE(x, s, t)
    assert torch.equal(ORACLE.jump(x, s, t), want)
    assert torch.equal(ORACLE.jump(x, s, t)[1], x[1])
    assert torch.equal(ORACLE.velocity(x, s), ORACLE(x, s, s))


def test_a_velocity_ignores_the_end_time_and_keeps_the_range() -> None:
    field = Velocity(GaussianMap(mean=[0.0], std=1.0, domain=Domain(t_lo=0.1, t_hi=0.9)))
    x, s = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    assert torch.equal(field(x, s, s + 0.4), field.velocity(x, s))
    assert field.domain == Domain(kind=DomainKind.DIAGONAL, t_lo=0.1, t_hi=0.9)
