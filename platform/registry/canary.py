"""A canary: a version on trial beside the one that an alias means, kept in an alias history.

The canary of `champion` is the alias `champion-canary`. Each of its moves is an entry of that
alias's history, with the terms of the trial; the last entry is the state of the trial, whoever
reads it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self, final

from .errors import ModelAltered, PromotionRefused
from .promotion import Promotion
from .reference import ModelVersion, check_alias

_SUFFIX: Final = "-canary"


class CanaryState(StrEnum):
    """How a trial stands."""

    RUNNING = "running"
    """It takes its share of the requests, or copies of them."""
    PROMOTED = "promoted"
    """The alias means the version now."""
    ROLLED_BACK = "rolled_back"
    """It was found worse than the champion."""
    STOPPED = "stopped"
    """Somebody ended it."""


@final
@dataclass(frozen=True, kw_only=True)
class CanaryTerms:
    """What a version on trial gets, and what it must not do.

    Attributes:
        percent: Share of the requests, in (0, 100].
        shadow: Whether it gets copies of them, whose answers nobody sees.
        images: Images after which it is promoted if nothing speaks against it; at least 1.
        max_errors: Largest share of failed requests, in [0, 1).
        max_latency: Largest ratio of its time for images to the champion's; positive.
        max_drift: Largest energy coefficient between its images and the champion's, in [0, 1].

    Raises:
        ValueError: If a term is out of range.
    """

    percent: float = 10.0
    shadow: bool = False
    images: int = 2000
    max_errors: float = 0.01
    max_latency: float = 1.5
    max_drift: float = 0.05

    def __post_init__(self) -> None:
        # Written so that a value that is not a number fails.
        if not 0.0 < self.percent <= 100.0:
            raise ValueError(f"percent must be above 0 and at most 100, got {self.percent:g}")
        if self.images < 1:
            raise ValueError(f"images must be at least 1, got {self.images}")
        if not 0.0 <= self.max_errors < 1.0:
            raise ValueError(f"max_errors must be in [0, 1), got {self.max_errors:g}")
        if not (self.max_latency > 0.0 and math.isfinite(self.max_latency)):
            raise ValueError(f"max_latency must be positive, got {self.max_latency:g}")
        if not 0.0 <= self.max_drift <= 1.0:
            raise ValueError(f"max_drift must be in [0, 1], got {self.max_drift:g}")


@final
@dataclass(frozen=True, kw_only=True)
class Canary:
    """A trial as the registry keeps it.

    Attributes:
        alias: The alias that would come to mean the version.
        version: The version on trial.
        terms: Its terms.
        state: How the trial stands.
        why: Reason of its last move.
        numbers: What was measured when it ended.
        entry: Digest of its last entry.
    """

    alias: str
    version: ModelVersion
    terms: CanaryTerms
    state: CanaryState
    why: str
    numbers: Mapping[str, float]
    entry: str

    @property
    def is_running(self) -> bool:
        """Whether the trial goes on."""
        return self.state is CanaryState.RUNNING

    @classmethod
    def read(cls, alias: str, promotion: Promotion) -> Self:
        """The trial that an entry tells of.

        Args:
            alias: The alias that would come to mean the version.
            promotion: The last entry of the canary's history.

        Raises:
            ModelAltered: If the entry is of no trial.
        """
        try:
            facts = json.loads(promotion.facts)
            return cls(
                alias=alias,
                version=ModelVersion.parse(facts["version"]),
                terms=CanaryTerms(**facts["terms"]),
                state=CanaryState(facts["state"]),
                why=promotion.why,
                numbers=facts["numbers"],
                entry=promotion.digest,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ModelAltered(
                f"alias {promotion.alias!r} must be moved by `onestep canary` alone, got a move by "
                f"other means to {promotion.to or 'nothing'}"
            ) from error


def check_promotable(alias: str) -> None:
    """Refuse an alias that holds the trials for another one.

    Args:
        alias: Such as `champion`.

    Raises:
        PromotionRefused: If it ends as such an alias does.
    """
    if alias.endswith(_SUFFIX):
        raise PromotionRefused(
            f"an alias that ends in {_SUFFIX} must be moved by `onestep canary` alone, got {alias}"
        )


def canary_alias(alias: str) -> str:
    """The alias whose history holds the trials for an alias."""
    return check_alias(f"{alias}{_SUFFIX}")
