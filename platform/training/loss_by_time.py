"""The loss against time: where on the path a network still errs."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from ...methods.core.record import Loss

TENTHS: Final = 10
BY_TIME: Final = "by_time"
"""Name of the shares among what a step measures."""


def by_time(loss: Loss) -> Float[Tensor, "2 tenths"] | None:
    """The loss and the rows that fall into each tenth of time, both as means over all rows.

    Such means can be averaged over steps and workers before one is divided by the other.

    Args:
        loss: Losses of the samples.

    Returns:
        The two, without a graph, or None for a loss without times.
    """
    if loss.times is None:
        return None
    total = loss.total.detach()
    tenth = (loss.times.detach() * TENTHS).long().clamp(0, TENTHS - 1)
    rows = one_hot(tenth, TENTHS).to(total)
    return torch.stack([total @ rows, rows.sum(0)]) / len(total)


def curve(shares: Float[Tensor, "2 tenths"]) -> dict[str, float]:
    """Mean loss by the middle of each tenth into which rows have fallen.

    Args:
        shares: What ``by_time`` gives, averaged.

    Returns:
        ``loss_at/0.05`` and so on.
    """
    losses, rows = shares.tolist()
    return {
        f"loss_at/{(tenth + 0.5) / TENTHS:.2f}": losses[tenth] / rows[tenth]
        for tenth in range(TENTHS)
        if rows[tenth] > 0.0
    }
