"""Follows the aliases that are served: a moved one is swapped on all replicas, or on none."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol, final

from .errors import without_paths
from .meaning import Meaning

RETRY_S: Final = 10.0
"""Seconds after which a version that did not load is tried again, while its alias stays."""
_LOG: Final = logging.getLogger(__name__)


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
    version before any of them serves it. A load that takes long holds up no other name: rounds
    pass over a name until it is mended.

    Args:
        replicas: All replicas.
        look: The version that an alias means now, by the registry; it runs in a thread.
        clock: Seconds that only grow.
        patience_s: Seconds that a round waits for the names; then the next looks at the others.
    """

    def __init__(
        self,
        replicas: Replicas,
        look: Callable[[str], str],
        *,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = 1.0,
    ) -> None:
        self._replicas = replicas
        self._look = look
        self._clock = clock
        self._patience_s = patience_s
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, tuple[str, float]] = {}  # version, and until when

    async def round(self) -> None:
        """Looks once, and mends what differs.

        Raises:
            Exception: Whatever befell the first name that failed since the round before.
        """
        states = await self._replicas.followed()
        names = dict.fromkeys(name for state in states for name in state)
        for name in names:
            if name not in self._under_way:
                said = [state[name] for state in states if name in state]
                self._under_way[name] = asyncio.create_task(self._follow(name, said))
        if not self._under_way:
            return
        done, _ = await asyncio.wait(self._under_way.values(), timeout=self._patience_s)
        self._under_way = {name: task for name, task in self._under_way.items() if task not in done}
        if failures := [error for task in done if (error := task.exception()) is not None]:
            for error in failures[1:]:
                _LOG.error("a name was not followed", exc_info=error)
            raise failures[0]

    async def _follow(self, name: str, meanings: list[Meaning]) -> None:
        try:
            version = await asyncio.to_thread(self._look, name)
        except ValueError as error:
            await self._note(name, f"{name} cannot be looked up: {error}", meanings)
            return
        if all(meaning.version == version for meaning in meanings):
            await self._note(name, "", meanings)
            return
        refused, until = self._refused.get(name, ("", 0.0))
        if version == refused and self._clock() < until:
            return
        failures = [why for why in await self._replicas.stage(version) if why]
        if failures:
            self._refused[name] = (version, self._clock() + RETRY_S)
            problem = f"{name} means {version}, which does not load: {failures[0]}"
            _LOG.error("%s", problem)
            await self._note(name, problem, meanings)
            return
        self._refused.pop(name, None)
        await self._replicas.point(name, version)
        _LOG.info("%s means %s now", name, version)

    async def _note(self, name: str, problem: str, meanings: list[Meaning]) -> None:
        problem = without_paths(problem)  # as the replicas tell it to users
        if any(meaning.problem != problem for meaning in meanings):
            await self._replicas.note(name, problem)
