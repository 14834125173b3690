"""Hosting: the Serve application on this machine or the user's cluster, for the time of a block."""

import logging
import os
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, final

import httpx
import torch

from ..platform.ray_instance import ray_instance, set_ray_environment
from ..platform.threads import usable_cores
from .access_log import check_access_file
from .config_file import APP_NAME, LOGGING
from .exposure import warn_if_open
from .keys import read_keys
from .loading import load_engine, locate, speed_of
from .settings import AppSettings, ServeSettings

_POLL_S: Final = 0.1
_REPLY_S: Final = 5.0
_LOG: Final = logging.getLogger(__name__)
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # and where to reach them from here


class NotServing(ValueError):
    """The application did not start, in time or at all."""


@final
class Hosted:
    """Serves registered models over HTTP inside a ``with`` block.

    Each model is loaded once in this process first: what is missing, altered or no image model is
    refused before Ray starts, and so is a cluster that serves an application of this name before
    anything of it is touched. A Serve that runs there already is joined where it listens, or
    refused where the settings name another address. On the way out it takes down what it started
    and nothing else.

    Args:
        settings: What to serve, and where.

    Attributes:
        url: Address of the server, known inside the block.
        versions: The registered version of each served name.
        example: A prompt that the first model takes.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = replace(settings, app=locate(settings.app))
        self._stack = ExitStack()
        self.url = ""
        self.versions: dict[str, str] = {}
        self.example = ""

    @property
    def version(self) -> str:
        """The registered version of the first model."""
        return next(iter(self.versions.values()), "")

    @property
    def asks_keys(self) -> bool:
        """Whether users need a key."""
        return self._settings.app.keys is not None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        settings = self._settings
        speed_of(settings.app).check()
        app = replace(settings.app, compile=False)  # what is compiled here serves nobody
        for name in settings.app.names:
            engine, self.versions[name] = load_engine(app.with_model(name))
            if len(self.versions) == 1:
                self.example = "" if engine.record.classes == 0 else "0"
        cores = usable_cores()
        if not os.environ.get("RAY_ADDRESS"):
            _check_cores(settings.app, cores)
            _check_gpus(settings.app, torch.cuda.device_count())
        check_keys(settings)
        if not os.environ.get("RAY_ADDRESS"):  # there it is a file of another machine
            check_access_file(settings.app.access_file)
        port = _free_port(settings.host, settings.port)
        set_ray_environment()
        from ray import is_initialized, serve  # only once Ray is told how to behave

        was_there = is_initialized()
        if not was_there:
            stack.callback(_forget)
        is_own = stack.enter_context(ray_instance(num_cpus=cores)) and not was_there

        # Serve says at each deployment that it runs already; its warnings are still shown.
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        status = serve.status()
        if (other := status.applications.get(APP_NAME)) is not None:
            raise ValueError(
                f"the Ray cluster must not serve an application {APP_NAME!r} yet, which would be "
                f"replaced and in the end deleted, got one that is {other.status.value}"
            )
        running = _running_port(settings, has_proxy=bool(status.proxies))
        if running is None and not is_own:
            stack.callback(serve.shutdown)
        port = running or port
        host = _EVERYWHERE.get(settings.host, settings.host)
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        serve.start(
            proxy_location=settings.proxies,
            http_options={
                "host": settings.host,
                "port": port,
                "request_timeout_s": settings.proxy_timeout_s,
            },
            logging_config=LOGGING,
        )
        if not is_own:  # an instance that began here ends here, with all that is on it
            stack.callback(_take_down)
        self._deploy()
        self._wait()
        stack.callback(self._stop_serving)  # before the others; who never came in is not waited for

    def _stop_serving(self) -> None:
        """Lets nobody in, and waits for the answers that have been begun."""
        from ray.exceptions import RayError

        self._deploy(is_stopping=True)
        deadline = time.monotonic() + self._settings.app.drained_s
        while time.monotonic() < deadline:
            if _is_empty():
                with suppress(RayError, TimeoutError):  # what is not sent by then is lost
                    _ask_ingresses("end")
                return
            time.sleep(_POLL_S)
        _LOG.warning("requests that were under way are cut off")

    def _deploy(self, *, is_stopping: bool = False) -> None:
        from ray import serve

        from .app import build_application

        app = self._settings.app
        target = serve.RunTarget(
            target=build_application(app, {"models": self.versions}, is_stopping=is_stopping),
            name=APP_NAME,
            route_prefix="/",
            logging_config=LOGGING,
        )
        # serve.run would wait for ever where the cores of a replica are never free.
        serve.run_many([target], wait_for_applications_running=False)

    def _wait(self) -> None:
        """Waits until all replicas hold the models and the server says so over HTTP."""
        from ray import serve
        from ray.serve.schema import ApplicationStatus

        answer = "no answer"
        deadline = time.monotonic() + self._settings.start_timeout_s
        while time.monotonic() < deadline:
            status = serve.status().applications.get(APP_NAME)
            if status is not None and status.status in (
                ApplicationStatus.DEPLOY_FAILED,
                ApplicationStatus.UNHEALTHY,
            ):
                raise NotServing(f"the server did not start: {status.message}")
            if (
                status is not None
                and status.status == ApplicationStatus.RUNNING
                and (answer := _readiness(self.url)) == ""
            ):
                return
            time.sleep(_POLL_S)
        raise NotServing(
            f"the server at {self.url} must answer within serve.start_timeout_s = "
            f"{self._settings.start_timeout_s} s, got {answer}"
        )


def _is_empty() -> bool:
    """Whether the web application has closed its doors, and all who were inside have left."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.schema import ApplicationStatus

    status = serve.status().applications.get(APP_NAME)
    if status is None or status.status != ApplicationStatus.RUNNING:
        return status is None
    try:
        return sum(_ask_ingresses("inside")) == 0
    except (RayError, TimeoutError):  # an ingress that has just died has nobody inside
        return False


