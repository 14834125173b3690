"""The threshold of the application: who is inside, and whether anybody else is let in."""

from collections.abc import Callable
from typing import Final, final

from starlette.types import ASGIApp, Receive, Scope, Send

from .answer import respond
from .errors import RequestRefused
from .refusal import refusal

STOPPING: Final = "the server is stopping; try again in a second"


@final
class Threshold:
    """What requests pass.

    Attributes:
        inside: How many are inside.
        is_closed: Whether no other is let in.
        last: Is called when all have left and the process is about to end.
    """

    def __init__(self) -> None:
        self.inside = 0
        self.is_closed = False
        self.last: Callable[[], None] = _nothing


def _nothing() -> None:
    """Nobody waits for the end."""


@final
class Doorkeeper:
    """Refuses requests beyond a closed threshold as a server does that is not ready.

    Without it they would have Serve's own answer while it stops, which tells them that there is no
    such path: no client tries again after that.

    Args:
        app: The rest of the application.
        threshold: What they pass.
    """

    def __init__(self, app: ASGIApp, *, threshold: Threshold) -> None:
        self._app = app
        self._threshold = threshold

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request in, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._threshold.is_closed:
            await respond(refusal(RequestRefused(STOPPING, status=503)))(scope, receive, send)
            return
        self._threshold.inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._threshold.inside -= 1
