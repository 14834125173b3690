"""Bodies of requests: none larger, and none slower, than is allowed."""

import asyncio
from typing import Final, final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .request_trace import header

_MEGABYTE: Final = 10**6


@final
class BodyLimit:
    """Counts a body as it is read, whatever length it claims to have.

    Args:
        app: The application, which answers the ``HTTPException`` that reading a body may raise.
        max_mb: Most megabytes of a body.
        timeout_s: Seconds in which all of it must be there.
    """

    def __init__(self, app: ASGIApp, *, max_mb: int, timeout_s: float) -> None:
        self._app = app
        self._max_mb = max_mb
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on with a body that ends where it is too large or too slow."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        claimed = header(scope, b"content-length") or b"0"
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        size, ended = 0, False

        async def counted() -> Message:
            nonlocal size, ended
            if ended:  # what comes now is that the client left, for which there is no hurry
                return await receive()
            if claimed.isdigit() and int(claimed[:20]) > self._max_mb * _MEGABYTE:
                raise self._too_large()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, f"the body must be there within {self._timeout_s:g} s, got a part of it"
                ) from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                ended = not message.get("more_body", False)
                if size > self._max_mb * _MEGABYTE:
                    raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body must be at most {self._max_mb} MB, got more")
