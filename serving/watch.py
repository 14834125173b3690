"""Follows the aliases that are served: a moved one is swapped on all replicas, or on none."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Protocol, cast, final

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from ..platform.registry.reference import ModelVersion
from .settings import AppSettings

RETRY_S: Final = 10.0
"""Seconds after which a version that did not load is tried again, while its alias stays."""
_ANSWERS_WITHIN_S: Final = 600.0
_AFTER_FAILURE_S: Final = 5.0
_LOG: Final = logging.getLogger(__name__)


@final
@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a served name means on a replica.

    Attributes:
        version: The version that answers; empty where none is loaded.
        problem: Why it is not the one that it should be; empty where it is.
    """

    version: str
    problem: str


class Replicas(Protocol):
    """All replicas at once; each answers, or nobody does."""

    async def followed(self) -> list[dict[str, Meaning]]:
        """The names that each follows, and what they mean there."""
        ...

    async def stage(self, version: str) -> list[str]:
        """Lets each load a version; why one cannot, or empty where it did.

        Args:
            version: The registered version.
        """
        ...

    async def point(self, name: str, version: str) -> None:
        """Lets a name mean a version that all have loaded.

        Args:
            name: The served name.
            version: The registered version.
        """
        ...

    async def note(self, name: str, problem: str) -> None:
        """Says what is wrong with a name; empty for nothing.

        Args:
            name: The served name.
            problem: One sentence.
        """
        ...


@final
class Watch:
    """Compares what aliases mean in the registry with what replicas serve, round after round.

    It remembers nothing that matters: the replicas tell what they serve, so that one that starts
    again, or a watch that does, is on the same footing a round later. All replicas load a new
    version before any of them serves it.

    Args:
        replicas: All replicas.
        look: The version that an alias means now, by the registry; it runs in a thread.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        replicas: Replicas,
        look: Callable[[str], str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replicas = replicas
        self._look = look
        self._clock = clock
        self._refused: dict[tuple[str, str], float] = {}

    async def round(self) -> None:
        """Looks once, and mends what differs."""
        states = await self._replicas.followed()
        names = dict.fromkeys(name for state in states for name in state)
        await asyncio.gather(
            *(self._follow(name, [state[name] for state in states if name in state])
              for name in names)
        )  # fmt: skip

    async def _follow(self, name: str, meanings: list[Meaning]) -> None:
        try:
            version = await asyncio.to_thread(self._look, name)
        except ValueError as error:
            await self._note(name, f"{name} cannot be looked up: {error}", meanings)
            return
        if all(meaning.version == version for meaning in meanings):
            await self._note(name, "", meanings)
            return
        if self._clock() < self._refused.get((name, version), 0.0):
            return
        failures = [why for why in await self._replicas.stage(version) if why]
        if failures:
            self._refused = {(name, version): self._clock() + RETRY_S} | {
                key: until for key, until in self._refused.items() if key[0] != name
            }
            problem = f"{name} means {version}, which does not load: {failures[0]}"
            _LOG.error("%s", problem)
            await self._note(name, problem, meanings)
            return
        self._refused.pop((name, version), None)
        await self._replicas.point(name, version)
        _LOG.info("%s means %s now", name, version)

    async def _note(self, name: str, problem: str, meanings: list[Meaning]) -> None:
        if any(meaning.problem != problem for meaning in meanings):
            await self._replicas.note(name, problem)


@final
class RemoteReplicas:
    """The replicas behind a handle.

    Args:
        handle: Handle of the deployment ``Generator``.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def followed(self) -> list[dict[str, Meaning]]:
        """The names that each follows, and what they mean there."""
        return cast(list[dict[str, Meaning]], await self._ask("followed"))

    async def stage(self, version: str) -> list[str]:
        """Lets each load a version; why one cannot, or empty where it did.

        Args:
            version: The registered version.

        Returns:
            One sentence of each replica.
        """
        return cast(list[str], await self._ask("stage", version))

    async def point(self, name: str, version: str) -> None:
        """Lets a name mean a version that all have loaded.

        Args:
            name: The served name.
            version: The registered version.
        """
        await self._ask("point", name, version)

    async def note(self, name: str, problem: str) -> None:
        """Says what is wrong with a name; empty for nothing.

        Args:
            name: The served name.
            problem: One sentence.
        """
        await self._ask("note", name, problem)

    def _ask(self, method: str, *args: str) -> Awaitable[list[Any]]:
        answers = self._handle.broadcast(method, *args)
        return answers.results_async(timeout_s=_ANSWERS_WITHIN_S)


@final
class Watcher:
    """The replica that watches: one for all, so that the registry is asked once, not by each.

    It is none of those that answer requests. MLflow's client blocks, and takes hundreds of
    megabytes that the ingress, of which there may be several, is better without.

    Args:
        settings: Fields of ``AppSettings``.
        generator: Handle of the deployment ``Generator``.
    """

    def __init__(self, settings: Mapping[str, Any], generator: DeploymentHandle[Any]) -> None:
        self._settings = AppSettings.from_dict(settings)
        self._watch = Watch(RemoteReplicas(generator), self._look)
        self._task: asyncio.Task[None] | None = None

    async def reconfigure(self, config: Mapping[str, Sequence[str]]) -> None:
        """Begins to watch; the application is not ready before it can.

        Args:
            config: ``names``, those that are served at first.
        """
        if not all(map(ModelVersion.is_written, config["names"])):
            await asyncio.to_thread(import_module, ".loading", __package__)  # takes seconds
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        pause_s = self._settings.watch_s
        assert pause_s is not None, "where nothing is watched there is no watch"
        while True:
            try:
                await self._watch.round()
            except (TimeoutError, DeploymentUnavailableError, RayActorError) as error:
                _LOG.info("replicas start or died, the next round sees the rest: %s", error)
            except Exception:  # the edge: nobody awaits this task, and it is to go on
                _LOG.exception("a round of the watch failed")
                await asyncio.sleep(_AFTER_FAILURE_S)
            await asyncio.sleep(pause_s)

    def _look(self, name: str) -> str:
        return look(self._settings, name)


def look(settings: AppSettings, name: str) -> str:
    """The version that a served name means by the registry, which is asked for aliases alone.

    Args:
        settings: Which registry.
        name: A reference.

    Returns:
        The version.
    """
    if ModelVersion.is_written(name):
        return name
    from .loading import version_of  # MLflow takes seconds to import

    return version_of(settings.with_model(name))
