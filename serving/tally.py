"""What replicas count of their models, and the page of metrics that is made of it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final, final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .meter import Meter

_OF_A_MODEL: Final = {
    "forwards": "Forward passes of the network.",
    "rows": "Rows of all forward passes, without those that only fill a bucket.",
    "images": "Images that were made for an answer.",
    "evaluations": "Network evaluations of these images.",
    "forward_seconds": "Time in forward passes, with samplers and decoding of latents.",
    "encoding_seconds": "Time in which images became files.",
}
_OF_A_MODEL_NOW: Final = {
    "waiting": "Requests that wait for a forward pass.",
    "loaded_bytes": "Bytes of parameters and buffers.",
}
_OF_A_REPLICA: Final = {
    "loads": "Models that were loaded.",
    "load_failures": "Models that did not load.",
    "swaps": "Times that a served name came to mean another version.",
}
_OF_A_REPLICA_NOW: Final = {
    "models_loaded": "Models that are loaded.",
    "problems": "Served names that do not mean the version that they should.",
}


@final
@dataclass(kw_only=True)
class Counts:
    """What one loaded model has done so far; each number has one writer at a time.

    Attributes:
        forwards: Forward passes of the network.
        rows: Their rows.
        images: Images of answers.
        evaluations: Network evaluations of these images.
        forward_seconds: Seconds in forward passes, with samplers and decoders.
        encoding_seconds: Seconds in which images became files.
    """

    forwards: int = 0
    rows: int = 0
    images: int = 0
    evaluations: int = 0
    forward_seconds: float = 0.0
    encoding_seconds: float = 0.0


@final
@dataclass(frozen=True, kw_only=True)
class ModelTally:
    """What one loaded model has done, and what waits for it.

    Attributes:
        version: Its registered version.
        counts: What it has done since it was loaded.
        waiting: Requests that wait for a forward pass.
        loaded_bytes: Bytes of its parameters and buffers.
    """

    version: str
    counts: Counts
    waiting: int
    loaded_bytes: int


@final
@dataclass(frozen=True, kw_only=True)
class Tally:
    """What one replica has done.

    Attributes:
        models: Its loaded models; one that leaves the shelf leaves the metrics.
        replica: Which replica it is.
        loads: Models that it has loaded.
        load_failures: Models that it could not load.
        swaps: Times that a name came to mean another version.
        problems: Served names that do not mean the version that they should.
    """

    models: tuple[ModelTally, ...]
    replica: str = "local"
    loads: int = 0
    load_failures: int = 0
    swaps: int = 0
    problems: int = 0


@final
class _Page(Collector):
    """The metrics of a web application and of the replicas that it asked.

    Args:
        meter: Counts of the application.
        tallies: What the replicas said; None where they did not answer in time.
    """

    def __init__(self, meter: Meter, tallies: Sequence[Tally] | None) -> None:
        self._meter = meter
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        yield from self._meter.collect()
        yield GaugeMetricFamily(
            "onestep_replicas_answered",
            "Whether all replicas said what they count; where they did not, 0 and no more.",
            value=float(self._tallies is not None),
        )
        if self._tallies is not None:
            yield from _replicas(self._tallies)


def _replicas(tallies: Sequence[Tally]) -> Iterator[Metric]:
    models = [(tally.replica, model) for tally in tallies for model in tally.models]
    for name, told in _OF_A_MODEL.items():
        counter = CounterMetricFamily(f"onestep_{name}", told, labels=["replica", "model"])
        for replica, model in models:
            counter.add_metric([replica, model.version], asdict(model.counts)[name])
        yield counter
    for name, told in _OF_A_MODEL_NOW.items():
        gauge = GaugeMetricFamily(f"onestep_{name}", told, labels=["replica", "model"])
        for replica, model in models:
            gauge.add_metric([replica, model.version], asdict(model)[name])
        yield gauge
    for name, told in _OF_A_REPLICA.items():
        counter = CounterMetricFamily(f"onestep_{name}", told, labels=["replica"])
        for tally in tallies:
            counter.add_metric([tally.replica], asdict(tally)[name])
        yield counter
    for name, told in _OF_A_REPLICA_NOW.items():
        gauge = GaugeMetricFamily(f"onestep_{name}", told, labels=["replica"])
        for tally in tallies:
            values = {"models_loaded": len(tally.models), "problems": tally.problems}
            gauge.add_metric([tally.replica], values[name])
        yield gauge


def metrics_page(meter: Meter, tallies: Sequence[Tally] | None) -> bytes:
    """The metrics in Prometheus' text format.

    Args:
        meter: Counts of the web application that is asked.
        tallies: What the replicas said; None where they did not answer in time.

    Returns:
        The page.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(meter, tallies))
    return generate_latest(registry)
