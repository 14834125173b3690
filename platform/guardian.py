"""Guardian settings: whether a run is probed while it trains."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, kw_only=True)
class Guardian:
    """Whether a run is probed while it trains, and what becomes of one that is lost.

    Attributes:
        every: Samples between two rounds of probes; 0 for none. Every checkpoint has one too.
        retries: How often a lost run goes back to its last checkpoint, or to its start where it
            has none, and on from there with a lower learning rate; then, or with 0, it is stopped.
        lr_factor: What each return multiplies the learning rate by, in (0, 1).

    Raises:
        ValueError: If a number is out of range, or returns are asked for without probes.
    """

    every: int = 0
    retries: int = 0
    lr_factor: float = 0.3

    def __post_init__(self) -> None:
        if min(self.every, self.retries) < 0 or not 0.0 < self.lr_factor < 1.0:
            raise ValueError(
                "guardian.every and retries must be at least 0 and lr_factor in (0, 1), got "
                f"{self.every}, {self.retries} and {self.lr_factor:g}"
            )
        if self.retries and not self.every:
            raise ValueError(
                "guardian.retries has no effect without probes: set guardian.every, the samples "
                f"between two rounds, or leave retries at 0, got {self.retries}"
            )
