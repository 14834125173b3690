"""Who is turned away unheard, because every model has as many requests as it may."""

from collections.abc import Callable, Set
from typing import final

from starlette.types import ASGIApp, Receive, Scope, Send

from .answer import respond
from .errors import Overloaded
from .refusal import refusal
from .request_trace import path_of, turn_away


@final
class Turnstile:
    """Refuses a request for images before it is read, while no model takes another.

    Most of an overload is refused. Reading it first would take the processor from those who make
    images, and from the next who are to be refused soon.

    Args:
        app: The rest of the application.
        paths: Where images are asked for, by POST.
        crowd: Tells how many requests each model has, where none takes another; 0 where one does.
    """

    def __init__(self, app: ASGIApp, *, paths: Set[str], crowd: Callable[[], int]) -> None:
        self._app = app
        self._paths = paths
        self._crowd = crowd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request pass, or refuses it."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        path = path_of(scope) if is_post else ""
        if path in self._paths and (waiting := self._crowd()):
            turn_away(scope, path)
            await respond(refusal(Overloaded(waiting)))(scope, receive, send)
            return
        await self._app(scope, receive, send)
