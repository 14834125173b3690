"""A weighting by the length of a jump."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from .weighting import AbstractWeighting


@final
@dataclass(frozen=True, kw_only=True)
class LengthWeighting(AbstractWeighting):
    """Each error times a power of the length of its jump: error (t - s)^power.

    With power 2 an error of the average velocity counts as that of the jump's end. A row on the
    diagonal, whose jump has no length, weighs nothing unless the power is 0.

    Attributes:
        power: In [0, 4]; 0 weights all lengths alike.

    Raises:
        ValueError: If the power is out of range.
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.power <= 4.0:
            raise ValueError(f"length weighting needs a power in [0, 4], got {self.power}")

    @property
    def weighs_diagonal(self) -> bool:
        """Only with power 0."""
        return self.power == 0.0

    def __call__(
        self, error: Float[Tensor, " b"], s: Float[Tensor, " b"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Weighted errors."""
        return error * (t - s) ** self.power
