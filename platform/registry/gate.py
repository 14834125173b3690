"""A condition that a model has to meet before an alias may move to it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from .errors import PromotionRefused


@final
@dataclass(frozen=True, kw_only=True)
class Gate:
    """A bound on one recorded metric.

    Attributes:
        metric: Name of the metric, such as `eval/1nn_deviation/nfe_1`.
        at_most: Largest value that passes, or None.
        at_least: Smallest value that passes, or None.

    Raises:
        ValueError: If there is no bound, or a bound that nothing meets.
    """

    metric: str
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.at_most, self.at_least) if bound is not None]
        if not bounds or not all(math.isfinite(bound) for bound in bounds):
            raise ValueError(
                f"gate on {self.metric!r} needs a finite at_most or at_least, "
                f"got {self.at_most} and {self.at_least}"
            )
        if len(bounds) == 2 and bounds[0] < bounds[1]:
            raise ValueError(
                f"gate on {self.metric!r} must have at_least <= at_most, "
                f"got {self.at_least} and {self.at_most}"
            )

    def __str__(self) -> str:
        above = "" if self.at_least is None else f"{self.at_least:g} <= "
        below = "" if self.at_most is None else f" <= {self.at_most:g}"
        return f"{above}{self.metric}{below}"

    def check(self, metrics: Mapping[str, float], *, model: str) -> None:
        """Refuse a model that does not meet the bound.

        Args:
            metrics: Recorded metrics of the model.
            model: Its reference, for the message.

        Raises:
            PromotionRefused: If the metric is missing or outside the bound.
        """
        value = metrics.get(self.metric)
        if value is None:
            known = ", ".join(sorted(metrics)) or "none"
            raise PromotionRefused(
                f"{model} has no metric {self.metric!r}, which the gate {self} asks for; "
                f"recorded: {known}"
            )
        # Written so that a value that is not a number fails.
        is_low = self.at_most is None or value <= self.at_most
        is_high = self.at_least is None or value >= self.at_least
        if not (is_low and is_high):
            raise PromotionRefused(f"{model} has {self.metric} = {value:g}, the gate is {self}")
