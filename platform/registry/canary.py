"""A canary: a version on trial beside the one that an alias means, kept in an alias history.

The canary of `champion` is the alias `champion-canary`. Each of its moves is an entry of that
alias's history, with the terms of the trial; the last entry is the state of the trial, whoever
reads it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Final, Self, final

from .entry import ModelEntry
from .errors import ModelAltered, PromotionRefused
from .promotion import Promotion
from .reference import Alias, ModelVersion, check_alias
from .store import Registry

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
    max_drift: float = 0.1

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


@final
class CanaryLedger:
    """Begins and ends trials.

    Args:
        registry: Where they are kept.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def read(self, name: str, alias: str) -> Canary | None:
        """The last trial for an alias; None where there never was one.

        Args:
            name: Registered model.
            alias: Such as `champion`.

        Returns:
            The trial, which may have ended.
        """
        history = self._registry.history(name, canary_alias(alias))
        return Canary.read(alias, history[-1]) if history else None

    def find(self, reference: str) -> Canary:
        """The running trial for an alias.

        Args:
            reference: Such as `champion` or `digits@champion`.

        Returns:
            The trial.

        Raises:
            PromotionRefused: If none runs.
        """
        alias = Alias.parse(reference)
        found = self.read(self._registry.resolve(reference).name, alias.alias)
        if found is None or not found.is_running:
            raise PromotionRefused(f"{reference} must have a canary that runs, got none")
        return found

    def start(
        self,
        reference: str,
        alias: str,
        terms: CanaryTerms,
        *,
        why: str,
        who: str | None = None,
    ) -> Canary:
        """Put a version on trial beside the one that an alias means.

        Args:
            reference: The version.
            alias: Such as `champion` or `digits@champion`.
            terms: What it gets, and what it must not do.
            why: Reason in words.
            who: Who does it; None for the user of this process.

        Returns:
            The trial.

        Raises:
            PromotionRefused: If the version cannot stand in for the champion, is it, or another
                trial runs.
        """
        entry = self._registry.entry(reference)
        version = entry.reference
        parsed = Alias.parse(alias)
        if parsed.name not in (None, version.name):
            raise PromotionRefused(
                f"a canary must be a version of the model of {alias}, got {version}"
            )
        champion = self._registry.entry(str(replace(parsed, name=version.name)))
        _check_alike(entry, champion)
        history = self._registry.history(version.name, canary_alias(parsed.alias))
        if history:
            last = Canary.read(parsed.alias, history[-1])
            if last.is_running:
                raise PromotionRefused(
                    f"{alias} must have one canary at a time, got {version} beside {last.version}"
                )
        canary = Canary(
            alias=parsed.alias,
            version=version,
            terms=terms,
            state=CanaryState.RUNNING,
            why=why,
            numbers={},
            entry=history[-1].digest if history else "",
        )
        return self._write(canary, why=why, who=who)

    def move(self, canary: Canary, percent: float, *, why: str, who: str | None = None) -> Canary:
        """Give a running trial another share.

        Args:
            canary: The trial as it was read.
            percent: The share, in (0, 100].
            why: Reason in words.
            who: Who does it; None for the user of this process.

        Returns:
            The trial.
        """
        terms = replace(canary.terms, percent=percent)
        return self._write(replace(canary, terms=terms), why=why, who=who)

    def promote(
        self, canary: Canary, *, why: str, numbers: Mapping[str, float], who: str | None = None
    ) -> Canary:
        """Let the alias mean the version on trial, and end the trial.

        Args:
            canary: The trial as it was read.
            why: Reason in words.
            numbers: What was measured.
            who: Who does it; None for the user of this process.

        Returns:
            The trial.

        Raises:
            PromotionRefused: If another moved or ended the trial meanwhile.
        """
        now = self.read(canary.version.name, canary.alias)
        if now is None or now.entry != canary.entry:
            raise PromotionRefused(
                f"the canary of {canary.alias} has been moved meanwhile; look at its history"
            )
        self._registry.promote(str(canary.version), canary.alias, why=why, who=who)
        return self.end(canary, CanaryState.PROMOTED, why=why, numbers=numbers, who=who)

    def end(
        self,
        canary: Canary,
        state: CanaryState,
        *,
        why: str,
        numbers: Mapping[str, float],
        who: str | None = None,
    ) -> Canary:
        """End a trial; the alias stays where it is.

        Args:
            canary: The trial as it was read.
            state: How it ends.
            why: Reason in words.
            numbers: What was measured.
            who: Who does it; None for the user of this process.

        Returns:
            The trial.
        """
        return self._write(replace(canary, state=state, numbers=numbers), why=why, who=who)

    def _write(self, canary: Canary, *, why: str, who: str | None) -> Canary:
        """Write a move of a trial, unless another came before it."""
        facts = {
            "version": str(canary.version),
            "terms": asdict(canary.terms),
            "state": canary.state.value,
            "numbers": dict(canary.numbers),
        }
        written = self._registry.ledger.write(
            canary.version.name,
            canary_alias(canary.alias),
            to=canary.version if canary.is_running else None,
            why=why,
            who=who,
            facts=json.dumps(facts, sort_keys=True),
            after=canary.entry,
        )
        return Canary.read(canary.alias, written)


def canary_alias(alias: str) -> str:
    """The alias whose history holds the trials for an alias."""
    return check_alias(f"{alias}{_SUFFIX}")


def _check_alike(entry: ModelEntry, champion: ModelEntry) -> None:
    """Refuse a version that would not answer what the champion answers."""
    if entry.reference == champion.reference:
        raise PromotionRefused(
            f"a canary must be another version than the champion, got {entry.reference} for both"
        )
    for what, own, its in (
        ("noise shape", tuple(entry.record.shape), tuple(champion.record.shape)),
        ("classes", entry.record.classes, champion.record.classes),
    ):
        if own != its:
            raise PromotionRefused(
                f"the {what} of a canary must be the champion's, got {own} of {entry.reference} "
                f"and {its} of {champion.reference}"
            )
