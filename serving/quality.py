"""How many evaluations a request gets that names a quality or a deadline, and no number of steps.

The rules, for the numbers of evaluations at which the version was measured when it was registered
and which are better than all that take fewer:

- ``high`` and ``hd`` take the best, ``low`` takes the fewest, ``standard`` and
  ``medium`` the model's default.
- ``auto`` takes the best that is predicted to end in time. Without a deadline it also takes one
  fewer of them where 2 forwards are ahead of the request, two fewer at 4, three fewer at 8.
- A deadline alone means ``auto``.
- Where nothing was measured, all take the model's default.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

Quality = Literal["auto", "low", "medium", "standard", "high", "hd"]
SMALLER_IS_BETTER: Final[Mapping[str, bool]] = {
    "eval/frechet_features": True,
    "eval/1nn_deviation": True,
    "eval/fid": True,
    "eval/sliced_w2": True,
    "eval/w2": True,
    "eval/energy_distance": True,
    "eval/squared_mmd": True,
    "eval/coverage": False,
    "eval/class_agreement": False,
}
"""Metrics that order images, the one that decides first."""


@final
@dataclass(frozen=True, kw_only=True)
class Curve:
    """What a metric was at numbers of evaluations when the version was registered.

    Attributes:
        metric: Name of the metric; empty where none was measured.
        values: Its value at each number of evaluations that the model allows.
    """

    metric: str
    values: Mapping[int, float]

    @property
    def frontier(self) -> tuple[int, ...]:
        """Numbers of evaluations, ascending, each better than all fewer; empty if unmeasured."""
        sign = 1.0 if SMALLER_IS_BETTER.get(self.metric, True) else -1.0
        found: list[int] = []
        least = math.inf
        for steps, value in sorted(self.values.items()):
            if sign * value < least:
                found.append(steps)
                least = sign * value
        return tuple(found)

    def told(self, steps: int) -> str:
        """The value at so many evaluations, in words; ``unmeasured`` where there is none."""
        return f"{self.metric} {self.values[steps]:g}" if steps in self.values else "unmeasured"


def curve_of(curves: Mapping[str, Mapping[int, float]], allowed: Collection[int]) -> Curve:
    """The curve that decides, of all that a version was registered with.

    Args:
        curves: Values by metric and number of evaluations.
        allowed: Numbers of evaluations that the model is served with.

    Returns:
        The curve of the first metric that orders images; an empty one if there is none.
    """
    for metric in SMALLER_IS_BETTER:
        values = {k: value for k, value in curves.get(metric, {}).items() if k in allowed}
        if values:
            return Curve(metric=metric, values=values)
    return Curve(metric="", values={})


def choose(
    quality: Quality,
    frontier: Sequence[int],
    *,
    default: int,
    seconds: Callable[[int], float],
    room_s: float,
    forwards_ahead: float,
) -> int:
    """The evaluations of a request that names a quality.

    Args:
        quality: What it names.
        frontier: Numbers of evaluations, ascending, each better than all fewer.
        default: The model's default.
        seconds: Time that a number of evaluations is predicted to take, with that of the queue.
        room_s: Seconds in which it should end.
        forwards_ahead: Forwards that those before it need; 0 where it has a deadline of its own.

    Returns:
        The number of evaluations; the fewest where none is predicted to end in time.
    """
    if not frontier or quality in ("standard", "medium"):
        return default
    if quality == "low":
        return frontier[0]
    if quality in ("high", "hd"):
        return frontier[-1]
    fewer = int(math.log2(max(1.0, forwards_ahead)))
    affordable = frontier[: max(1, len(frontier) - fewer)]
    fitting = [steps for steps in affordable if seconds(steps) <= room_s]
    return fitting[-1] if fitting else frontier[0]
