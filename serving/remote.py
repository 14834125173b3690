"""The service of the replicas behind a handle, as the web application asks it."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar, final

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from .errors import Overloaded, RequestRefused
from .generator import Generator
from .native import GenerateRequest, Made
from .refusal import refusal
from .schema import ImagesRequest, ImagesResponse, ModelList, Refusal
from .tally import Tally

READY_WITHIN_S: Final = 2.0
"""Seconds in which all replicas say what they have loaded, or none has."""
_REPLICAS_TRIED: Final = 2
"""Replicas that one request may meet their end with."""
_NOT_READY: Final = "no model is ready; try again in a second"
_LOG: Final = logging.getLogger(__name__)
T = TypeVar("T")


@final
class RemoteService:
    """The service of the replicas behind a handle.

    Args:
        handle: Handle of the deployment ``Generator``.
        names: The served names.
        most: Requests for one model that may be under way here. The next is refused at once: the
            replicas would refuse it too, for the price of the way there.
    """

    def __init__(
        self,
        handle: DeploymentHandle[Generator],
        names: Sequence[str],
        *,
        most: int,
    ) -> None:
        self._handle = handle
        self._names = names
        self._most = most
        self._under_way: Counter[str] = Counter()

    async def describe(self) -> ModelList:
        """The models that are served now.

        Returns:
            Their cards.

        Raises:
            RequestRefused: If no replica can answer.
        """
        models: ModelList | Refusal = await answered(self._handle.describe.remote)
        if isinstance(models, Refusal):
            raise RequestRefused(models.error.message, status=models.error.code)
        return models

    async def missing(self) -> list[str]:
        """The served names that some replica has not loaded.

        Returns:
            The names in their order; all of them where no replica answers in time.
        """
        asked = self._handle.broadcast("missing")
        try:
            answers: list[list[str]] = await asked.results_async(timeout_s=READY_WITHIN_S)
        except (TimeoutError, DeploymentUnavailableError, RayActorError):  # they start, or one died
            return list(self._names)
        found = set().union(*answers)
        return [name for name in self._names if name in found]

    async def tally(self) -> list[Tally] | None:
        """What each replica counts.

        Returns:
            One for each; None where one does not answer in time.
        """
        asked = self._handle.broadcast("tally")
        try:
            answers: list[list[Tally]] = await asked.results_async(timeout_s=READY_WITHIN_S)
        except (TimeoutError, DeploymentUnavailableError, RayActorError):  # they start, or one died
            return None
        return [tally for answer in answers for tally in answer]

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        """Images, or the reason why there are none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await self._ask(request, lambda: self._handle.generate.remote(request))

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        """A file of images, or the reason why there is none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await self._ask(request, lambda: self._handle.make.remote(request))

    async def _ask(
        self, request: ImagesRequest | GenerateRequest, call: Callable[[], Awaitable[T]]
    ) -> T | Refusal:
        model = request.model if request.model in self._names else ""
        if (waiting := self._under_way[model]) >= self._most:
            return refusal(Overloaded(waiting))
        self._under_way[model] += 1
        try:
            return await answered(call)
        finally:
            self._under_way[model] -= 1


async def answered(call: Callable[[], Awaitable[T]]) -> T | Refusal:
    """The answer of a replica; where it dies, that of another.

    Args:
        call: Asks some replica.

    Returns:
        The answer, or a refusal where none takes the call, or two die of it.
    """
    for _ in range(_REPLICAS_TRIED):
        try:
            return await call()
        except BackPressureError as error:
            waiting = int(error.args[0])
            return refusal(Overloaded(waiting))
        except DeploymentUnavailableError:
            return refusal(RequestRefused(_NOT_READY, status=503))
        except RayActorError as error:  # an image is a function of its request: another makes it
            _LOG.warning("a replica died over a request: %s", error)
    return refusal(RequestRefused(_NOT_READY, status=503))
