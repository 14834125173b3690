"""Properties of a map by itself: are its trajectories straight, and do its jumps compose?"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from ...methods.core.condition import Condition
from ...methods.core.flow_map import Domain, DomainKind, FlowMap
from ...methods.core.sampler import times_like

STRAIGHTNESS: Final = "eval/straightness"
SEMIGROUP_ERROR: Final = "eval/semigroup_error"
TRIPLES: Final = (
    (0.0, 0.5, 1.0),
    (0.0, 0.25, 0.5),
    (0.5, 0.75, 1.0),
    (0.0, 0.25, 1.0),
    (0.0, 0.75, 1.0),
    (0.25, 0.5, 1.0),
)
"""Start, middle and end, as shares of the trained times; a dyadic map admits the first three."""


def is_measured(name: str, domain: Domain) -> bool:
    """Whether maps of a domain have a number: all but those of this file every map has.

    Args:
        name: The number.
        domain: The domain.
    """
    if name == STRAIGHTNESS:
        return domain.has_velocity
    return name != SEMIGROUP_ERROR or bool(allowed_triples(domain))


def straightness(
    flow_map: FlowMap,
    noise: Float[Tensor, " b *d"],
    condition: Condition | None = None,
    *,
    steps: int = 32,
) -> Float[Tensor, " b"]:
    """Mean squared gap between the velocity along a trajectory and its chord, per coordinate.

        S = 1/N sum_i |v(x_i, t_i) - (x_N - x_0)|^2 / d   on an Euler grid of N steps

    It is 0 for straight trajectories, on which one Euler step is exact.

    Reference: Liu et al. 2022, arXiv:2209.03003v1, section 3.2, S(Z), there without 1/d.

    Args:
        flow_map: A map with a velocity.
        noise: Starting points.
        condition: Condition of each trajectory, or None.
        steps: N, at least 2; one step is its own chord and would always give 0.

    Returns:
        The straightness of each trajectory.

    Raises:
        ValueError: If there are fewer than 2 steps, or the map has no velocity.
    """
    if steps < 2:
        raise ValueError(f"straightness needs at least 2 steps, got {steps}")
    domain = flow_map.domain
    if not domain.has_velocity:
        raise ValueError(f"straightness needs a map with a velocity, got domain {domain.kind}")
    length = domain.t_hi - domain.t_lo
    start = x = noise * (1.0 - domain.t_lo)
    velocities = []
    with torch.no_grad():
        for i in range(steps):
            v = flow_map.velocity(x, times_like(domain.t_lo + length * i / steps, x), condition)
            velocities.append(v)
            x = x + v * (length / steps)
    chord = (x - start) / length
    gaps = [(v - chord).flatten(1).double().square().mean(dim=1) for v in velocities]
    return torch.stack(gaps).mean(dim=0)


def allowed_triples(domain: Domain) -> list[tuple[float, float, float]]:
    """The triples s < m < t at which a domain holds every jump that a comparison takes.

    Args:
        domain: The map's domain.
    """
    lo, length = domain.t_lo, domain.t_hi - domain.t_lo
    scaled = [(lo + length * s, lo + length * m, lo + length * t) for s, m, t in TRIPLES]
    return [
        (s, m, t)
        for s, m, t in scaled
        if domain.kind is not DomainKind.DIAGONAL
        and all(domain.admits(*jump) for jump in ((s, m), (m, t), (s, t)))
        and (s <= lo or domain.admits(lo, s))
    ]


def semigroup_error(
    flow_map: FlowMap, noise: Float[Tensor, " b *d"], condition: Condition | None = None
) -> Float[Tensor, " b"]:
    """Root mean square of X(m, t)(X(s, m)(x)) - X(s, t)(x) per coordinate, over allowed triples.

    The points x at time s lie on the map's own trajectory from the noise. It is 0 for an exact
    map, and says nothing about the data: a map that jumps wrongly but consistently has 0 too.

    Args:
        flow_map: A map between two times.
        noise: Starting points.
        condition: Condition of each trajectory, or None.

    Returns:
        The error of each trajectory, in units of the data.

    Raises:
        ValueError: If the map's domain allows no comparison.
    """
    domain = flow_map.domain
    triples = allowed_triples(domain)
    if not triples:
        raise ValueError(f"jumps of a map with domain {domain.kind} cannot be composed")
    first = noise * (1.0 - domain.t_lo)

    def jump(x: Tensor, s: float, t: float) -> Tensor:
        return flow_map.jump(x, times_like(s, x), times_like(t, x), condition)

    squares = []
    with torch.no_grad():
        for s, m, t in triples:
            x = first if s <= domain.t_lo else jump(first, domain.t_lo, s)
            gap = jump(jump(x, s, m), m, t) - jump(x, s, t)
            squares.append(gap.flatten(1).double().square().mean(dim=1))
    return torch.stack(squares).mean(dim=0).sqrt()
