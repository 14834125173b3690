"""The service of the replicas behind a handle, as the web application asks it."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from typing import Any, Final, TypeVar, cast, final

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import (
    DeploymentHandle,
    DeploymentResponse,
    DeploymentResponseGenerator,
)

from .count import count_images
from .errors import NOT_READY, Overloaded, RequestRefused
from .gathering import LINGER_S, Gathering, Wave
from .generator import Generator
from .native import AnswerT, GenerateRequest, Made, RequestT
from .refusal import refusal
from .schema import ImagesRequest, ImagesResponse, ModelList, Refusal
from .tally import Tally

READY_WITHIN_S: Final = 2.0
"""Seconds in which replicas say what they have loaded, or none has."""
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
        together: Most images of requests that travel together; 1 for none.
        linger_s: Most seconds that a request waits for company.
    """

    def __init__(
        self,
        handle: DeploymentHandle[Generator],
        names: Sequence[str],
        *,
        most: int,
        together: int = 1,
        linger_s: float = LINGER_S,
    ) -> None:
        self._handle = handle
        self._names = names
        self._most = most
        self._under_way: Counter[str] = Counter()
        asking = handle.options(stream=True)
        self._generated: Gathering[ImagesRequest, ImagesResponse | Refusal] = Gathering(
            self._generate,
            lambda requests: _waves(asking.generate_all.remote(requests)),
            most=together,
            linger_s=linger_s,
        )
        self._made: Gathering[GenerateRequest, Made | Refusal] = Gathering(
            self._make,
            lambda requests: _waves(asking.make_all.remote(requests)),
            most=together,
            linger_s=linger_s,
        )

    @property
    def crowd(self) -> int:
        """Requests under way for each model, where none takes another; 0 where one does."""
        least = min((self._under_way[name] for name in self._names), default=0)
        return least if least >= self._most else 0

    async def describe(self) -> ModelList:
        """The models that are served now.

        Returns:
            Their cards.

        Raises:
            RequestRefused: If no replica can answer, or none does in time.
        """
        models = await _in_time(answered(self._describe, self._describe))
        if models is None:
            raise RequestRefused(NOT_READY, status=503)
        if isinstance(models, Refusal):
            raise RequestRefused(models.error.message, status=models.status)
        return models

    async def _describe(self) -> ModelList:
        return await _while_awaited(self._handle.describe.remote())

    async def missing(self) -> list[str]:
        """The served names that some replica has not loaded.

        Returns:
            The names in their order; all of them where no replica answers in time.
        """
        answers: list[list[str]] | None = await _in_time(
            self._handle.broadcast("missing").results_async()
        )
        if answers is None:
            return list(self._names)
        found = set().union(*answers)
        return [name for name in self._names if name in found]

    async def tally(self) -> list[Tally] | None:
        """What each replica counts.

        Returns:
            One for each; None where one does not answer in time.
        """
        answers: list[list[Tally]] | None = await _in_time(
            self._handle.broadcast("tally").results_async()
        )
        return None if answers is None else [tally for answer in answers for tally in answer]

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        """Images, or the reason why there are none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await self._ask(request, self._generate, self._generated)

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        """A file of images, or the reason why there is none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await self._ask(request, self._make, self._made)

    async def _generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        return await _while_awaited(self._handle.generate.remote(request))

    async def _make(self, request: GenerateRequest) -> Made | Refusal:
        return await _while_awaited(self._handle.make.remote(request))

    async def _ask(
        self,
        request: RequestT,
        alone: Callable[[RequestT], Awaitable[AnswerT | Refusal]],
        together: Gathering[RequestT, AnswerT | Refusal],
    ) -> AnswerT | Refusal:
        model = request.model or next(iter(self._names), "")
        if (waiting := self._under_way[model]) >= self._most and not request.is_begun:
            return refusal(Overloaded(waiting))
        self._under_way[model] += 1
        kind = _kind(request)
        try:
            return await answered(
                lambda: (
                    alone(request)
                    if kind is None
                    else together.ask(request, kind=kind, size=count_images(request))
                ),
                lambda: alone(request),  # one of its company may have been the end of the replica
            )
        finally:
            self._under_way[model] -= 1
            if not self._under_way[model]:  # anybody may ask for any name
                del self._under_way[model]


async def answered(*calls: Callable[[], Awaitable[T]]) -> T | Refusal:
    """The answer of a replica; where it dies, that of another.

    Args:
        *calls: Each asks some replica, where the one that was asked before has died.

    Returns:
        The answer, or a refusal where none takes the call, or all die of it.
    """
    for call in calls:
        try:
            return await call()
        except BackPressureError as error:
            waiting = int(error.args[0])
            return refusal(Overloaded(waiting))
        except DeploymentUnavailableError:
            return refusal(RequestRefused(NOT_READY, status=503))
        except RayActorError as error:  # an image is a function of its request: another makes it
            _LOG.warning("a replica died over a request: %s", error)
    return refusal(RequestRefused(NOT_READY, status=503))


def _kind(request: ImagesRequest | GenerateRequest) -> Hashable:
    """What requests have in common that take as long; None for one that is unlike any other."""
    if request.deadline_ms is not None or request.quality is not None:
        return None
    if isinstance(request, ImagesRequest):
        return request.model, request.steps, request.response_format
    if request.stream or request.noise is not None:
        return None
    return request.model, request.steps


async def _in_time(answer: Awaitable[T]) -> T | None:
    """What replicas say of themselves; None where they do not in time, start, or one died."""
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            return await answer
    except (TimeoutError, DeploymentUnavailableError, RayActorError):
        return None


async def _while_awaited(answer: DeploymentResponse[T] | DeploymentResponseGenerator[T]) -> T:
    """An answer as long as somebody waits for it; Serve goes on with one that nobody does."""
    response = cast("DeploymentResponse[T]", answer)  # as the handle was asked to
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()  # type: ignore[no-untyped-call]
        raise


async def _waves(
    answers: DeploymentResponse[Any] | DeploymentResponseGenerator[Any],
) -> AsyncIterator[Wave[Any]]:
    """Answers as they come; the call ends with who waits for them."""
    streamed = cast("DeploymentResponseGenerator[Any]", answers)  # as the handle was asked to
    try:
        async for wave in streamed:
            yield wave
    except asyncio.CancelledError:
        streamed.cancel()  # type: ignore[no-untyped-call]
        raise
