"""Pairs of a shear, which a neural flow has to learn, and how far maps without it come."""

import math
from typing import Final, final

import torch
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.coupling import StoredPairs
from onestep.methods.core.flow_map import FlowMap
from onestep.methods.core.method import PairMix
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.neural_flow import NeuralFlow

METHOD: Final = NeuralFlow(coupling=StoredPairs(), pairs=PairMix(generated=Constant(value=1.0)))
LEARNT: Final = 0.0035
"""Loss below which the shear is learnt; no linear map comes near."""
_ROWS: Final = 256
_LAST: Final = 20
"""Steps over which a loss is averaged."""


@final
class Identity(FlowMap):
    """Every point stays where it is, which is also where the mean of all pairs would move it."""

    def forward(
        self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None = None
    ) -> Tensor:
        del s, t, condition
        return torch.zeros_like(x)


@final
class BestLinear(FlowMap):
    """The linear map nearest to the shear: E[x0 sin x0] = exp(-1/2) stands for the sine."""

    def forward(
        self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None = None
    ) -> Tensor:
        del s, t, condition
        return torch.stack([torch.zeros_like(x[:, 0]), x[:, 1] + math.exp(-0.5) * x[:, 0]], dim=1)


def shear(x0: Tensor) -> Tensor:
    """x0 -> (x0, 2 x1 + sin(x0))."""
    return torch.stack([x0[:, 0], 2.0 * x0[:, 1] + x0[:, 0].sin()], dim=1)


def loss_of(net: FlowMap, step: int) -> Tensor:
    """Mean loss of a neural flow on fresh pairs of the shear."""
    now = Moment(step=step, total=10_000, rng=Rng.seeded(1, step=step), batch_size=_ROWS)
    x0 = now.rng.normal(_ROWS, 2)
    batch = Batch(x1=shear(x0), x0=x0, index=torch.arange(_ROWS))
    return METHOD.loss(Nets(online=net), batch, now).total.mean()


def left_by(net: FlowMap) -> float:
    """Loss of a map that learns nothing."""
    return sum(loss_of(net, step).item() for step in range(_LAST)) / _LAST


def left_after_training(net: FlowMap, *, steps: int, lr: float) -> float:
    """Loss over the last steps of a training by Adam; rows are fresh at every step."""
    optimizer, losses = torch.optim.Adam(net.parameters(), lr=lr), []
    for step in range(steps):
        loss = loss_of(net, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-_LAST:]) / _LAST
