"""Begins, moves and ends trials of versions, each move an entry of the registry's alias history."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import final

from .canary import Canary, CanaryState, CanaryTerms, canary_alias
from .entry import ModelEntry
from .errors import ModelAltered, PromotionRefused
from .model import drawn_scales
from .promotion import Promotion
from .reference import Alias, ModelVersion
from .store import Registry


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
        last = _last(parsed.alias, history)
        if last is not None and last.is_running:
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
        self,
        canary: Canary,
        *,
        champion: ModelVersion,
        why: str,
        numbers: Mapping[str, float],
        who: str | None = None,
    ) -> Canary:
        """Let the alias mean the version on trial, and end the trial.

        The alias moves first, so that who dies between the two leaves a trial whose version the
        alias means. Where somebody else ends the trial in between, the alias moves back.

        Args:
            canary: The trial as it was read.
            champion: The version that it was judged against.
            why: Reason in words.
            numbers: What was measured.
            who: Who does it; None for the user of this process.

        Returns:
            The trial.

        Raises:
            PromotionRefused: If another moved or ended the trial meanwhile, or moved the alias.
        """
        now = self.read(canary.version.name, canary.alias)
        if now is None or now.entry != canary.entry:
            raise PromotionRefused(
                f"the canary of {canary.alias} has been moved meanwhile; look at its history"
            )
        name, alias, ledger = canary.version.name, canary.alias, self._registry.ledger
        current, history = ledger.read(name, alias)
        if current != champion:
            raise PromotionRefused(
                f"{alias} must mean {champion}, which its canary was judged against, "
                f"got {current or 'nothing'}"
            )
        self._registry.entry(str(canary.version))
        moved = ledger.write(
            name,
            alias,
            to=canary.version,
            why=why,
            who=who,
            after=history[-1].digest if history else "",
        )
        try:
            return self.end(canary, CanaryState.PROMOTED, why=why, numbers=numbers, who=who)
        except PromotionRefused as error:
            back = f"the trial was moved or ended meanwhile: {error}"
            ledger.write(name, alias, to=champion, why=back, who=who, after=moved.digest)
            raise

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


def _last(alias: str, history: Sequence[Promotion]) -> Canary | None:
    """The last trial; None where the last move was by other means, by which no trial runs."""
    try:
        return Canary.read(alias, history[-1]) if history else None
    except ModelAltered:
        return None


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
    asked, known = drawn_scales(champion.record), drawn_scales(entry.record)
    if asked and not (known and known[0] <= asked[0] and asked[1] <= known[1]):
        got = f"{known[0]:g}..{known[1]:g}" if known else "none"
        raise PromotionRefused(
            f"a canary must know the guidance scales of the champion, {asked[0]:g}..{asked[1]:g}, "
            f"got {entry.reference} with {got}"
        )
