"""Follows the trials of the registry: splits the requests, weighs what is seen, and ends them."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, final

import torch

from ..platform.registry.canary import Canary, CanaryState
from ..platform.registry.errors import PromotionRefused, RegistryUnreachable
from ..platform.registry.reference import Alias, ModelVersion
from .drift import Drift, measure_drift
from .errors import without_paths
from .judge import Evidence, Fate, Latest, judge
from .lot import LOTS, Lot
from .meaning import Meaning
from .schema import CanaryCard
from .split import Split

if TYPE_CHECKING:  # MLflow takes seconds to import, and the ingress imports this too
    from ..platform.registry.canary_ledger import CanaryLedger

_LOG: Final = logging.getLogger(__name__)


class TriedReplicas(Protocol):
    """All replicas at once, as far as trials concern them."""

    async def followed(self) -> list[dict[str, Meaning]]:
        """The names that each follows, and what they mean there."""
        ...

    async def stage(self, version: str) -> list[str]:
        """Lets each load a version; why one cannot, or empty where it did.

        Args:
            version: The registered version.
        """
        ...

    async def split(self, name: str, split: Split | None) -> None:
        """Lets a version on trial have a share of the requests on all replicas.

        Args:
            name: The served name.
            split: Which requests; None ends the trial.
        """
        ...

    async def tell(self, name: str, canary: CanaryCard) -> None:
        """Lets all replicas know what users are told of a trial.

        Args:
            name: The served name.
            canary: What they are told.
        """
        ...

    async def lot(self, champion: str, canary: str, number: int) -> Lot | str | None:
        """Images of two versions by one replica; why there are none; None where it is busy.

        Args:
            champion: One version.
            canary: The other.
            number: Number of the lot.
        """
        ...


@final
@dataclass(kw_only=True)
class _Comparison:
    """What was seen of a champion and of a version on trial, beside what replicas count."""

    both: tuple[str, str]
    lots: list[Lot] = field(default_factory=list)
    drift: Drift | None = None
    latest: Latest = field(default_factory=Latest)

    def measure(self) -> None:
        """Measure the drift, of as many lots as are compared."""
        self.drift = measure_drift(
            torch.cat([one.champion for one in self.lots]),
            torch.cat([one.canary for one in self.lots]),
            torch.tensor([label for one in self.lots for label in one.labels]),
            rng=torch.Generator().manual_seed(0),
        )

    @property
    def ratios(self) -> tuple[float, ...]:
        """Time of the version over the champion's, for each lot."""
        return tuple(one.canary_s / one.champion_s for one in self.lots)


