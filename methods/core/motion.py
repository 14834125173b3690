"""How the end of a jump moves: with its end time, and with its start carried along a velocity.

For the exact map the first is the velocity at the end (Lagrange), the second is zero (Euler). Both
keep their graph: these are derivatives that a loss differentiates through.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import derivative_along
from .condition import Condition
from .flow_map import FlowMap
from .shape import rows_like


class Motion(NamedTuple):
    """The end of a jump and its rate of change."""

    end: Tensor
    rate: Tensor


def end_motion(
    flow_map: FlowMap,
    x: Float[Tensor, " b *d"],
    s: Float[Tensor, " b"],
    t: Float[Tensor, " b"],
    condition: Condition | None,
) -> Motion:
    """End of a jump and its derivative in the end time: X(s, t)(x) and u + (t - s) d_t u."""
    u, du_dt = derivative_along(
        lambda end: flow_map(x, s, end, condition), (t,), (torch.ones_like(t),)
    )
    gap = rows_like(t - s, x)
    return Motion(end=x + gap * u, rate=u + gap * du_dt)


def start_motion(
    flow_map: FlowMap,
    x: Float[Tensor, " b *d"],
    s: Float[Tensor, " b"],
    t: Float[Tensor, " b"],
    condition: Condition | None,
    *,
    velocity: Float[Tensor, " b *d"],
) -> Motion:
    """End of a jump and its derivative where the start moves: v + (t - s) D_s u - u.

    D_s is the derivative along (v, 1) in (x, s). For the exact map and its own velocity the end
    stays where it is.

    Args:
        flow_map: Map that jumps.
        x: States at s.
        s: Start times.
        t: End times.
        condition: Condition of each row.
        velocity: How the start moves.

    Returns:
        The end and its rate.
    """
    u, du_ds = derivative_along(
        lambda x, s: flow_map(x, s, t, condition), (x, s), (velocity, torch.ones_like(s))
    )
    gap = rows_like(t - s, x)
    return Motion(end=x + gap * u, rate=velocity + gap * du_ds - u)
