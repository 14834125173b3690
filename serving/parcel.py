"""What is sent to the process of the forwards: a map, and then questions to it."""

import os
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor

from ..methods.core.condition import Condition
from ..methods.core.flow_map import FlowMap
from .speed import AbstractRun, Speed, runner

Array = np.ndarray[Any, Any]


@final
@dataclass(frozen=True, kw_only=True)
class Hosting:
    """A map, which is the first message to its thread.

    Attributes:
        flow_map: The map.
        speed: How it is run.
        device: Where.
        cores: Numbers of the cores that its forwards run on; none for any.
    """

    flow_map: FlowMap
    speed: Speed
    device: torch.device
    cores: frozenset[int]

    def run(self) -> AbstractRun:
        """The map as it is run, by the thread that asks for it."""
        if self.cores:
            os.sched_setaffinity(0, self.cores)  # and of the threads that torch starts for it
        return runner(self.flow_map.to(self.device), self.speed)


@final
@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question in arrays, which take a thirtieth of the time that tensors take to be sent.

    Attributes:
        x: States at s, [b, *d].
        s: Start times, [b].
        t: End times, [b].
        label: Classes, [b], or None.
        tokens: Token ids, [b, n], or None.
        guidance: Guidance scales, [b], or None.
    """

    x: Array
    s: Array
    t: Array
    label: Array | None
    tokens: Array | None
    guidance: Array | None

    @classmethod
    def of(cls, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None) -> Self:
        """The question that a map is asked.

        Args:
            x: States at s.
            s: Start times.
            t: End times.
            condition: Condition of each row, or None.
        """
        parts = condition or Condition()
        return cls(
            x=x.numpy(force=True),
            s=s.numpy(force=True),
            t=t.numpy(force=True),
            label=_array(parts.label),
            tokens=_array(parts.tokens),
            guidance=_array(parts.guidance),
        )

    def answered(self, run: AbstractRun, device: torch.device) -> Array:
        """The map's answer.

        Args:
            run: The map as it is run.
            device: Where.
        """
        parts = [_tensor(part, device) for part in (self.label, self.tokens, self.guidance)]
        label, tokens, guidance = parts
        has_parts = any(part is not None for part in parts)
        condition = Condition(label=label, tokens=tokens, guidance=guidance) if has_parts else None
        x, s, t = (torch.from_numpy(part).to(device) for part in (self.x, self.s, self.t))
        return run(x, s, t, condition).numpy(force=True)


def _array(part: Tensor | None) -> Array | None:
    return None if part is None else part.numpy(force=True)


def _tensor(part: Array | None, device: torch.device) -> Tensor | None:
    return None if part is None else torch.from_numpy(part).to(device)
