"""The journal: each request has an id, a line in the log, a place in the metrics, and an answer."""

import json
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, final
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access_log import ACCESS, open_access_log
from .answer import respond
from .errors import FAILED, RequestRefused
from .meter import VERBS, Meter
from .refusal import refusal
from .request_trace import UNKNOWN, Trace, begin_trace, route_of

if TYPE_CHECKING:
    from .tracer import Tracer

_LEFT: Final = 499  # of nginx: the client went away before an answer began
_LOG: Final = logging.getLogger(__name__)


@final
class Journal:
    """The outermost part of the application, which sees every request and every answer.

    What nobody foresaw, such as a replica that died, is answered here in the shape of every other
    refusal: the log has all of it, the client none of it.

    Args:
        app: The rest of the application.
        headers: Headers of every answer, in the place of its own.
        meter: Counts the requests.
        access_log: Whether each has a line in the log ``onestep.access``.
        access_file: File of that log; None for stderr.
        is_echoed: Whether a proxy before it adds the id that a request came with to the answer.
        tracer: Sends traces of the requests; None for none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        headers: Mapping[str, str],
        meter: Meter,
        access_log: bool,
        access_file: str | None = None,
        is_echoed: bool = False,
        tracer: "Tracer | None" = None,
    ) -> None:
        self._app = app
        self._headers = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
        self._names = {b"x-request-id", *(name for name, _ in self._headers)}
        self._meter = meter
        self._access_log = access_log
        self._is_echoed = is_echoed
        self._tracer = tracer
        if access_log:
            open_access_log(access_file)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request and writes down that it did."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = begin_trace(scope)
        own = list(self._headers)
        if not (self._is_echoed and trace.is_named):
            own.append((b"x-request-id", trace.id.encode()))

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
                given = message.get("headers", ())
                kept = [pair for pair in given if pair[0].lower() not in self._names]
                message = {**message, "headers": [*kept, *own]}
            elif message["type"] == "http.response.body":
                trace.bytes_out += len(message.get("body", b""))
            await send(message)

        begin = time.perf_counter()
        self._meter.enter()
        span = None if self._tracer is None else self._tracer.begin(scope, trace)
        try:
            await self._app(scope, receive, noted)
        except Exception:
            # The path as it was sent, in which no newline begins a line of another's.
            path = quote(scope["path"])
            _LOG.exception("%s %s failed, request %s", scope["method"], path, trace.id)
            if trace.status:  # too late for another answer: the server cuts this one off
                trace.reason = "failed"
                raise
            refused = RequestRefused(FAILED, status=500)
            await respond(refusal(refused))(scope, receive, noted)
        finally:
            self._leave(scope, trace, time.perf_counter() - begin)
            if self._tracer is not None and span is not None:
                self._tracer.end(span, scope, trace)

    def _leave(self, scope: Scope, trace: Trace, seconds: float) -> None:
        trace.status = trace.status or _LEFT
        method = scope["method"] if scope["method"] in VERBS else UNKNOWN
        self._meter.leave(trace, route=route_of(scope), method=method, seconds=seconds)
        if self._access_log:
            ACCESS.info(_line(trace, route_of(scope), method, seconds))


def _line(trace: Trace, route: str, method: str, seconds: float) -> str:
    """One line of JSON in ASCII: no value can end it or begin another."""
    return json.dumps(
        {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": trace.id,
            "method": method,
            "route": route,
            "status": trace.status,
            "ms": round(1000 * seconds, 3),
            "key": None if trace.key is None else trace.key.name,
            "model": trace.version,
            "n": trace.n,
            "steps": trace.steps,
            "bytes": trace.bytes_out,
        }
    )
