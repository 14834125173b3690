"""Who may come in: keys are asked for here, and what each may use is counted."""

from pathlib import Path
from typing import Any, Final, final

from fastapi import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .answer import respond
from .errors import RequestRefused
from .keys import KeyRing
from .pages import PAGES
from .quota import Quota
from .refusal import refusal
from .request_trace import Trace, header, path_of, trace_of

OPEN: Final = frozenset({*PAGES, "/openapi.json", "/healthz", "/readyz"})
"""Paths that need no key; every other does, also one that there is not."""
_BEARER: Final = b"bearer "
_SCHEME: Final = "key"
_MESSAGE: Final = "a valid key must be sent in the header Authorization: Bearer KEY"


@final
class Gate:
    """What the keys of a file allow.

    Args:
        path: The file; None asks for no keys.

    Raises:
        ValueError: If the file cannot be read.
    """

    def __init__(self, path: str | None) -> None:
        self._ring = None if path is None else KeyRing(Path(path))
        self._quota = Quota()

    def enter(self, scope: Scope) -> Response | None:
        """Lets a request in, or not.

        Args:
            scope: The request.

        Returns:
            None if it may come in, else the answer; a missing key and a wrong one get the same.
        """
        if self._ring is None or path_of(scope) in OPEN:
            return None
        trace = trace_of(scope)
        given = header(scope, b"authorization") or b""
        is_bearer = given[: len(_BEARER)].lower() == _BEARER
        trace.key = self._ring.find(given[len(_BEARER) :].strip()) if is_bearer else None
        if trace.key is None:
            trace.reason = "key"
            return respond(refusal(RequestRefused(_MESSAGE, status=401)))
        return self._take(trace, "requests", 1, trace.key.requests_per_minute)

    def charge(self, trace: Trace, n: int) -> Response | None:
        """Counts the images of a valid request, also of one that the model then refuses.

        Args:
            trace: The request.
            n: How many images it asks for.

        Returns:
            None if it may have them, else the answer.
        """
        trace.n = n
        limit = None if trace.key is None else trace.key.images_per_minute
        if limit is not None and n > limit:
            refused = RequestRefused(
                f"n must be at most the {limit} images that this key may ask for in a minute, "
                f"got {n}",
                param="n",
            )
            return respond(refusal(refused))
        return self._take(trace, "images", n, limit)

    def _take(self, trace: Trace, what: str, cost: int, limit: int | None) -> Response | None:
        if trace.key is None or limit is None:
            return None
        wait_s = self._quota.take(what, trace.key.name, cost=cost, limit=limit)
        if wait_s == 0:
            return None
        trace.reason = what
        refused = RequestRefused(
            f"this key may ask for {limit} {what} in a minute; try again in {wait_s} s",
            status=429,
            retry_after_s=wait_s,
        )
        return respond(refusal(refused))

    def declare(self, schema: dict[str, Any]) -> None:
        """Says in an OpenAPI schema where a key is asked for, if one is.

        Args:
            schema: The schema, which is changed.
        """
        if self._ring is None:
            return
        schemes = schema.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes[_SCHEME] = {"type": "http", "scheme": "bearer"}
        answer = {
            "description": "No key, or none that is valid",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
        }
        for path, operations in schema["paths"].items():
            for operation in operations.values() if path not in OPEN else ():
                operation["security"] = [{_SCHEME: []}]
                operation["responses"]["401"] = answer


@final
class KeyGate:
    """The gate before an application: what may not come in is answered before its body is read.

    Args:
        app: The application.
        gate: Who may come in.
    """

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        refused = self._gate.enter(scope) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)
