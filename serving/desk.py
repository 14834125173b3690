"""The desk of a replica: which version each served name means now, over the shelf of models."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, final

from .errors import LoadFailed, ModelDead, RequestRefused, UnknownModel, without_paths
from .lot import Lot, LotFailed, make_lot
from .meaning import Meaning
from .native import AnswerT, GenerateRequest, Made, RequestT
from .refusal import refusal
from .schema import CanaryCard, ImagesRequest, ImagesResponse, ModelCard, ModelList, Refusal
from .service import EngineService
from .shelf import Shelf
from .split import Split, seeded, sticky_key
from .tally import Tally
from .trial import Counted, Trial
from .waiting import room

NOT_TRIED: Final = "it is not loaded yet"
MAX_FORMER: Final = 16
"""Versions that names have moved away from and that still answer, however many there were."""
_LOG: Final = logging.getLogger(__name__)


@final
class Desk:
    """Answers requests by the name of a model, or by the version that a name means now.

    A name changes its meaning between two requests: one that has begun is answered by the model
    that it began with, which stays on the shelf for that long. A version that a name has moved away
    from still answers those who ask for it as such, so that streams end as they began and an
    image can be made again; it is loaded again if need be. Nobody else's wish loads a version.

    Args:
        shelf: The loaded models.
        timeout_s: Seconds that a request may take which gives no deadline.
        stuck_s: Seconds of one forward after which its model counts as dead.
    """

    def __init__(self, shelf: Shelf, *, timeout_s: float = 60.0, stuck_s: float = 120.0) -> None:
        self._shelf = shelf
        self._timeout_s = timeout_s
        self._stuck_s = stuck_s
        self._versions: dict[str, str] = {}
        self._cards: dict[str, ModelCard] = {}
        self._problems: dict[str, str] = {}
        self._former: dict[str, str] = {}  # and the name that meant it, the last one last
        self._swaps = 0
        self._trials: dict[str, Trial] = {}
        self._canaries: dict[str, CanaryCard] = {}
        self._lot: asyncio.Future[Lot] | None = None
        self._fallen: dict[str, str] = {}  # on trial, until the watch has heard why

    @property
    def versions(self) -> dict[str, str]:
        """The version of each served name; empty for one whose model has not been loaded."""
        return {
            name: version if version in self._cards else ""
            for name, version in self._versions.items()
        }

    @property
    def _dead(self) -> dict[str, ModelDead]:
        """The loaded versions that answer no more."""
        return self._shelf.dead(stuck_s=self._stuck_s)

    def check(self) -> None:
        """Raises ``ModelDead`` if a loaded model answers no more, however much waits for it.

        One that is on trial alone takes no replica with it: its trial ends here, and the next wish
        to stage it is told why, by which the watch ends it everywhere.

        Raises:
            ModelDead: If it is no model on trial.
        """
        for version, error in self._dead.items():
            names = [name for name, one in self._trials.items() if one.split.version == version]
            if not names or version in self._versions.values():
                raise error
            self._shelf.drop(version)
            self._fallen[version] = error.why
            for name in names:
                self.split(name, None)
                self.note(name, f"{version}, which was on trial, answers no more: {error.why}")
            _LOG.error("%s, which was on trial, answers no more: %s", version, error.why)

    async def serve(self, names: Mapping[str, Sequence[str]]) -> None:
        """Loads models and then serves these names alone.

        One that does not load keeps no other from being served.

        Args:
            names: Versions for each name, of which the first that loads is served.

        Raises:
            LoadFailed: If none of them all loads.
        """
        found = await asyncio.gather(*(self._first(versions) for versions in names.values()))
        failures = [failure for _, failure in found if failure is not None]
        if len(failures) == len(names):
            raise failures[0]
        before = self._versions
        self._versions = {name: version for name, (version, _) in zip(names, found, strict=True)}
        self._remember(before)
        self._problems = {
            name: failure.why
            for name, (_, failure) in zip(names, found, strict=True)
            if failure is not None
        }
        for name in [*self._trials]:
            if name not in names:
                self.split(name, None)
        self._forget()

    async def _first(self, versions: Sequence[str]) -> tuple[str, LoadFailed | None]:
        for version in versions:
            try:
                await self.stage(version)
            except LoadFailed as error:
                failure = error
            else:
                return version, None
        return versions[-1], failure

    async def stage(self, version: str) -> None:
        """Loads a model beside the others, so that a name may come to mean it at once.

        Args:
            version: The registered version.

        Raises:
            LoadFailed: If it does not load, or makes no images of its shape; or if it was on trial
                here and answers no more, which is told once.
        """
        if why := self._fallen.pop(version, ""):
            raise LoadFailed(version, why=why)
        self._shelf.forgive(version)
        async with self._lend(version):
            pass

    def point(self, name: str, version: str) -> None:
        """Lets a served name mean a staged version from the next request on.

        Args:
            name: A served name; another is left alone, since it is served no more.
            version: A staged version.
        """
        if name in self._versions:
            before = dict(self._versions)
            self._swaps += version != before[name]
            self._versions[name] = version
            self._remember(before)
            self._problems.pop(name, None)
            self._forget()

    def split(self, name: str, split: Split | None) -> None:
        """Lets a staged version on trial have a share of the requests to a served name.

        Args:
            name: A served name; another is left alone.
            split: Which requests; None ends the trial.
        """
        trial = self._trials.get(name)
        if split is not None and trial is not None and trial.split.version == split.version:
            trial.split = split  # what it has done so far stays
            return
        if trial is not None:
            self._trials.pop(name).close()
            self._keep({trial.split.version: name})  # whose addresses some have
        if split is not None and name in self._versions:
            self._trials[name] = Trial(split, waiting=lambda: self._shelf.waiting)

    @property
    def meanings(self) -> dict[str, Meaning]:
        """What each served name means here, and who is on trial for it."""
        found = {}
        for name, version in self.versions.items():
            trial = self._trials.get(name)
            found[name] = Meaning(
                version=version,
                problem=self._problems.get(name, ""),
                split=None if trial is None else trial.split,
                counted=Counted() if trial is None else replace(trial.counted),
                canary=self._canaries.get(name),
            )
        return found

    async def lot(self, champion: str, canary: str, number: int) -> Lot | str | None:
        """Images of two loaded versions from the same seeds and labels, where nobody waits.

        Args:
            champion: One version.
            canary: The other.
            number: Number of the lot.

        Returns:
            The lot; what the canary did instead; or None where requests wait, another lot
            is made, or the champion made none.
        """
        if self._shelf.waiting or (self._lot is not None and not self._lot.done()):
            return None
        try:
            async with self._lend(champion) as one:
                try:
                    async with self._lend(canary) as other:
                        self._lot = asyncio.get_running_loop().run_in_executor(
                            None, make_lot, one.engine, other.engine, number
                        )
                        self._lot.add_done_callback(_heard)
                        return await asyncio.shield(self._lot)  # its thread cannot be cancelled
                except LoadFailed as error:
                    return error.why
        except LotFailed as error:
            if error.name == "canary":
                return str(error)
            _LOG.error("%s cannot be compared: %s", champion, error)
        except LoadFailed as error:
            _LOG.error("%s cannot be compared: %s", champion, error)
        return None

    def tell(self, name: str, canary: CanaryCard) -> None:
        """Takes in what is known of a trial on all replicas.

        Args:
            name: The served name.
            canary: What ``describe`` says of it.
        """
        self._canaries[name] = canary

    def note(self, name: str, problem: str) -> None:
        """Says of a served name why it does not mean what it should; empty for no problem.

        Args:
            name: A served name.
            problem: One sentence.
        """
        if problem:
            self._problems[name] = without_paths(problem)
        else:
            self._problems.pop(name, None)

    async def describe(self) -> ModelList:
        """The models that are served now, and what is wrong with the others."""
        dead = self._dead
        problems = {**self._problems}
        problems |= {name: str(dead[one]) for name, one in self._versions.items() if one in dead}
        cards = {
            name: self._cards[version]
            for name, version in self._versions.items()
            if version in self._cards and version not in dead
        }
        return ModelList(
            data=[
                card.model_copy(
                    update={
                        "id": name,
                        "problem": self._problems.get(name),
                        "canary": self._canaries.get(name),
                    }
                )
                for name, card in cards.items()
            ],
            missing={
                name: problems.get(name, NOT_TRIED) for name in self._versions if name not in cards
            },
        )

    async def missing(self) -> list[str]:
        """The served names whose model has not been loaded, or answers no more."""
        dead = self._dead
        return [name for name, one in self.versions.items() if not one or one in dead]

    async def tally(self) -> list[Tally]:
        """What the models count, and how often names moved."""
        return [replace(self._shelf.tally, swaps=self._swaps, problems=len(self._problems))]

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        """Images, or the reason why there are none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await self._by(EngineService.generate, request)

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        """A file of images, or the reason why there is none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await self._by(EngineService.make, request)

    async def _by(
        self,
        work: Callable[[EngineService, RequestT], Awaitable[AnswerT | Refusal]],
        request: RequestT,
    ) -> AnswerT | Refusal:
        """What the model does that a request means."""
        try:
            version = self._meant(request.model)
            trial = self._trials.get(request.model or next(iter(self._versions)))
            if trial is None:
                return await self._ask(work, request, version)
            request = seeded(request)
            return await trial.answer(
                sticky_key(request),
                version,
                lambda one, left_s: self._ask(work, _within(request, left_s), one),
                room_s=room(request.deadline_ms, self._timeout_s),
            )
        except RequestRefused as refused:
            return refusal(refused)

    async def _ask(
        self,
        work: Callable[[EngineService, RequestT], Awaitable[AnswerT | Refusal]],
        request: RequestT,
        version: str,
    ) -> AnswerT | Refusal:
        """What a version does that a request asks for."""
        async with self._lend(version) as service:
            return await work(service, request.model_copy(update={"model": version}))

    def _meant(self, name: str) -> str:
        if not name:
            return next(iter(self._versions.values()))
        if name in self._versions:
            return self._versions[name]
        trials = {trial.split.version for trial in self._trials.values()}
        if name in {*self._versions.values(), *trials, *self._former, *self._shelf.versions}:
            return name
        names = dict.fromkeys((*self._versions, *self._versions.values()))
        raise UnknownModel(name, allowed=tuple(names))

    @asynccontextmanager
    async def _lend(self, version: str) -> AsyncIterator[EngineService]:
        async with self._shelf.borrow(version) as service:
            if version not in self._cards:
                self._cards[version] = service.card
                for name, meant in self._versions.items():
                    if meant == version:
                        self._problems.pop(name, None)
            yield service

    def _remember(self, before: Mapping[str, str]) -> None:
        """Keep what names meant, for as long as they are served."""
        self._keep(
            {
                version: name
                for name, version in before.items()
                if self._versions.get(name) != version
            }
        )
        for name, trial in self._trials.items():
            if before.get(name) != self._versions.get(name):
                trial.counted = Counted()  # what was done beside another champion

    def _keep(self, former: Mapping[str, str]) -> None:
        self._former |= former
        kept = [item for item in self._former.items() if item[1] in self._versions]
        self._former = dict(kept[-MAX_FORMER:])

    def _forget(self) -> None:
        kept = {*self._versions.values(), *self._shelf.versions}
        self._cards = {version: card for version, card in self._cards.items() if version in kept}


def _heard(lot: "asyncio.Future[Lot]") -> None:
    """An error that nobody waits for any more is no news."""
    if not lot.cancelled():
        lot.exception()


def _within(request: RequestT, left_s: float) -> RequestT:
    """The request with so much time, and of its deadline, if it has one, what is left of it."""
    request = request.needed_within(left_s)
    if request.deadline_ms is None:
        return request
    return request.model_copy(update={"deadline_ms": max(1, int(1000 * left_s))})
