"""A collector of spans on a free port of this machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

SERVER: Final = Span.SPAN_KIND_SERVER
ERROR: Final = Status.STATUS_CODE_ERROR


@final
@dataclass(frozen=True, kw_only=True)
class Taken:
    """A span as the collector has it."""

    span: Span
    attributes: dict[str, object]
    resource: dict[str, object]

    @property
    def name(self) -> str:
        return str(self.span.name)

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()


@final
class Collector:
    """Takes spans and keeps them."""

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []

    @property
    def spans(self) -> list[Taken]:
        """All spans, those that began first in front."""
        found = [
            Taken(span=span, attributes=_plain(span.attributes), resource=_plain(each.resource))
            for body in self.bodies
            for each in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in each.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda taken: taken.span.start_time_unix_nano)

    @property
    def requests(self) -> list[Taken]:
        """Spans of requests."""
        return [taken for taken in self.spans if taken.span.kind == SERVER]

    def inside(self, taken: Taken) -> list[Taken]:
        """Its children, in order."""
        return [one for one in self.spans if one.span.parent_span_id == taken.span.span_id]


def _plain(found: Any) -> dict[str, object]:
    pairs: list[KeyValue] = list(getattr(found, "attributes", found))
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector for the time of the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                collector.headers.append(dict(self.headers))
                collector.bodies.append(body)
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
