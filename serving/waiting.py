"""What an answer is waited for: as long as there is time, and the client is there."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request

from .errors import ClientLeft, DeadlineUnmet
from .native import RequestT
from .request_trace import Trace

T = TypeVar("T")


def with_time_left(request: RequestT, trace: Trace) -> RequestT:
    """A request whose deadline is counted from now, so that other clocks can keep it.

    Args:
        request: Whose deadline is counted from its arrival.
        trace: When it came.

    Returns:
        The request as it goes to the models.

    Raises:
        DeadlineUnmet: If its time is over.
    """
    if request.deadline_ms is None:
        return request
    gone_ms = 1000 * (time.monotonic() - trace.arrived)
    left = int(request.deadline_ms - gone_ms)
    if left < 1:
        raise DeadlineUnmet(gone_ms / 1000, is_asked=True)
    return request.model_copy(update={"deadline_ms": left})


def room(deadline_ms: int | None, timeout_s: float) -> float:
    """Seconds that a request may take.

    Args:
        deadline_ms: Milliseconds that its client gives; None for no deadline.
        timeout_s: The server's own bound, which holds for all.
    """
    return timeout_s if deadline_ms is None else min(timeout_s, deadline_ms / 1000)


async def while_wanted(
    work: Awaitable[T], http: Request, *, deadline_ms: int | None, timeout_s: float
) -> T:
    """An answer that somebody waits for; what makes it is cancelled otherwise.

    Args:
        work: What makes the answer.
        http: The request, whose body has been read.
        deadline_ms: Milliseconds that the client still gives; None for the server's bound.
        timeout_s: That bound.

    Returns:
        The answer.

    Raises:
        ClientLeft: If the client goes away before.
        DeadlineUnmet: If the time is over before.
    """
    room_s = room(deadline_ms, timeout_s)
    making, leaving = asyncio.ensure_future(work), asyncio.create_task(_left(http))
    try:
        await asyncio.wait((making, leaving), timeout=room_s, return_when=asyncio.FIRST_COMPLETED)
        if making.done():
            return making.result()
        if leaving.done():
            leaving.result()  # of a body that nobody asked for it tells what is wrong with it
            raise ClientLeft
        raise DeadlineUnmet(room_s, is_asked=deadline_ms is not None)
    finally:
        making.cancel()
        leaving.cancel()


async def _left(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
