"""A trial on one replica: which requests the version gets, and what becomes of them."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, final

from .engine import MAX_IMAGES
from .native import AnswerT, Made
from .schema import ImagesResponse, Refusal
from .split import Split

Ask = Callable[[str, float], Awaitable[AnswerT | Refusal]]
SHORT: Final = 4
"""Requests that may wait for a forward where a shadow still comes in."""
_TOO_LATE: Final = 408
_FULL: Final = 429
_LOG: Final = logging.getLogger(__name__)


@final
@dataclass(kw_only=True)
class Counted:
    """What a version on trial has done on one replica.

    Attributes:
        requests: Requests that it answered, or should have.
        errors: Those of them that the champion answered in its place.
        images: Images that it made.
        dropped: Shadows that were left out because others waited.
    """

    requests: int = 0
    errors: int = 0
    images: int = 0
    dropped: int = 0


@final
class Trial:
    """Gives a version on trial its share; what it does not answer, the champion does.

    An error is a request that the version did not answer and the champion did. So neither a
    request that no model takes speaks against it, nor does one that it fails reach the user. It
    has half of the time that a request has, so that the champion can still answer in the other.
    That it is predicted to need more than the half is no error, since of the whole it might not:
    the champion then has all the time, and the request counts for neither. Nor is it an error that
    its queue is full, or that a request spends the half in it while others of it are answered: who
    has most of the requests has the longest queue.

    Args:
        split: Which requests it gets.
        waiting: How many requests wait for a forward on this replica.
    """

    def __init__(self, split: Split, *, waiting: Callable[[], int]) -> None:
        self.split = split
        self.counted = Counted()
        self._waiting = waiting
        self._shadow: asyncio.Task[None] | None = None
        self._made = -math.inf  # when it last made images

    async def answer(
        self, key: str, champion: str, ask: Ask[AnswerT], *, room_s: float
    ) -> AnswerT | Refusal:
        """The answer to a request.

        Args:
            key: What decides on which side of the split it is.
            champion: The version that answers all others.
            ask: Answers the request by a version within so many seconds.
            room_s: Seconds that the request has.

        Returns:
            The answer.
        """
        if not self.split.takes(key):
            return await ask(champion, room_s)
        if self.split.shadow:
            answer = await ask(champion, room_s)
            if not isinstance(answer, Refusal):
                self._cast_shadow(ask, room_s)
            return answer
        began = time.monotonic()
        found = await self._tried(ask, room_s / 2)
        if not isinstance(found, _Failure):
            self._count(found)
            return found
        answer = await ask(champion, room_s - (time.monotonic() - began))
        # Else the request is at fault, or what waits, or half of its time, and no version.
        if not (isinstance(answer, Refusal) or found.is_excused):
            self._count(found)
        return answer

    def close(self) -> None:
        """Leaves the shadow that is under way."""
        if self._shadow is not None:
            self._shadow.cancel()

    def _cast_shadow(self, ask: Ask[AnswerT], room_s: float) -> None:
        """Ask the version as well, once the user's answer is made, one at a time."""
        is_busy = self._shadow is not None and not self._shadow.done()
        if is_busy or self._waiting() > SHORT:
            self.counted.dropped += 1
            return

        async def shadow() -> None:
            found = await self._tried(ask, room_s)
            if isinstance(found, _Failure) and found.is_excused:
                self.counted.dropped += 1
            else:
                self._count(found)

        self._shadow = asyncio.create_task(shadow())

    async def _tried(self, ask: Ask[AnswerT], room_s: float) -> "AnswerT | _Failure":
        """The answer of the version, or why there is none."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(room_s):
                answer = await ask(self.split.version, room_s)
        except TimeoutError:
            return _Failure(why=f"no answer in {room_s:.3g} s", is_excused=self._made > began)
        except Exception:  # the edge of the model on trial: its error is counted, not passed on
            _LOG.exception("%s, which is on trial, failed", self.split.version)
            return _Failure(why="")
        if isinstance(answer, Refusal):
            has_waited = answer.status == _TOO_LATE and self._made > began
            is_excused = answer.status == _FULL or answer.is_predicted or has_waited
            return _Failure(why=answer.error.message, is_excused=is_excused)
        if _images(answer):
            self._made = time.monotonic()
        return answer

    def _count(self, found: "ImagesResponse | Made | _Failure") -> None:
        self.counted.requests += 1
        if isinstance(found, _Failure):
            if found.why:
                _LOG.warning("%s, on trial: %s", self.split.version, found.why)
            self.counted.errors += 1
        else:
            self.counted.images += _images(found)


@final
@dataclass(frozen=True, kw_only=True)
class _Failure:
    """Why a version on trial made no answer.

    Attributes:
        why: One sentence; empty where it is logged already.
        is_excused: Whether that says nothing of the version.
    """

    why: str
    is_excused: bool = False


def _images(answer: ImagesResponse | Made) -> int:
    """Images that were made; addresses are none yet, and of a stream it is the first part."""
    if isinstance(answer, Made):
        return min(int(answer.headers["X-Onestep-N"]), MAX_IMAGES)
    return answer.usage.images if answer.usage.network_evaluations else 0
