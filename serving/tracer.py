"""Traces of requests in OpenTelemetry's form, sent to a collector by a thread of their own."""

import logging
import threading
import time
from typing import Final, final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from starlette.types import Scope

from .. import __version__
from ..platform.password import hide_passwords
from .meter import VERBS, reason_of
from .request_trace import UNKNOWN, Trace, route_of
from .stage import Stage

MAX_SPANS: Final = 2048
"""Spans that wait to be sent; while there are more, the oldest are lost."""
SEND_S: Final = 2.0
"""Seconds in which the collector must have taken what it is sent."""
_SAY_S: Final = 60.0
"""Seconds between two lines of the log that say that it does not."""
_PARENT: Final = TraceContextTextMapPropagator()
_SENDERS: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
"""Loggers of the packages that send, which say each time what is wrong."""
_LOG: Final = logging.getLogger(__name__)


@final
class Tracer:
    """Makes a span of each request that is traced, and of its stages.

    A request that comes with a parent is traced where its parent is; of the others a share is. A
    collector that does not answer costs spans, and no request anything.

    Args:
        url: Where the collector takes spans over HTTP.
        share: Of the requests without a parent, in [0, 1].
        ingress: Which of several web applications behind one address this is.
    """

    def __init__(self, url: str, *, share: float, ingress: str) -> None:
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=SEND_S)
        own: dict[str, AttributeValue] = {
            "service.name": "onestep",
            "service.version": __version__,
            "service.instance.id": ingress,
        }
        # What the environment says in OpenTelemetry's own variables comes before it.
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=resource,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(self._exporter, max_queue_size=MAX_SPANS)
        )
        self._tracer = self._provider.get_tracer("onestep.serving", __version__)
        self._silence = _Silence(url)
        for name in _SENDERS:
            logging.getLogger(name).addFilter(self._silence)

    def begin(self, scope: Scope, trace: Trace) -> Span | None:
        """Begins the span of a request.

        Args:
            scope: What the server knows about the request.
            trace: What is known about it, which learns whether it is traced.

        Returns:
            The span; None for a request that is not traced.
        """
        span = self._tracer.start_span("HTTP", context=_parent(scope), kind=SpanKind.SERVER)
        trace.is_timed = span.is_recording()
        return span if trace.is_timed else None

    def end(self, span: Span, scope: Scope, trace: Trace) -> None:
        """Ends the span of a request, with all that is known about it.

        Args:
            span: The span.
            scope: What the server knows about the request.
            trace: What is known about it.
        """
        route, is_known = route_of(scope), scope["method"] in VERBS
        verb = scope["method"] if is_known else "HTTP"
        span.update_name(verb if route == UNKNOWN else f"{verb} {route}")
        span.set_attributes(_told(scope, trace, method=verb if is_known else "_OTHER"))
        if trace.status >= 500 or trace.reason == "failed":
            span.set_status(StatusCode.ERROR)
        inside = set_span_in_context(span, Context())
        for stage in trace.stages:
            self._tell(stage, inside)
        span.end()

    def _tell(self, stage: Stage, inside: Context) -> None:
        rows = None if stage.rows is None else {"onestep.rows": stage.rows}
        self._tracer.start_span(
            stage.name, context=inside, attributes=rows, start_time=stage.began_ns
        ).end(stage.ended_ns)

    def close(self) -> None:
        """Sends what is not sent yet, as far as the collector takes it within a few seconds."""
        # It waits for its thread for half a minute, which tries again and again until this.
        end = threading.Timer(SEND_S, self._exporter.shutdown)
        end.daemon = True
        end.start()
        self._provider.shutdown()
        end.cancel()
        for name in _SENDERS:
            logging.getLogger(name).removeFilter(self._silence)


@final
class _Silence(logging.Filter):
    """Lets one line of a minute reach the log, in words of ours.

    Args:
        url: Where the collector is.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = hide_passwords(url)
        self._said: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Says it in another line, if it is time to, and never in its own."""
        now = time.monotonic()
        if record.levelno >= logging.WARNING and (self._said is None or now - self._said > _SAY_S):
            self._said = now
            why = hide_passwords(record.getMessage())
            _LOG.warning(
                "traces are lost on the way to %s, which is said once a minute: %s", self._url, why
            )
        return False


def _parent(scope: Scope) -> Context:
    """The trace that a request is a part of, by its headers; none where they are not understood."""
    given: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        if name in (b"traceparent", b"tracestate"):
            given.setdefault(name.decode(), []).append(value.decode("latin-1"))
    if len(given.get("traceparent", ())) != 1:
        return Context()
    return _PARENT.extract({name: ",".join(values) for name, values in given.items()}, Context())


def _told(scope: Scope, trace: Trace, *, method: str) -> dict[str, AttributeValue]:
    """What a span says of its request: by the conventions first, then what only we know."""
    route = route_of(scope)
    found: dict[str, AttributeValue | None] = {
        "http.request.method": method,
        "http.route": None if route == UNKNOWN else route,
        "http.response.status_code": trace.status,
        "url.scheme": scope["scheme"],
        "error.type": str(trace.status) if trace.status >= 500 else None,
        "onestep.request_id": trace.id,
        "onestep.key": None if trace.key is None else trace.key.name,
        "onestep.model": trace.version,
        "onestep.n": trace.n,
        "onestep.steps": trace.steps,
        "onestep.reason": reason_of(trace),
    }
    return {name: value for name, value in found.items() if value is not None}
