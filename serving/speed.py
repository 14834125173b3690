"""How a map is run: in what arithmetic, in what layout of memory, and compiled or not."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from ..methods.core.condition import Condition
from ..methods.core.flow_map import FlowMap
from ..methods.core.precision import Precision
from .settings import DTYPES

Run = Callable[[Tensor, Tensor, Tensor, Condition | None], Tensor]
"""A map as it is run, asked at states, start times, end times and a condition."""
Host = Callable[[FlowMap, "Speed"], Run]
"""What makes a map one that runs, as ``runner`` does."""
_COMPILERS: Final = ("c++", "g++", "clang++")
_IMAGE_AXES: Final = 4
_COMPILATIONS: Final = 1024
"""Most variants of a network's code that are compiled in a process, for all its models."""


@final
@dataclass(frozen=True, kw_only=True)
class Speed:
    """What may make forwards faster.

    Attributes:
        dtype: Arithmetic of matrix products and convolutions, one of DTYPES; noise, times and
            images are float32.
        channels_last: Whether the channels of images lie side by side in memory.
        compile: Whether torch compiles the map, once for each bucket.
    """

    dtype: str = DTYPES[0]
    channels_last: bool = False
    compile: bool = False

    def check(self) -> None:
        """Refuses what this machine cannot do.

        Raises:
            ValueError: If there is nothing to compile with.
        """
        if self.compile and not any(map(shutil.which, _COMPILERS)):
            raise ValueError(
                "serve.compile needs a C++ compiler on this machine, got none of "
                f"{', '.join(_COMPILERS)}"
            )


def device_of(flow_map: FlowMap) -> torch.device:
    """Where a map's parameters and buffers lie; the CPU where it has none."""
    tensors = chain(flow_map.parameters(), flow_map.buffers(), [torch.empty(0)])
    return next(tensors).device


def runner(flow_map: FlowMap, speed: Speed) -> Run:
    """The map as it is run, where its parameters lie.

    Args:
        flow_map: The map, whose parameters are laid out anew.
        speed: How to run it.

    Returns:
        A function of states, start times, end times and condition.
    """
    device, precision = device_of(flow_map), Precision(speed.dtype)
    layout = torch.channels_last if speed.channels_last else torch.contiguous_format
    flow_map.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub leaves it out
    call: Run = _compiled(flow_map, device) if speed.compile else flow_map

    def run(
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
    ) -> Float[Tensor, " b *d"]:
        if x.dim() == _IMAGE_AXES:
            x = x.contiguous(memory_format=layout)
        with precision.autocast(device.type):
            u = call(x, s, t, condition)
        return u.to(x.dtype).contiguous()

    return run


def _compiled(flow_map: FlowMap, device: torch.device) -> Run:
    dynamo = torch._dynamo.config
    # Each bucket of each model is a variant; beyond the limit torch would go on uncompiled
    # without a word.
    dynamo.recompile_limit = max(dynamo.recompile_limit, _COMPILATIONS)
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, _COMPILATIONS)
    dynamo.fail_on_recompile_limit_hit = True
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    compiled: Run = torch.compile(flow_map, dynamic=False, fullgraph=True, mode=mode)
    return compiled
