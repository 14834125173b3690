"""Neighbours: two states between one noise and one datum, whose jumps to the data must agree."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .distance import AbstractDistance
from .flow_map import FlowMap
from .path import LinearPath
from .record import Batch
from .times import Interval

_PATH: Final = LinearPath()


def neighbour_error(
    online: FlowMap,
    teacher: FlowMap,
    batch: Batch,
    pair: Interval,
    condition: Condition | None,
    *,
    distance: AbstractDistance,
) -> Float[Tensor, " b"]:
    """Distance between the jump to the data from the earlier state and that from the later one.

    Args:
        online: The map that jumps from the earlier state.
        teacher: The map that jumps from the later state, without a graph.
        batch: Data whose noise has been paired.
        pair: Times s < t of both states on the linear path.
        condition: Condition of each row.
        distance: How both jumps are compared.
    """
    data = torch.ones_like(pair.s)
    x_s, x_t = (_PATH.at(batch.noise, batch.x1, time).x for time in (pair.s, pair.t))
    here = online.jump(x_s, pair.s, data, condition)
    with torch.no_grad():
        there = teacher.jump(x_t, pair.t, data, condition)
    return distance(here, there)
