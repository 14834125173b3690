"""How a map is run: in what arithmetic, in what layout of memory, and compiled or not."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from ..methods.core.condition import Condition
from ..methods.core.flow_map import FlowMap
from ..methods.core.precision import Precision
from .settings import DTYPES

_Call = Callable[[Tensor, Tensor, Tensor, Condition | None], Tensor]
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


class AbstractRun(ABC):
    """A map as it is run, asked at states, start times, end times and a condition.

    Attributes:
        ahead: How many questions it takes before it has answered the first, at least 1.
    """

    ahead: ClassVar[int] = 1

    @abstractmethod
    def __call__(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
    ) -> Float[Tensor, " b *d"]:
        """The average velocity of each row."""

    def begin(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
    ) -> "Future[Tensor]":
        """The same as what will come; where nothing else computes it, it is there at once."""
        coming: Future[Tensor] = Future()
        coming.set_result(self(x, s, t, condition))
        return coming


Host = Callable[[FlowMap, Speed], AbstractRun]
"""What makes a map one that runs, as ``runner`` does."""


def runner(flow_map: FlowMap, speed: Speed) -> "Here":
    """The map as it is run, where its parameters lie.

    Args:
        flow_map: The map, whose parameters are laid out anew.
        speed: How to run it.
    """
    return Here(flow_map, speed)


@final
class Here(AbstractRun):
    """A map that the thread which asks it runs itself.

    Args:
        flow_map: The map, whose parameters are laid out anew.
        speed: How to run it.
    """

    def __init__(self, flow_map: FlowMap, speed: Speed) -> None:
        self._device, self._precision = device_of(flow_map), Precision(speed.dtype)
        self._layout = torch.channels_last if speed.channels_last else torch.contiguous_format
        # torch's stub leaves this out
        flow_map.to(memory_format=self._layout)  # type: ignore[call-overload]
        self._map = _compiled(flow_map, self._device) if speed.compile else flow_map

    def __call__(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
    ) -> Float[Tensor, " b *d"]:
        """The map's answer, in the arithmetic of the question."""
        if x.dim() == _IMAGE_AXES:
            x = x.contiguous(memory_format=self._layout)
        with self._precision.autocast(self._device.type):
            u = self._map(x, s, t, condition)
        return u.to(x.dtype).contiguous()


def _compiled(flow_map: FlowMap, device: torch.device) -> _Call:
    dynamo = torch._dynamo.config
    # Each bucket of each model is a variant; beyond the limit torch would go on uncompiled
    # without a word.
    dynamo.recompile_limit = max(dynamo.recompile_limit, _COMPILATIONS)
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, _COMPILATIONS)
    dynamo.fail_on_recompile_limit_hit = True
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    compiled: _Call = torch.compile(flow_map, dynamic=False, fullgraph=True, mode=mode)
    return compiled
