"""Coverage: which laws of times a rule can learn from, and the domain of a map that they train."""

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from .coupling import AbstractCoupling
from .flow_map import Domain, DomainKind
from .path import AbstractPath
from .times import AbstractTimes

STARTS_MOVE: Final = frozenset({DomainKind.DIAGONAL, DomainKind.TO_DATA, DomainKind.TRIANGLE})
"""For Eulerian rules: a jump is compared with one that starts a little later and ends there too."""
ENDS_MOVE: Final = frozenset({DomainKind.DIAGONAL, DomainKind.FROM_NOISE, DomainKind.TRIANGLE})
"""For Lagrangian rules: a jump is compared with one that ends a little later and starts there."""
BOTH_MOVE: Final = STARTS_MOVE & ENDS_MOVE
"""For rules that read the map's own velocity, or parts of a jump."""
ANY: Final = frozenset(DomainKind)
"""For rules that take the jump itself from elsewhere."""


def require_coverage(rule: str, times: AbstractTimes, kinds: Collection[DomainKind]) -> None:
    """Refuse a law of times by which a rule would read jumps of the map that nothing trains.

    Args:
        rule: What learns from them.
        times: Law of (s, t).
        kinds: Kinds of domain that it can learn.

    Raises:
        ValueError: If the law covers none of these.
    """
    covers = times.covers
    if covers is None or covers.kind not in kinds:
        allowed = ", ".join(kind for kind in DomainKind if kind in kinds)
        found = "no domain" if covers is None else covers.kind
        raise ValueError(
            f"{rule} learns the jumps of a law of times that covers one of {allowed}: "
            f"got method.times {type(times).__name__}, which covers {found}"
        )


def trained_domain(
    times: AbstractTimes, *, path: AbstractPath, coupling: AbstractCoupling
) -> Domain:
    """Domain of a map that is trained on the jumps of a law, as far as the velocity is finite.

    Args:
        times: Law of (s, t), which has been found to cover a domain.
        path: Interpolant between noise and data.
        coupling: How noise is paired with data.
    """
    covers = times.covers
    assert covers is not None, "a law that covers nothing is refused at construction"
    ends_freely = covers.kind not in (DomainKind.TO_DATA, DomainKind.TILING, DomainKind.GRID)
    return replace(
        covers,
        t_hi=path.t_hi if ends_freely else covers.t_hi,
        path=path.name,
        has_paired_noise=coupling.is_paired,
    )
