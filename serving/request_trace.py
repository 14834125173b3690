"""What is known about one HTTP request, for its line in the log and for the metrics."""

import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Final, final

from starlette.types import Scope

from .keys import Key
from .stage import MAX_STAGES, Stage

UNKNOWN: Final = "unknown"
"""The route of all paths and the verb of all requests that there are not."""
_PLACE: Final = "onestep.trace"
_TURNED: Final = "onestep.turned_away"
_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@final
@dataclass(kw_only=True)
class Trace:
    """What each part on the way of a request learns about it.

    Attributes:
        id: The client's own name of the request, or a new one.
        arrived: When it came, by the clock that only grows.
        is_named: Whether it is the client's, or a proxy's.
        key: The key that it came with, where keys are asked for.
        reason: Why it was refused, where the status alone does not say.
        status: HTTP status; 0 until an answer begins.
        bytes_out: Bytes of the answer's body so far.
        version: Registered version that made its images.
        n: Images that it asks for.
        steps: Network evaluations for each of them.
        is_timed: Whether replicas are asked where its time goes.
        stages: Where it went there; the first ``MAX_STAGES``.
    """

    id: str = field(default_factory=lambda: secrets.token_hex(16))
    arrived: float = field(default_factory=time.monotonic)
    is_named: bool = False
    key: Key | None = None
    reason: str | None = None
    status: int = 0
    bytes_out: int = 0
    version: str | None = None
    n: int | None = None
    steps: int | None = None
    is_timed: bool = False
    stages: tuple[Stage, ...] = ()

    def note(self, stages: tuple[Stage, ...]) -> None:
        """Takes in what a replica tells of its time.

        Args:
            stages: The stages; empty where it was not asked.
        """
        if stages:
            self.stages = (*self.stages, *stages)[:MAX_STAGES]

    @property
    def asker(self) -> str:
        """Name of its key; empty for none."""
        return "" if self.key is None else self.key.name


def begin_trace(scope: Scope) -> Trace:
    """The trace of a request that begins.

    Args:
        scope: What the server knows about the request.

    Returns:
        The trace, which ``trace_of`` finds from here on.
    """
    given = header(scope, b"x-request-id")
    is_named = given is not None and _ID.fullmatch(given) is not None
    trace = Trace(id=given.decode(), is_named=True) if given and is_named else Trace()
    scope[_PLACE] = trace
    return trace


def trace_of(scope: Scope) -> Trace:
    """The trace of a request under way."""
    trace: Trace = scope[_PLACE]
    return trace


def header(scope: Scope, name: bytes) -> bytes | None:
    """A header that was sent once; None where it was not, or was more than once."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0] if len(found) == 1 else None


def path_of(scope: Scope) -> str:
    """The path as the routes see it, without the prefix that the application is served under."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path


def turn_away(scope: Scope, route: str) -> None:
    """Notes the route that a request would have reached, for who writes it down.

    Args:
        scope: The request.
        route: Template of the route.
    """
    scope[_TURNED] = route


def route_of(scope: Scope) -> str:
    """The template of the route that answers, such as /v1/models; one word for all other paths."""
    route = scope.get("route")
    return str(scope.get(_TURNED, UNKNOWN)) if route is None else str(route.path)