@final
class CanaryWatch:
    """Lets the replicas do what the registry says of trials, round after round.

    The registry has the state and the replicas the counts, so a service that starts again goes on
    with a trial, and counts its images from there. Only the images that are compared are here.

    Args:
        replicas: All replicas.
        ledger: Opens the trials of the registry; it is called once, in a thread.
    """

    def __init__(self, replicas: TriedReplicas, ledger: "Callable[[], CanaryLedger]") -> None:
        self._replicas = replicas
        self._open = ledger
        self._ledger: CanaryLedger | None = None
        self._comparisons: dict[str, _Comparison] = {}
        self._unread: dict[str, str] = {}

    async def round(self) -> None:
        """Looks once, and does what is to be done; a name that fails keeps no other from it."""
        states = await self._replicas.followed()
        names = dict.fromkeys(name for state in states for name in state)
        failures: list[Exception] = []
        for name in names:
            try:
                await self._look(name, [state[name] for state in states if name in state])
            except Exception as error:
                _LOG.warning("the trial for %s failed: %s", name, type(error).__name__)
                failures.append(error)
        if failures:  # which the edge of the watch logs
            raise failures[0]

    async def _look(self, name: str, meanings: Sequence[Meaning]) -> None:
        champions = {meaning.version for meaning in meanings}
        if ModelVersion.is_written(name) or len(champions) > 1 or "" in champions:
            return  # it has no alias, or the watch of aliases moves it just now
        (champion,) = champions
        try:
            canary = await asyncio.to_thread(self._read, name, champion)
        except RegistryUnreachable as error:  # what is served goes on
            self._say(name, error)
            return
        if canary is None:
            await self._split(name, None, meanings)
            return
        if not canary.is_running:
            self._comparisons.pop(name, None)
            await self._split(name, None, meanings)
            await self._tell(name, _card(canary, meanings, _evidence(meanings, None)), meanings)
            return
        await self._follow(name, champion, canary, meanings)

    async def _follow(
        self, name: str, champion: str, canary: Canary, meanings: Sequence[Meaning]
    ) -> None:
        version, terms = str(canary.version), canary.terms
        if champion == version:  # somebody promoted it, or died between the two moves of it
            await self._end(canary, CanaryState.PROMOTED, f"{name} means {version}", {})
            return
        split = Split(version=version, percent=terms.percent, shadow=terms.shadow)
        if any(meaning.split != split for meaning in meanings):
            if failures := [why for why in await self._replicas.stage(version) if why]:
                why = f"{version} does not load: {failures[0]}"
                await self._end(canary, CanaryState.ROLLED_BACK, why, {})
                return
            await self._split(name, split, meanings)
            return
        comparison = self._comparisons.get(name)
        if comparison is None or comparison.both != (champion, version):
            comparison = self._comparisons[name] = _Comparison(both=(champion, version))
        if (number := len(comparison.lots)) < LOTS:
            lot = await self._replicas.lot(champion, version, number)
            if isinstance(lot, str):
                await self._end(canary, CanaryState.ROLLED_BACK, lot, {})
                return
            if lot is not None:
                comparison.lots.append(lot)
        if comparison.drift is None and len(comparison.lots) == LOTS:
            await asyncio.to_thread(comparison.measure)
        evidence = _evidence(meanings, comparison)
        fate, why = judge(terms, evidence)
        await self._tell(name, _card(canary, meanings, evidence), meanings)
        match fate:
            case Fate.PROMOTE:
                await self._promote(canary, champion, why, evidence.numbers)
            case Fate.ROLL_BACK:
                await self._end(canary, CanaryState.ROLLED_BACK, why, evidence.numbers)
            case Fate.GO_ON:
                pass

    async def _split(self, name: str, split: Split | None, meanings: Sequence[Meaning]) -> None:
        if any(meaning.split != split for meaning in meanings):
            await self._replicas.split(name, split)
            _LOG.info("the canary of %s is %s", name, split)

    async def _tell(self, name: str, card: CanaryCard, meanings: Sequence[Meaning]) -> None:
        if any(meaning.canary != card for meaning in meanings):
            await self._replicas.tell(name, card)

    async def _promote(
        self, canary: Canary, champion: str, why: str, numbers: Mapping[str, float]
    ) -> None:
        judged = ModelVersion.parse(champion)
        await self._act(
            lambda ledger: ledger.promote(
                canary, champion=judged, why=f"canary: {why}", numbers=numbers
            )
        )

    async def _end(
        self, canary: Canary, state: CanaryState, why: str, numbers: Mapping[str, float]
    ) -> None:
        said = without_paths(why)
        await self._act(lambda ledger: ledger.end(canary, state, why=said, numbers=numbers))

    async def _act(self, act: "Callable[[CanaryLedger], Canary]") -> None:
        assert self._ledger is not None, "what is ended was read"
        try:
            ended = await asyncio.to_thread(act, self._ledger)
        except PromotionRefused as error:  # another service did it; the next round sees what
            _LOG.info("%s", error)
            return
        _LOG.warning("canary %s of %s: %s, %s", ended.version, ended.alias, ended.state, ended.why)

    def _read(self, name: str, champion: str) -> Canary | None:
        if self._ledger is None:
            self._ledger = self._open()
        try:
            model = ModelVersion.parse(champion).name
            return self._ledger.read(model, Alias.parse(name).alias)
        except RegistryUnreachable:
            raise
        except ValueError as error:
            self._say(name, error)
            return None

    def _say(self, name: str, error: ValueError) -> None:
        if self._unread.get(name) != str(error):  # once, not in every round
            _LOG.error("the canary of %s cannot be read: %s", name, error)
        self._unread[name] = str(error)


def _evidence(meanings: Sequence[Meaning], comparison: _Comparison | None) -> Evidence:
    counted = [meaning.counted for meaning in meanings]
    requests, errors = sum(one.requests for one in counted), sum(one.errors for one in counted)
    return Evidence(
        requests=requests,
        errors=errors,
        images=sum(one.images for one in counted),
        ratios=() if comparison is None else comparison.ratios,
        drift=None if comparison is None else comparison.drift,
        latest=(0, 0) if comparison is None else comparison.latest.look(requests, errors),
    )


def _card(canary: Canary, meanings: Sequence[Meaning], evidence: Evidence) -> CanaryCard:
    """What users are told: of a trial that has ended, what it was when it did."""
    terms, numbers = canary.terms, evidence.numbers if canary.is_running else canary.numbers
    dropped = sum(meaning.counted.dropped for meaning in meanings) if canary.is_running else 0
    return CanaryCard(
        version=str(canary.version),
        state=canary.state.value,
        percent=terms.percent,
        shadow=terms.shadow,
        images=int(numbers.get("images", 0)),
        images_wanted=terms.images,
        requests=int(numbers.get("requests", 0)),
        errors=int(numbers.get("errors", 0)),
        dropped=dropped,
        latency=numbers.get("latency"),
        compared=int(numbers.get("compared", 0)),
        drift=numbers.get("drift"),
        p_value=numbers.get("p_value"),
        why=without_paths(canary.why),
    )
