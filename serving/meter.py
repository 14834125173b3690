"""What a web application counts of its own requests, for Prometheus."""

from collections.abc import Iterator
from typing import Final, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric

from .request_trace import Trace

VERBS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_REASONS: Final = {
    401: "key",
    404: "not_found",
    405: "not_found",
    408: "deadline",
    413: "large_body",
    422: "invalid",
    429: "overloaded",
    499: "client_left",
    500: "failed",
    503: "not_ready",
}


@final
class Meter:
    """Counts requests by route, verb and status; all labels have few values.

    Args:
        ingress: Which of several web applications behind one address this is.
    """

    def __init__(self, ingress: str) -> None:
        self._ingress = ingress
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "onestep_http_requests",
            "Requests that were answered.",
            ["ingress", "route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "onestep_http_request_seconds",
            "Time from the head of a request to the end of its answer.",
            ["ingress", "route"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._refused = Counter(
            "onestep_http_refused",
            "Requests that were not served, by reason.",
            ["ingress", "reason"],
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "onestep_http_in_flight",
            "Requests under way.",
            ["ingress"],
            registry=self._registry,
        ).labels(ingress)

    def enter(self) -> None:
        """Counts a request that begins."""
        self._in_flight.inc()

    def leave(self, trace: Trace, *, route: str, method: str, seconds: float) -> None:
        """Counts a request that has ended.

        Args:
            trace: What is known about it.
            route: Template of its route.
            method: One of ``VERBS``, or one word for all others.
            seconds: How long it took.
        """
        self._in_flight.dec()
        self._requests.labels(self._ingress, route, method, trace.status).inc()
        self._seconds.labels(self._ingress, route).observe(seconds)
        if trace.status >= 400:
            self._refused.labels(self._ingress, reason_of(trace)).inc()

    def collect(self) -> Iterator[Metric]:
        """The metrics, without the times at which each series began."""
        for metric in self._registry.collect():
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            yield metric


def reason_of(trace: Trace) -> str | None:
    """Why a request was not served, in one word; None for one that was."""
    if trace.status < 400:
        return trace.reason
    return trace.reason or _REASONS.get(trace.status, "other")
