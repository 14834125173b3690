"""Health: what the rounds of probes say of a run, as a pure function of their numbers.

The bounds come from runs on eight Gaussians and digits, healthy ones and ones that were broken on
purpose: benchmarks/guardian.py, whose test holds that each falls on its side.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, final

LOSS: Final = "loss_"
"""Begins the names of losses: medians over the steps since the last round."""
MOST: Final = {"one_step": 3.0, "many_steps": 3.0, "composition": 2.0, "tangent": 20.0}
"""No map that learns goes beyond these, at any time; samples lie no further away than so many times
the noise, where that is far from the data."""
TIMES: Final = 100.0
"""How often the largest loss of a healthy round a loss may be."""
STARTED: Final = 0.2
"""Share of the run after which a map has to have begun to learn."""
LEAST_MOTION: Final = 0.01
"""Noise that is moved less, in spreads of the data, is not moved at all."""
LEAST_WIDTH: Final = 0.1
"""Samples that are closer together, in spreads of the data, are one point."""
_SAMPLES: Final = ("one_step", "many_steps")


@final
@dataclass(frozen=True, kw_only=True)
class Health:
    """What is known of a run after a round; a fresh run is healthy.

    A number that is none is final. Any other fault has to be there in two rounds one after the
    other, since a healthy run may stumble.

    Attributes:
        largest: The largest of each loss in the healthy rounds.
        fault: What the last round found, or empty.
        is_lost: Whether the run is lost for it.
    """

    largest: Mapping[str, float] = field(default_factory=dict)
    fault: str = ""
    is_lost: bool = False

    def after(self, found: Mapping[str, float], *, progress: float) -> Self:
        """The health after one more round.

        Args:
            found: The numbers of the round by name.
            progress: Share of the run that is done, of whose start the average shows little.
        """
        fault = _fault(found, self.largest) or (_idle(found) if progress >= STARTED else "")
        if fault:
            is_final = not all(math.isfinite(value) for value in found.values())
            is_lost = bool(self.fault) or is_final
            return type(self)(largest=self.largest, fault=fault, is_lost=is_lost)
        losses = {name: abs(value) for name, value in found.items() if name.startswith(LOSS)}
        most = {name: max(value, self.largest.get(name, 0.0)) for name, value in losses.items()}
        return type(self)(largest={**self.largest, **most})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"largest": dict(self.largest), "fault": self.fault, "is_lost": self.is_lost}


def _fault(found: Mapping[str, float], largest: Mapping[str, float]) -> str:
    for name, value in found.items():
        if not math.isfinite(value):
            return f"guardian/{name} is {value}"
    for name, value in found.items():
        most = MOST.get(name, math.inf) * (max(1.0, found["noise"]) if name in _SAMPLES else 1.0)
        if value > most:
            return f"guardian/{name} is {value:.3g}, above {most:.3g}"
        before = largest.get(name, math.inf)
        if abs(value) > TIMES * before:
            return f"guardian/{name} is {value:.3g}, above {TIMES:g} times {before:.3g} before"
    return ""


def _idle(found: Mapping[str, float]) -> str:
    motion, width = found["motion"], found["width"]
    if motion < LEAST_MOTION:
        return f"guardian/motion is {motion:.3g}, below {LEAST_MOTION:g}: noise stays where it is"
    if width < LEAST_WIDTH:
        return f"guardian/width is {width:.3g}, below {LEAST_WIDTH:g}: samples are one point"
    return ""
