"""What becomes of a version on trial, by what it has done so far."""

import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

from scipy.special import bdtrc

from ..platform.registry.canary import CanaryTerms
from .drift import Drift
from .lot import LOT

LEVEL: Final = 0.001
"""Chance at which one look speaks against a version that keeps its terms."""
FEW: Final = 10
"""Lots before which no ratio of times is told."""


class Fate(StrEnum):
    """What becomes of a version on trial."""

    GO_ON = "go_on"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


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
    """

    requests: int
    errors: int
    images: int
    ratios: tuple[float, ...]
    drift: Drift | None

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
    version that just keeps it. Between a broken term and a kept one the trial goes on.

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
    if errors and bdtrc(errors - 1, requests, terms.max_errors) < LEVEL:
        return f"{errors} of {requests} requests failed, allowed is a share of {terms.max_errors:g}"
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