def _ask_ingresses(what: str) -> list[Any]:
    """What each replica of the web application answers."""
    from ray import serve

    asked = serve.get_app_handle(APP_NAME).broadcast(what)
    return list(asked.results(timeout_s=_REPLY_S))


def _forget() -> None:
    """Lets Serve find its controller anew: it would ask that of the Ray which has ended."""
    from ray.serve.context import _set_global_client  # ray.shutdown leaves it as it is

    _set_global_client(None)  # type: ignore[no-untyped-call]


def _take_down() -> None:
    """Deletes the application; its replicas first answer what they have begun."""
    from ray import serve

    try:
        serve.delete(APP_NAME)
    except TimeoutError:  # Serve waits for a minute, and goes on with it
        _LOG.warning("requests that were under way are cut off")


def _readiness(url: str) -> str:
    """Why the server is not ready; empty where it is."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=5.0)
    except httpx.TransportError:
        return "no answer"
    return "" if answer.is_success else answer.text


def _running_port(settings: ServeSettings, *, has_proxy: bool) -> int | None:
    """The port of a Serve that runs on the cluster already, which nothing moves, or None."""
    from ray.serve.context import _get_global_client  # nothing public tells the address

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    if not has_proxy:
        raise ValueError("the Serve that runs on the Ray cluster must have an HTTP proxy, got none")
    http = client.http_config
    if settings.host != http.host or settings.port not in (0, http.port):
        raise ValueError(
            f"serve.host must be {http.host} and serve.port 0 or {http.port}, where the Serve of "
            f"the Ray cluster listens already, got {settings.host} and {settings.port}"
        )
    return int(http.port)


def _check_cores(app: AppSettings, cores: int) -> None:
    if app.replicas * app.threads > cores:
        raise ValueError(
            f"serve.replicas x serve.threads must be at most the {cores} cores of this machine, "
            f"got {app.replicas} x {app.threads}"
        )


def _check_gpus(app: AppSettings, gpus: int) -> None:
    if app.replicas * app.gpus > gpus:
        raise ValueError(
            f"serve.replicas x serve.gpus must be at most the {gpus} GPUs of this machine, "
            f"got {app.replicas} x {app.gpus:g}"
        )


def check_keys(settings: ServeSettings) -> None:
    """Refuses keys that cannot be read, and warns where others reach a server without.

    Args:
        settings: The keys, and where the server listens.

    Raises:
        ValueError: If the file of keys cannot be read.
    """
    if settings.app.keys is not None:
        read_keys(Path(settings.app.keys))
    warn_if_open(settings.host, settings.app.keys)


def _free_port(host: str, port: int) -> int:
    """The port itself if nobody listens there, or any free one for 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"serve.port must be free on {host}, got {port}: {error.strerror}"
            ) from error
        return int(probe.getsockname()[1])
