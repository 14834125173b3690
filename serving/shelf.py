"""The shelf of a replica: loaded models by version, within a bound of memory."""

import asyncio
import itertools
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, final

from .errors import LoadFailed, ModelDead
from .service import EngineService
from .tally import Tally

RETRY_S: Final = 5.0
"""Seconds after which a request loads a version again that did not load."""
_LOG: Final = logging.getLogger(__name__)


@final
class Shelf:
    """Loads a model when it is first asked for, and closes the one not asked for the longest.

    A model loads beside those that answer, in threads that do nothing else, so that no file of
    images waits for one; for that time the bound may be passed by its size. One that answers
    requests is never closed: the bound may be passed until it is idle. The last model stays,
    whatever its size. A failure is told to all who wait for that load and to who comes within some
    seconds of it, so that requests load nothing in vain all the time.

    Args:
        load: Makes the service of a version, warm; it runs in a thread.
        memory_bytes: Most bytes of parameters and buffers of all models together.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        load: Callable[[str], EngineService],
        *,
        memory_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._memory_bytes = memory_bytes
        self._clock = clock
        self._threads = ThreadPoolExecutor(thread_name_prefix="load")
        self._failed: dict[str, tuple[str, float]] = {}  # why, and until when it is not tried
        self._models: dict[str, _Model] = {}
        self._loads: dict[str, asyncio.Task[_Model]] = {}
        self._uses = itertools.count()
        self._num_loads = 0
        self._num_failures = 0

    @property
    def versions(self) -> tuple[str, ...]:
        """The loaded versions, the one not used for the longest first."""
        return tuple(sorted(self._models, key=lambda version: self._models[version].used))

    @property
    def nbytes(self) -> int:
        """Bytes of parameters and buffers of all loaded models."""
        return sum(model.service.nbytes for model in self._models.values())

    @property
    def waiting(self) -> int:
        """Requests that wait for a forward of any model."""
        return sum(model.service.counted.waiting for model in self._models.values())

    @property
    def tally(self) -> Tally:
        """What was loaded, and what the loaded models have done."""
        return Tally(
            models=tuple(self._models[version].service.counted for version in self.versions),
            loads=self._num_loads,
            load_failures=self._num_failures,
        )

    def dead(self, *, stuck_s: float) -> dict[str, ModelDead]:
        """The loaded versions that answer no more, however much waits for them, and why.

        Args:
            stuck_s: Seconds that one forward may take.
        """
        found = {}
        for version, model in self._models.items():
            try:
                model.service.check(stuck_s=stuck_s)
            except ModelDead as error:
                found[version] = error
        return found

    def drop(self, version: str) -> None:
        """Takes away a loaded model that answers no more; who borrows it waits in vain.

        Args:
            version: The registered version.
        """
        self._models.pop(version).service.close()

    def forgive(self, version: str) -> None:
        """Lets a version be tried at once that did not load.

        Args:
            version: The registered version.
        """
        self._failed.pop(version, None)

    @asynccontextmanager
    async def borrow(self, version: str) -> AsyncIterator[EngineService]:
        """A loaded model, which stays loaded inside the block.

        Args:
            version: The registered version.

        Yields:
            EngineService: Its service, warm.

        Raises:
            LoadFailed: If it does not load, or did not a few seconds ago.
        """
        model = await self._get(version)
        model.borrowers += 1
        model.used = next(self._uses)
        try:
            self._trim()
            yield model.service
        finally:
            model.borrowers -= 1
            self._trim()

    async def _get(self, version: str) -> "_Model":
        # A model may be closed between the end of its load and the turn of one who waited for it.
        while (model := self._models.get(version)) is None:
            task = self._loads.get(version)
            if task is None:
                self._check(version)
                task = self._loads[version] = asyncio.create_task(self._fetch(version))
                task.add_done_callback(_heard)
            await asyncio.shield(task)  # a client that goes away takes the model from no other
        return model

    def _check(self, version: str) -> None:
        """Raises what the last load did, unless that is long ago."""
        why, until = self._failed.get(version, ("", 0.0))
        if (left_s := until - self._clock()) > 0.0 and why:
            raise LoadFailed(version, why=why, retry_after_s=math.ceil(left_s))

    async def _fetch(self, version: str) -> "_Model":
        try:
            loop = asyncio.get_running_loop()
            service = await loop.run_in_executor(self._threads, self._load, version)
        except ValueError as error:
            _LOG.warning("%s does not load: %s", version, error)
            raise self._failure(version, str(error)) from error
        except Exception as error:  # the edge of the model: its error is told, not its traceback
            _LOG.exception("%s does not load", version)
            raise self._failure(version, f"{type(error).__name__}, see the log") from error
        finally:
            del self._loads[version]
        self._num_loads += 1
        self._failed.pop(version, None)
        model = self._models[version] = _Model(service, used=next(self._uses))
        return model

    def _failure(self, version: str, why: str) -> LoadFailed:
        """What is told of a load that failed, now and to who comes soon."""
        self._num_failures += 1
        now = self._clock()
        self._failed = {one: said for one, said in self._failed.items() if said[1] > now}
        self._failed[version] = why, now + RETRY_S
        return LoadFailed(version, why=why, retry_after_s=math.ceil(RETRY_S))

    def _trim(self) -> None:
        """Close idle models until the rest fits, but never the one that was used last."""
        for version in self.versions[:-1]:
            if self.nbytes <= self._memory_bytes:
                return
            if self._models[version].borrowers == 0:
                self._models.pop(version).service.close()


@final
class _Model:
    """A loaded model, how many requests it answers, and when it was last asked for."""

    def __init__(self, service: EngineService, *, used: int) -> None:
        self.service = service
        self.used = used
        self.borrowers = 0


def _heard(task: "asyncio.Task[_Model]") -> None:
    """An error that nobody waits for any more is no news."""
    if not task.cancelled():
        task.exception()
