"""What becomes of a version on trial, by what it has done so far."""

import statistics
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

from scipy.special import bdtrc

from ..platform.registry.canary import CanaryTerms
from .drift import Drift
from .lot import LOT

LEVEL: Final = 0.001
"""Chance at which one look speaks against a version that keeps its terms."""
LATEST: Final = 100
"""Requests that the latest looks have at least, once there are so many."""
LATEST_LEVEL: Final = 0.00001
"""The same chance where the latest requests alone are judged, of which a long trial has many."""
FEW: Final = 10
"""Lots before which no ratio of times is told."""


class Fate(StrEnum):
    """What becomes of a version on trial."""

    GO_ON = "go_on"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


@final
class Latest:
    """What became of the latest requests, by what all together were at each look.

    It holds the fewest looks back that had ``LATEST`` requests, or all while they are fewer. Where
    a replica starts again, and with it what it counted, that begins anew.
    """

    def __init__(self) -> None:
        self._looks: deque[tuple[int, int]] = deque()

    def look(self, requests: int, errors: int) -> tuple[int, int]:
        """Takes in a look.

        Args:
            requests: All requests so far.
            errors: Those of them that failed.

        Returns:
            The latest requests, and those of them that failed.
        """
        looks = self._looks
        if looks and (requests < looks[-1][0] or errors < looks[-1][1]):
            looks.clear()
        if not looks or requests > looks[-1][0]:
            looks.append((requests, errors))
        while len(looks) > 1 and requests - looks[1][0] >= LATEST:
            looks.popleft()
        return requests - looks[0][0], errors - looks[0][1]


@final
@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a version on trial has done.

    Attributes:
        requests: Requests that it answered, or should have.
        errors: Those of them that the champion answered in its place.
        images: Images that it made for requests.
        ratios: Its time over the champion's, for each lot of the same images.
        drift: How its images differ from the champion's; None while they are too few.
        latest: The latest requests alone, and those of them that failed.
    """

    requests: int
    errors: int
    images: int
    ratios: tuple[float, ...]
    drift: Drift | None
    latest: tuple[int, int] = (0, 0)

    @property
    def latency(self) -> float | None:
        """Median ratio of the times; None while they are too few."""
        return statistics.median(self.ratios) if len(self.ratios) >= FEW else None

    @property
    def numbers(self) -> dict[str, float]:
        """What is known, by name."""
        known: dict[str, float | None] = {
            "requests": self.requests,
            "errors": self.errors,
            "images": self.images,
            "compared": LOT * len(self.ratios),
            "latency": self.latency,
            "drift": None if self.drift is None else self.drift.coefficient,
            "p_value": None if self.drift is None else self.drift.p_value,
        }
        return {name: value for name, value in known.items() if value is not None}


def judge(terms: CanaryTerms, evidence: Evidence) -> tuple[Fate, str]:
    """What becomes of a version on trial, and why.

    A term is broken where what was seen would be a matter of chance once in a thousand looks at a
    version that just keeps it; by the latest requests alone, which are others all the time, once in
    a hundred thousand. Between a broken term and a kept one the trial goes on.

    Args:
        terms: What it must not do.
        evidence: What it has done.

    Returns:
        The fate, and one sentence with the numbers.
    """
    if objection := _objection(terms, evidence):
        return Fate.ROLL_BACK, objection
    drift, latency = evidence.drift, evidence.latency
    if drift is None or latency is None:
        return Fate.GO_ON, "images of both are still compared"
    if evidence.images < terms.images:
        return Fate.GO_ON, f"{evidence.images} of {terms.images} images"
    if evidence.errors > terms.max_errors * evidence.requests:
        return Fate.GO_ON, f"{evidence.errors} of {evidence.requests} requests failed"
    if latency > terms.max_latency:
        return Fate.GO_ON, f"its images take {latency:.2f} times the champion's time"
    return Fate.PROMOTE, (
        f"{evidence.images} images, {evidence.errors} of {evidence.requests} requests failed, "
        f"{latency:.2f} times the champion's time, drift {drift.coefficient:.3f}"
    )


def _objection(terms: CanaryTerms, evidence: Evidence) -> str:
    """What speaks against the version; empty for nothing."""
    errors, requests, ratios = evidence.errors, evidence.requests, evidence.ratios
    allowed = f"allowed is a share of {terms.max_errors:g}"
    if errors and bdtrc(errors - 1, requests, terms.max_errors) < LEVEL:
        return f"{errors} of {requests} requests failed, {allowed}"
    requests, errors = evidence.latest
    if errors and bdtrc(errors - 1, requests, terms.max_errors) < LATEST_LEVEL:
        return f"{errors} of the latest {requests} requests failed, {allowed}"
    slower = sum(ratio > terms.max_latency for ratio in ratios)
    if slower and bdtrc(slower - 1, len(ratios), 0.5) < LEVEL:
        return (
            f"{slower} of {len(ratios)} lots took more than {terms.max_latency:g} times the "
            f"champion's time, {statistics.median(ratios):.2f} times in the median"
        )
    drift = evidence.drift
    if drift is not None and drift.p_value < LEVEL and drift.coefficient > terms.max_drift:
        return (
            f"its images differ from the champion's by a drift of {drift.coefficient:.3f} "
            f"(p = {drift.p_value:.1g}), allowed is {terms.max_drift:g}"
        )
    return ""
