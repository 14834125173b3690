"""The Ray Serve application: replicas that hold the models, and the web application before them."""

import gc
import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, final

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve import Application, Deployment
from ray.serve.context import _get_global_client  # nothing public tells the address
from ray.serve.handle import DeploymentHandle

from .api import build_api
from .engine import MAX_IMAGES
from .exposure import warn_if_open
from .generator import Generator, end_replica, names_of
from .paths import with_full_paths
from .remote import RemoteService
from .settings import AppSettings
from .threshold import Threshold
from .watcher import Watcher

_HEALTH_S: Final = 3.0
"""Seconds between two looks at a replica, of which Serve replaces one that fails three."""
_INGRESS_HEALTH_S: Final = 1.0
"""The same of an ingress: without the only one, nobody is answered."""
_PAGES: Final = 1000
"""Requests at once beside those for images: pages, models, health."""
_CONTROL: Final = 100
"""The same of a replica: what it has, counts, and is told."""
_GARBAGE: Final = 10_000
"""New objects after which an ingress looks for garbage.

With Python's 700 it looks through all that an overload has under way every few seconds, and all
wait for a tenth of a second meanwhile. Serve's own proxies take as many.
"""


@final
class Ingress:
    """The web application; it holds no model and needs no core of its own.

    Args:
        generator: Handle of the deployment ``Generator``.
        settings: Fields of ``AppSettings``, of which keys, bodies and the log are its own.
        watch: Handle of the deployment ``Watcher``, which Serve runs because it is bound to this.
    """

    def __init__(
        self,
        generator: DeploymentHandle[Generator],
        settings: Mapping[str, Any],
        watch: DeploymentHandle[Watcher] | None = None,
    ) -> None:
        del watch
        self._generator = generator
        self._settings = AppSettings.from_dict(settings)
        self._names: list[str] = []
        self._threshold = Threshold()

    def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Learns which names are served, and whether anybody is let in.

        Args:
            config: The user config of the replicas; with ``stopping`` nobody is.
        """
        self._names[:] = names_of(config)
        self._threshold.is_closed = bool(config.get("stopping"))

    def inside(self) -> int:
        """How many requests have no answer yet, or not all of it."""
        return self._threshold.inside

    def end(self) -> None:
        """Does what is to be done when all have left and the process is about to be killed."""
        self._threshold.last()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application that Serve runs in this replica."""
        gc.set_threshold(_GARBAGE)
        service = RemoteService(
            self._generator,
            self._names,
            most=self._settings.most_at_once,
            # Several replicas are chosen from, started and stopped by how many calls they have.
            together=min(self._settings.bucket, MAX_IMAGES)
            if self._settings.most_replicas == 1
            else 1,
        )
        return build_api(
            service,
            self._settings,
            ingress=serve.get_replica_context().replica_id.unique_id,
            # Serve's own proxy adds the id to the answer, HAProxy does not.
            is_echoed=os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "0") != "1",
            threshold=self._threshold,
            crowd=lambda: service.crowd,
        )


GENERATOR: Final[Deployment] = serve.deployment(name="Generator")(Generator)
WATCHER: Final[Deployment] = serve.deployment(name="Watcher")(Watcher)
INGRESS: Final[Deployment] = serve.deployment(name="Ingress")(serve.ingress()(Ingress))


def build(args: Mapping[str, Any]) -> Application:
    """The application, as a Serve config file names it: ``onestep.serving.app:build``.

    An alias is looked up here first. With ``watch_s`` it is followed from then on; without, the
    replicas keep to the version: one that starts again after the alias has moved serves what the
    others do.

    Args:
        args: Fields of ``AppSettings``.

    Returns:
        The application, not yet running.
    """
    from .loading import version_of

    settings = with_full_paths(AppSettings.from_dict(args))
    if (host := _host()) is not None:
        warn_if_open(host, settings.keys)
    versions = {name: version_of(settings.with_model(name)) for name in settings.names}
    return build_application(settings, {"models": versions})


def _host() -> str | None:
    """Where the Serve of this cluster listens; None where no cluster is there yet."""
    if not ray.is_initialized():  # or the question would start one
        return None
    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else client.http_config.host


def build_application(
    settings: AppSettings, config: Mapping[str, Any], *, is_stopping: bool = False
) -> Application:
    """The application with a first user config.

    Args:
        settings: How many replicas, and of what size.
        config: The user config of the replicas, as ``Generator.reconfigure`` takes it.
        is_stopping: Whether the web application lets nobody in any more.

    Returns:
        The application, not yet running.
    """
    # Serve restarts the replicas of an application that is run again unless its version stays.
    # All but the models is in the version, so a new model is a new user config and no restart.
    fixed = settings.to_dict() | {"model": "", "models": ()}
    # Its digest, because Serve shows versions, and the store's URL may hold a password.
    version = sha256(str(sorted(fixed.items())).encode()).hexdigest()[:16]
    # The batcher of each model counts who waits and refuses the next, so that max_waiting is one
    # number. They must see them all, those of a canary too: Serve's own queues begin at twice of
    # what all of them take.
    models = len(names_of(config)) + 1
    at_once = 2 * models * (settings.max_waiting + settings.bucket) + _CONTROL
    # A replica that is stopped first answers who waits: none for longer than a request may take.
    drained_s = settings.drained_s
    generator = GENERATOR.options(
        version=version,
        _internal=True,
        **_scale(settings),
        health_check_period_s=_HEALTH_S,
        graceful_shutdown_timeout_s=drained_s,
        user_config=dict(config),
        max_ongoing_requests=at_once,
        max_queued_requests=settings.most_replicas * at_once,
        ray_actor_options={
            "num_cpus": settings.threads,
            "num_gpus": settings.gpus,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(settings.threads)}},
        },
    )
    ingress = INGRESS.options(
        version=version,
        _internal=True,
        num_replicas=settings.ingresses,
        user_config={**config, **({"stopping": True} if is_stopping else {})},
        health_check_period_s=_INGRESS_HEALTH_S,
        graceful_shutdown_timeout_s=drained_s,
        max_ongoing_requests=2 * settings.most_replicas * at_once + _PAGES,
        ray_actor_options={"num_cpus": 0},
    )
    fields = settings.with_model("unset").to_dict()
    replicas = generator.bind(fields, end_replica)
    if settings.watch_s is None:
        return ingress.bind(replicas, settings=fields)
    watcher = WATCHER.options(
        version=version,
        _internal=True,
        user_config={"names": list(names_of(config))},
        ray_actor_options={"num_cpus": 0},
    )
    watch = watcher.bind(fields, replicas)
    return ingress.bind(replicas, settings=fields, watch=watch)


def _scale(settings: AppSettings) -> dict[str, Any]:
    """How many replicas there are: a number, or what Serve makes of the queues."""
    if settings.max_replicas is None:
        return {"num_replicas": settings.replicas}
    return {
        "num_replicas": "auto",
        "autoscaling_config": {
            "min_replicas": settings.replicas,
            "max_replicas": settings.max_replicas,
            # A forward is full with so many requests of one image; those of more queue sooner.
            "target_ongoing_requests": settings.bucket,
            "upscale_delay_s": 3.0,
            "downscale_delay_s": 120.0,
        },
    }
