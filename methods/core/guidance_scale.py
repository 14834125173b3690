"""A map that takes a guidance scale, asked at one scale wherever nobody names another."""

import math
from dataclasses import replace
from typing import final

from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .flow_map import FlowMap


@final
class AtScale(FlowMap):
    """A map whose rows have one guidance scale unless their condition tells another.

    Args:
        flow_map: A map that takes a scale as an input.
        scale: At least 1; 1 is no guidance.

    Raises:
        ValueError: If the scale is below 1 or not finite.
    """

    def __init__(self, flow_map: FlowMap, *, scale: float) -> None:
        if not 1.0 <= scale < math.inf:
            raise ValueError(f"a guidance scale must be finite and at least 1, got {scale}")
        super().__init__(domain=flow_map.domain)
        self.flow_map, self.scale = flow_map, scale

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Average velocity at the scale of each row."""
        told = condition or Condition()
        if told.guidance is None:
            told = replace(told, guidance=s.new_full((len(s),), self.scale))
        u: Tensor = self.flow_map(x, s, t, told)
        return u
