"""A replica: the models that it serves, what it is told to serve, and what it says of them."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, final

from ray import serve

from .cores import Cores, leave
from .desk import Desk
from .errors import FAILED, LoadFailed, RequestRefused
from .forwards import Forwards
from .gathering import Wave
from .known import known_of
from .lot import Lot
from .meaning import Meaning, look
from .native import AnswerT, GenerateRequest, Made, RequestT
from .refusal import refusal
from .schema import CanaryCard, ImagesRequest, ImagesResponse, ModelList, Refusal
from .service import EngineService
from .settings import AppSettings
from .shelf import Shelf
from .speed import Host, runner
from .split import Split
from .tally import Tally

SWITCH_S: Final = 0.00001
"""Seconds after which a thread of a replica yields Python's lock to another that waits for it."""
_LOG: Final = logging.getLogger(__name__)


@final
class Generator:
    """A replica that holds the served models.

    Args:
        settings: Fields of ``AppSettings``; its models give way to those of the user config.
        at_end: What is done where the process of the forwards ends by itself, with its status.
    """

    def __init__(
        self, settings: Mapping[str, Any], at_end: Callable[[int], None] | None = None
    ) -> None:
        # The thread of the forwards takes Python's lock after each operation. Where it meets the
        # event loop it would wait for as long as this, by default the time of a whole forward.
        sys.setswitchinterval(SWITCH_S)
        self._settings = AppSettings.from_dict(settings)
        self._cores = Cores(self._settings.threads) if self._settings.pin else None
        self._forwards = Forwards(self._settings.threads) if self._settings.apart else None
        if self._forwards is not None and at_end is not None:
            self._forwards.on_end(at_end)
        shelf = Shelf(self._load, memory_bytes=self._settings.memory_mb * 10**6)
        self._desk = Desk(
            shelf,
            timeout_s=self._settings.request_timeout_s,
            stuck_s=self._settings.stuck_s,
        )
        self._follows = False

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Loads and warms models, then serves them in the place of the present ones.

        Requests that wait for an old model are still answered by it.

        Args:
            config: ``models``, the version of each name, where aliases are followed from there on;
                or ``model``, a version that stays, and perhaps ``name``, under which it alone is
                served.

        Raises:
            ValueError: If a model is an alias, or none can be loaded.
        """
        # MLflow takes seconds to import, and the ingress, which imports this too, needs none.
        from ..platform.registry.reference import ModelVersion

        names = names_of(config)
        for version in names.values():
            if not ModelVersion.is_written(version):
                raise ValueError(
                    "user_config.model must be a version such as digits/3, because each replica "
                    "would look up an alias when it starts (args.model takes one), "
                    f"got {version!r}"
                )
        follows = "models" in config and self._settings.watch_s is not None
        candidates = {name: [version] for name, version in names.items()}
        if follows:  # a replica that starts again serves what the others do, not what they did
            for name, versions in candidates.items():
                served = self._desk.versions.get(name, "")
                present = await self._present(name)
                candidates[name] = [one for one in (present, served, *versions) if one]
        await self._desk.serve(candidates)
        self._follows = follows

    async def check_health(self) -> None:
        """What Serve asks every few seconds; a replica that raises is replaced.

        A long queue is no illness.
        """
        if self._forwards is not None:
            self._forwards.check()
        self._desk.check()

    async def _present(self, name: str) -> str:
        try:
            return await asyncio.to_thread(look, self._settings, name)
        except ValueError as error:  # the watch says so to users, a round later
            _LOG.warning("%s cannot be looked up: %s", name, error)
            return ""

    def _load(self, version: str) -> EngineService:
        from .loading import load_engine, registry_of

        settings = self._settings.with_model(version)
        cores = frozenset() if self._cores is None else self._cores.take()
        host: Host = runner
        device = settings.device
        if self._forwards is not None:  # there forwards have their device and cores, not here
            host = partial(self._forwards.host, device=device, cores=cores)
            if cores:
                leave(cores)
            device, cores = "cpu", frozenset()
        engine, version = load_engine(settings, device=device, host=host)
        return EngineService(
            engine,
            name=version,
            version=version,
            max_waiting=settings.max_waiting,
            timeout_s=settings.request_timeout_s,
            cores=cores,
            known=known_of(registry_of(settings), version),
        )

    def followed(self) -> dict[str, Meaning]:
        """What the names mean here whose aliases are followed."""
        return self._desk.meanings if self._follows else {}

    async def stage(self, version: str) -> str:
        """Loads and warms a version beside the others.

        Args:
            version: The registered version.

        Returns:
            Why it does not load; empty where it did.
        """
        try:
            await self._desk.stage(version)
        except LoadFailed as error:
            return error.why
        return ""

    def point(self, name: str, version: str) -> None:
        """Lets a name that is followed mean a staged version.

        Args:
            name: The served name.
            version: The registered version.
        """
        if self._follows:
            self._desk.point(name, version)

    def split(self, name: str, split: Split | None) -> None:
        """Lets a staged version on trial have a share of the requests to a followed name.

        Args:
            name: The served name.
            split: Which requests; None ends the trial.
        """
        if self._follows:
            self._desk.split(name, split)

    async def lot(self, champion: str, canary: str, number: int) -> Lot | str | None:
        """Images of two loaded versions from the same seeds and labels, where nobody waits.

        Args:
            champion: One version.
            canary: The other.
            number: Number of the lot.

        Returns:
            The lot; why there is none; or None where requests wait.
        """
        return await self._desk.lot(champion, canary, number)

    def tell(self, name: str, canary: CanaryCard) -> None:
        """Takes in what is known of a trial on all replicas.

        Args:
            name: The served name.
            canary: What users are told of it.
        """
        if self._follows:
            self._desk.tell(name, canary)

    def note(self, name: str, problem: str) -> None:
        """Says what is wrong with a name that is followed.

        Args:
            name: The served name.
            problem: One sentence; empty for nothing.
        """
        if self._follows:
            self._desk.note(name, problem)

    async def describe(self) -> ModelList:
        """The models that are served now."""
        return await self._desk.describe()

    async def missing(self) -> list[str]:
        """The served names whose model has not been loaded, or answers no more."""
        return await self._desk.missing()

    async def tally(self) -> list[Tally]:
        """What this replica counts, under the id that Serve knows it by."""
        replica = serve.get_replica_context().replica_id.unique_id
        return [replace(tally, replica=replica) for tally in await self._desk.tally()]

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        """Images, or the reason why there are none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await self._desk.generate(request)

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        """A file of images, or the reason why there is none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await self._desk.make(request)

    async def generate_all(
        self, requests: Sequence[ImagesRequest]
    ) -> AsyncIterator[Wave[ImagesResponse | Refusal]]:
        """``generate`` for several requests, each answered as soon as it can be.

        Args:
            requests: What users asked for.

        Yields:
            Wave: Answers with the places of their requests.
        """
        async for wave in _waves(self._desk.generate, requests):
            yield wave

    async def make_all(
        self, requests: Sequence[GenerateRequest]
    ) -> AsyncIterator[Wave[Made | Refusal]]:
        """``make`` for several requests, each answered as soon as it can be.

        Args:
            requests: What users asked for.

        Yields:
            Wave: Answers with the places of their requests.
        """
        async for wave in _waves(self._desk.make, requests):
            yield wave


async def _waves(
    work: Callable[[RequestT], Awaitable[AnswerT | Refusal]], requests: Sequence[RequestT]
) -> AsyncIterator[Wave[AnswerT | Refusal]]:
    """Answers as they come, those of one forward together; an error is that of its request."""
    places = {asyncio.ensure_future(work(request)): place for place, request in enumerate(requests)}
    waiting = set(places)
    try:
        while waiting:
            ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            yield [(places[task], _found(task)) for task in ended]
    finally:  # nobody waits for the others any more
        for task in waiting:
            task.cancel()


def _found(task: "asyncio.Future[AnswerT | Refusal]") -> AnswerT | Refusal:
    if (error := task.exception()) is None:
        return task.result()
    _LOG.error("a request failed", exc_info=error)
    return refusal(RequestRefused(FAILED, status=500))


def end_replica(status: int) -> None:
    """Ends this process, so that Serve notices at once and others answer what it was asked.

    Args:
        status: How the process of its forwards ended.
    """
    _LOG.error("the process of the forwards ended with %d, and so does its replica", status)
    os._exit(1)


def names_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The version of each served name of a user config."""
    if "models" in config:
        return dict(config["models"])
    return {config.get("name", config["model"]): config["model"]}
