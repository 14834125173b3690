"""The settings of serving: which model, how many replicas, and where it listens."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Self, final
from urllib.parse import urlsplit

from ..platform.password import hide_passwords
from ..platform.settings import by_name, settings

CHAMPION: Final = "champion"
DTYPES: Final = ("float32", "bfloat16")
_LAST_WORDS_S: Final = 5.0
PROXIES: Final = ("HeadOnly", "EveryNode")
_MAX_PORT: Final = 65535
_DAY_S: Final = 86_400


def _check_whole(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"serve.{name} must be a whole number in {low}..{high}, got {value!r}")


def _check_seconds(name: str, value: float) -> None:
    if not 0.1 <= value <= _DAY_S:
        raise ValueError(f"serve.{name} must be a number in 0.1..{_DAY_S}, got {value!r}")


def _check_text(name: str, value: str | None) -> None:
    if value == "":
        raise ValueError(f"serve.{name} must be a text that is not empty, got {value!r}")


def _check_traces(url: str | None, share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"serve.trace_share must be a number in 0..1, got {share!r}")
    if url is None:
        if share != 1.0:
            raise ValueError(
                "serve.trace_share must be left out where serve.traces names no collector, "
                f"got {share!r}"
            )
        return
    try:
        parts = urlsplit(url)
        is_valid = bool(parts.hostname) and parts.port != 0 and parts.path.strip("/") != ""
    except ValueError:  # it may hold a part of the password
        is_valid = False
    is_written = url.isascii() and url.split() == [url]
    if not (is_written and is_valid and parts.scheme in ("http", "https")):
        got = hide_passwords(url if "//" in url else f"//{url}")
        raise ValueError(
            "serve.traces must be null or the URL at which a collector takes spans over HTTP, such "
            f"as http://collector:4318/v1/traces, got {got if '//' in url else got[2:]!r}"
        )


@final
@dataclass(frozen=True, kw_only=True)
class AppSettings:
    """What the Serve application needs to know; plain values, so that they travel.

    Attributes:
        model: Reference of the model in the registry, which is also the name it is served by.
        models: References of several models, in the place of the one; the first is the one that
            answers who names none.
        tracking_uri: MLflow store of the registry; None for the one that the environment names.
        artifacts: Where the store keeps new files; None for the environment's choice.
        replicas: Processes that each hold the model; the fewest, where there may be more.
        max_replicas: Most of them, which Serve starts as requests queue; None for no more.
        ingresses: Processes that take requests and hold no model. While there is but one, nobody
            is answered until Serve has started another in its place.
        threads: Cores of each replica.
        gpus: GPUs of each replica, where its forwards run: 0 for the cores, a share below 1, or 1.
        pin: Whether its forwards stay on cores that no other replica of the machine has.
        apart: Whether its forwards run in a process of their own, beside the one that answers.
        bucket: Most rows of a forward.
        strict: Whether every forward has so many, which keeps images bitwise the same in any
            company; otherwise it has the next power of two, and they are up to rounding.
        dtype: Arithmetic of the network, one of DTYPES.
        channels_last: Whether the channels of images lie side by side in memory.
        compile: Whether networks are compiled, for each size of a forward, before they serve.
        max_waiting: Requests that may wait at each replica, for each model, before the next is
            refused.
        max_streams: Streams that each ingress sends at once, before the next is refused.
        memory_mb: Most megabytes of parameters and buffers of the models of a replica; the one
            not used for the longest is closed, and loaded again when it is asked for.
        watch_s: Seconds between two looks at where the aliases point; None to keep to what they
            meant at the start.
        keys: File of the keys that may ask; None asks for no key, unless the environment names
            a file.
        max_body_mb: Most megabytes of the body of a request.
        body_timeout_s: Seconds in which the body of a request must be there.
        access_log: Whether each request has a line in the log.
        access_file: File to whose end these lines go; None for stderr.
        traces: URL at which an OpenTelemetry collector takes spans over HTTP; None for no traces.
        trace_share: Share of the requests that are traced, in 0..1, of those that do not come as
            part of a trace.
        request_timeout_s: Seconds that a request may take which gives no deadline; of a stream,
            each part of it.
        stuck_s: Seconds of one forward after which a replica is replaced.

    Raises:
        ValueError: If a value is out of range, or both one model and several are named.
    """

    model: str = CHAMPION
    models: tuple[str, ...] = ()
    tracking_uri: str | None = None
    artifacts: str | None = None
    replicas: int = 1
    max_replicas: int | None = None
    ingresses: int = 1
    threads: int = 1
    gpus: float = 0.0
    pin: bool = False
    apart: bool = False
    bucket: int = 16
    strict: bool = False
    dtype: str = DTYPES[0]
    channels_last: bool = False
    compile: bool = False
    max_waiting: int = 256
    max_streams: int = 64
    memory_mb: int = 4096
    watch_s: float | None = 0.3
    keys: str | None = None
    max_body_mb: int = 16
    body_timeout_s: float = 30.0
    access_log: bool = True
    access_file: str | None = None
    traces: str | None = None
    trace_share: float = 1.0
    request_timeout_s: float = 60.0
    stuck_s: float = 120.0

    def __post_init__(self) -> None:
        _check_text("model", self.model)
        for name in self.models:
            _check_text("models", name)
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"serve.models must differ, got {', '.join(self.models)}")
        if self.models and self.model not in (CHAMPION, *self.models):
            raise ValueError(
                "serve.models must be left out where serve.model names the one, "
                f"got {', '.join(self.models)} beside {self.model}"
            )
        _check_text("tracking_uri", self.tracking_uri)
        _check_text("artifacts", self.artifacts)
        _check_whole("replicas", self.replicas, 1, 1024)
        if self.max_replicas is not None:
            _check_whole("max_replicas", self.max_replicas, self.replicas, 1024)
        _check_whole("ingresses", self.ingresses, 1, 64)
        _check_whole("threads", self.threads, 1, 256)
        if not 0.0 <= self.gpus <= 1.0:
            raise ValueError(f"serve.gpus must be a number in 0..1, got {self.gpus!r}")
        if self.gpus and self.compile and not self.apart:
            raise ValueError(
                "serve.apart must be true where serve.compile is and serve.gpus is not 0, because "
                f"what is compiled for a GPU belongs to one thread, got {self.apart!r}"
            )
        _check_whole("bucket", self.bucket, 1, 1024)
        if self.dtype not in DTYPES:
            raise ValueError(f"serve.dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        _check_whole("max_waiting", self.max_waiting, 1, 1_000_000)
        _check_whole("max_streams", self.max_streams, 1, 100_000)
        _check_whole("memory_mb", self.memory_mb, 1, 100_000_000)
        _check_text("keys", self.keys)
        _check_text("access_file", self.access_file)
        if self.access_file is not None and not self.access_log:
            raise ValueError(
                "serve.access_log must be true where serve.access_file names a file, got False "
                f"and {self.access_file}"
            )
        _check_whole("max_body_mb", self.max_body_mb, 1, 100_000)
        _check_seconds("body_timeout_s", self.body_timeout_s)
        _check_traces(self.traces, self.trace_share)
        _check_seconds("request_timeout_s", self.request_timeout_s)
        _check_seconds("stuck_s", self.stuck_s)
        if self.watch_s is not None and not 0.05 <= self.watch_s <= _DAY_S:
            raise ValueError(
                f"serve.watch_s must be a number in 0.05..{_DAY_S} or null, got {self.watch_s!r}"
            )

    @property
    def device(self) -> str:
        """Where forwards run."""
        return "cuda" if self.gpus else "cpu"

    @property
    def drained_s(self) -> float:
        """Seconds after which a process that is stopped cuts off what it has not answered."""
        return self.request_timeout_s + _LAST_WORDS_S

    @property
    def most_replicas(self) -> int:
        """How many replicas there can be."""
        return self.max_replicas or self.replicas

    @property
    def most_at_once(self) -> int:
        """Requests for one model that all replicas together answer or let wait."""
        return self.most_replicas * (self.max_waiting + self.bucket)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are served: references, written as they are here."""
        return self.models or (self.model,)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for another process."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; what is left out takes its default.

        Args:
            values: A mapping of some of the fields.

        Returns:
            The settings.

        Raises:
            ValueError: If a key is unknown or a value is refused.
        """
        return settings(cls, "serve", values)

    def with_model(self, reference: str) -> Self:
        """The same application with this model alone."""
        return replace(self, model=reference, models=())


@final
@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """An application and where it listens.

    Attributes:
        app: The application.
        host: Address to listen on; 127.0.0.1 is this machine only.
        port: Port to listen on; 0 takes a free one.
        start_timeout_s: Seconds that the first healthy answer may take.
        proxies: The nodes of a cluster on which Serve listens, one of PROXIES.
        proxy_timeout_s: Seconds after which Serve gives up a request.

    Raises:
        ValueError: If a value is out of range.
    """

    app: AppSettings = field(default_factory=AppSettings)
    host: str = "127.0.0.1"
    port: int = 8000
    start_timeout_s: int = 180
    proxies: str = PROXIES[0]
    proxy_timeout_s: int = 90

    def __post_init__(self) -> None:
        _check_text("host", self.host)
        _check_whole("port", self.port, 0, _MAX_PORT)
        _check_whole("start_timeout_s", self.start_timeout_s, 1, _DAY_S)
        if self.proxies not in PROXIES:
            raise ValueError(
                f"serve.proxies must be one of {', '.join(PROXIES)}, got {self.proxies!r}"
            )
        _check_whole("proxy_timeout_s", self.proxy_timeout_s, 1, _DAY_S)
        if self.proxy_timeout_s <= self.app.request_timeout_s:
            raise ValueError(
                "serve.proxy_timeout_s must be above serve.request_timeout_s, whose answer it "
                f"would cut off, got {self.proxy_timeout_s} and {self.app.request_timeout_s:g}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The settings of the configuration group ``serve``, which is flat.

        Args:
            values: A mapping of some of the fields of both classes.

        Returns:
            The settings.

        Raises:
            ValueError: If a key is unknown or a value is refused.
        """
        inner = [part.name for part in fields(AppSettings)]
        own = [part.name for part in fields(cls) if part.name != "app"]
        given = by_name("serve", values, [*inner, *own])
        app = AppSettings.from_dict({key: given[key] for key in inner if key in given})
        return settings(
            cls, "serve", {"app": app} | {key: given[key] for key in own if key in given}
        )
