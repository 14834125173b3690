"""What a sample is conditioned on: a class label, tokens, a guidance scale, or several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NULL_LABEL: Final = -1
"""The label, or token, that stands for no condition; networks embed it like any other."""
UNGUIDED: Final = 1.0
"""The guidance scale that changes nothing."""


@final
@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition for each row of a batch; a part that is None is not used by the model.

    Attributes:
        label: Class in [0, classes), or NULL_LABEL.
        tokens: Token ids in [0, vocabulary), padded with NULL_LABEL.
        guidance: Guidance scale that the network takes as input, 1 for none.
    """

    label: Int[Tensor, " b"] | None = None
    tokens: Int[Tensor, "b n"] | None = None
    guidance: Float[Tensor, " b"] | None = None

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(
            label=None if self.label is None else change(self.label),
            tokens=None if self.tokens is None else change(self.tokens),
            guidance=None if self.guidance is None else change(self.guidance),
        )

    def __getitem__(self, rows: Int[Tensor, " n"] | slice) -> Self:
        return self._map(lambda part: part[rows])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The rows of several conditions, one after the other.

        Args:
            parts: At least one condition; all have the same parts.
        """

        def join(tensors: list[Tensor | None]) -> Tensor | None:
            given = [tensor for tensor in tensors if tensor is not None]
            assert len(given) in (0, len(tensors)), "all conditions have a part, or none has"
            return torch.cat(given) if given else None

        return cls(
            label=join([part.label for part in parts]),
            tokens=join([part.tokens for part in parts]),
            guidance=join([part.guidance for part in parts]),
        )

    def to(self, device: torch.device | str) -> Self:
        """The same condition on another device."""
        return self._map(lambda part: part.to(device))

    def without_guidance(self) -> Self | None:
        """What is told to a network that takes no guidance scale; None if nothing is left."""
        if self.label is None and self.tokens is None:
            return None
        return replace(self, guidance=None)

    def null(self) -> Self:
        """No condition in every row."""
        return self.drop(None)

    def drop(self, rows: Bool[Tensor, " b"] | None) -> Self:
        """No condition in the rows where the mask is true; None drops all of them."""

        def fill(part: Tensor | None, value: float) -> Tensor | None:
            if part is None:
                return None
            if rows is None:
                return torch.full_like(part, value)
            mask = rows.reshape(-1, *[1] * (part.dim() - 1))
            return torch.where(mask, torch.full_like(part, value), part)

        return type(self)(
            label=fill(self.label, NULL_LABEL),
            tokens=fill(self.tokens, NULL_LABEL),
            guidance=fill(self.guidance, UNGUIDED),
        )
