"""The target of a jump in two parts: a given velocity first, the map's own jump from there on."""

from jaxtyping import Float
from torch import Tensor

from .calculus import Function, value_of
from .shape import rows_like


def two_part_target(
    average: Function,
    at: tuple[Float[Tensor, " b *d"], Float[Tensor, " b"], Float[Tensor, " b"]],
    *,
    w: Float[Tensor, " b *d"],
    u: Float[Tensor, " b *d"],
    share: float,
) -> Float[Tensor, " b *d"]:
    """What an average velocity is regressed on, so that its residual stays finite as share -> 0.

        w + (1 - share) (u(x + (m - s) w, m, t) - u(x, s, t)) / share   with m = s + share (t - s)

    Args:
        average: The average velocity u of (x, s, t).
        at: States at s, start times s and end times t.
        w: Velocity of the first part.
        u: The average velocity at these points, which loses its graph.
        share: Share of the interval before m, in (0, 1].

    Returns:
        A target without a graph. Its distance from u is, over the share, that of u from the jump in
        two parts, share w + (1 - share) u(x_m, m, t).
    """
    x, s, t = at
    m = s + share * (t - s)
    here = value_of(average, at, known=u)
    ahead = value_of(average, (x + rows_like(m - s, x) * w, m, t))
    return w + (1.0 - share) * (ahead - here) / share
