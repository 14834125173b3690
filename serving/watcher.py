"""The watch as a deployment of Ray Serve, over all replicas behind a handle."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast, final

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from ..platform.registry.reference import ModelVersion
from .canary_watch import CanaryWatch
from .lot import Lot
from .meaning import Meaning, look
from .schema import CanaryCard
from .settings import AppSettings
from .split import Split
from .watch import Watch

if TYPE_CHECKING:
    from ..platform.registry.canary_ledger import CanaryLedger

_STAGED_WITHIN_S: Final = 600.0
_TOLD_WITHIN_S: Final = 5.0
"""What costs a replica nothing; one that hangs is replaced, and no round waits for it so long."""
_AFTER_FAILURE_S: Final = 5.0
_LOT_S: Final = 120.0
TRIALS_S: Final = 1.0
"""Least seconds between two looks at trials, which cost as much as a look at the aliases."""
_LOG: Final = logging.getLogger(__name__)


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
        answers = self._handle.broadcast("stage", version)
        return cast(list[str], await answers.results_async(timeout_s=_STAGED_WITHIN_S))

    async def point(self, name: str, version: str) -> None:
        """Lets a name mean a version that all have loaded.

        Args:
            name: The served name.
            version: The registered version.
        """
        await self._ask("point", name, version)

    async def split(self, name: str, split: Split | None) -> None:
        """Lets a version on trial have a share of the requests on all replicas.

        Args:
            name: The served name.
            split: Which requests; None ends the trial.
        """
        await self._ask("split", name, split)

    async def tell(self, name: str, canary: CanaryCard) -> None:
        """Lets all replicas know what users are told of a trial.

        Args:
            name: The served name.
            canary: What they are told.
        """
        await self._ask("tell", name, canary)

    async def lot(self, champion: str, canary: str, number: int) -> Lot | str | None:
        """Images of two versions by one replica; why there are none; None where it is busy.

        Args:
            champion: One version.
            canary: The other.
            number: Number of the lot.

        Returns:
            The lot; None where it takes too long as well, since either may be the cause.
        """
        try:
            async with asyncio.timeout(_LOT_S):
                return cast(
                    "Lot | str | None", await self._handle.lot.remote(champion, canary, number)
                )
        except TimeoutError:
            _LOG.warning("%s and %s made no lot in %g s", champion, canary, _LOT_S)
            return None

    async def note(self, name: str, problem: str) -> None:
        """Says what is wrong with a name; empty for nothing.

        Args:
            name: The served name.
            problem: One sentence.
        """
        await self._ask("note", name, problem)

    def _ask(self, method: str, *args: object) -> Awaitable[list[Any]]:
        answers = self._handle.broadcast(method, *args)
        return answers.results_async(timeout_s=_TOLD_WITHIN_S)


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
        replicas = RemoteReplicas(generator)
        self._watch = Watch(replicas, self._look)
        self._trials = CanaryWatch(replicas, self._ledger)
        self._tasks: list[asyncio.Task[None]] = []

    async def reconfigure(self, config: Mapping[str, Sequence[str]]) -> None:
        """Begins to watch; the application is not ready before it can.

        Args:
            config: ``names``, those that are served at first.
        """
        if not all(map(ModelVersion.is_written, config["names"])):
            await asyncio.to_thread(import_module, ".loading", __package__)  # takes seconds
        if not self._tasks:  # two, so that no trial keeps an alias from being followed
            assert self._settings.watch_s is not None, "where nothing is watched there is no watch"
            pause_s = self._settings.watch_s
            self._tasks = [
                asyncio.create_task(self._run(self._watch.round, pause_s)),
                asyncio.create_task(self._run(self._trials.round, max(pause_s, TRIALS_S))),
            ]

    async def _run(self, look: Callable[[], Awaitable[None]], pause_s: float) -> None:
        while True:
            try:
                await look()
            except (TimeoutError, DeploymentUnavailableError, RayActorError) as error:
                _LOG.info("replicas start or died, the next round sees the rest: %s", error)
            except Exception:  # the edge: nobody awaits this task, and it is to go on
                _LOG.exception("a round of the watch failed")
                await asyncio.sleep(_AFTER_FAILURE_S)
            await asyncio.sleep(pause_s)

    def _look(self, name: str) -> str:
        return look(self._settings, name)

    def _ledger(self) -> "CanaryLedger":
        # MLflow takes seconds to import.
        from ..platform.registry.canary_ledger import CanaryLedger
        from .loading import registry_of

        return CanaryLedger(registry_of(self._settings))
