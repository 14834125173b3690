"""The derivative and gradients of a small network, whole or shared: a task for a group."""

import copy
from typing import Final

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from onestep.methods.core.calculus import (
    AbstractDerivative,
    ForwardDifference,
    ForwardMode,
    derivative_along,
)
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.rng import Rng
from onestep.methods.nets.mlp import MLP
from onestep.platform.training.place import Place
from onestep.platform.training.stand_in import shaken

ROWS: Final = 8
WITH_GRAPH: Final = "with its graph"
WAYS: Final[dict[str, AbstractDerivative]] = {
    "without a graph": ForwardMode(),
    "by a difference": ForwardDifference(),
}
Result = tuple[Tensor, list[Tensor]]


def network() -> FlowMap:
    torch.manual_seed(0)
    net = MLP(shape=(2,), domain=Domain(), width=16, depth=2, embedding_width=8)
    return shaken(net.double(), seed=0)


def learn(net: FlowMap, way: str, rows: slice = slice(None)) -> Result:
    """The derivative of some rows, and the gradients of a loss with it."""
    rng = Rng.seeded(1)
    x, v = (rng.normal(ROWS, 2, dtype=torch.float64)[rows] for _ in range(2))
    s = 0.5 * rng.uniform(ROWS, dtype=torch.float64)[rows]
    at, tangent = (x, s, s + 0.3), (v, torch.ones_like(s), torch.zeros_like(s))
    if way == WITH_GRAPH:
        u, derivative = derivative_along(net, at, tangent)
    else:
        u = net(*at)
        derivative = WAYS[way].along(net, at, tangent, value=u)
    torch.autograd.backward((u - v - derivative).square().mean())
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    return derivative.detach(), [
        g.full_tensor() if isinstance(g, DTensor) else g for g in gradients
    ]


def sharded(place: Place) -> tuple[dict[str, Result], str]:
    """Results of half of the rows with a network that two workers share; a task."""
    mesh = init_device_mesh("cpu", (place.world,))
    half = ROWS // place.world
    rows = slice(place.rank * half, (place.rank + 1) * half)
    found: dict[str, Result] = {}
    for way in (*WAYS, WITH_GRAPH):
        net = network()
        assert isinstance(net, MLP)
        for block in net.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(net, mesh=mesh)
        found[way] = learn(net, way, rows)
    try:
        copy.deepcopy(net)
    except AssertionError as error:
        return found, str(error)
    return found, ""
