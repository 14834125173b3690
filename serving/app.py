"""The Ray Serve application: replicas that hold the model, and the web application before them."""

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, final

from fastapi import FastAPI
from ray import serve
from ray.serve import Application, Deployment
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from .api import build_api
from .errors import Overloaded, RequestRefused
from .schema import ImagesRequest, ImagesResponse, ModelCard, Refusal
from .service import EngineService, refusal
from .settings import AppSettings

_PAGES: Final = 1000
"""Requests at once beside those for images: pages, models, health."""


@final
class Generator:
    """A replica that holds one model.

    Args:
        settings: Fields of ``AppSettings``; its model gives way to that of the user config.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = AppSettings.from_dict(settings)
        self._service: EngineService | None = None

    async def reconfigure(self, config: Mapping[str, str]) -> None:
        """Loads and warms another model, then puts it in the place of the present one.

        Requests that wait for the old model are still answered by it.

        Args:
            config: ``model``, a version, and perhaps ``name``, under which it is served.

        Raises:
            ValueError: If the model is an alias, or there is none, or it makes no images.
        """
        # MLflow takes seconds to import, and the ingress, which imports this too, needs none.
        from ..platform.registry.reference import ModelVersion
        from .loading import load_engine

        if not ModelVersion.is_written(config["model"]):
            raise ValueError(
                "user_config.model must be a version such as digits/3, because each replica would "
                f"look up an alias when it starts (args.model takes one), got {config['model']!r}"
            )
        settings = self._settings.with_model(config["model"])
        engine, version = await asyncio.to_thread(load_engine, settings)
        self._service = EngineService(
            engine,
            name=config.get("name", config["model"]),
            version=version,
            max_waiting=settings.max_waiting,
        )

    async def describe(self) -> ModelCard:
        """The model that is served now."""
        return await self._present().describe()

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        """Images, or the reason why there are none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await self._present().generate(request)

    def _present(self) -> EngineService:
        assert self._service is not None, "Serve reconfigures a replica before it sends requests"
        return self._service


@final
class RemoteService:
    """The service of the replicas behind a handle.

    Args:
        handle: Handle of the deployment ``Generator``.
    """

    def __init__(self, handle: DeploymentHandle[Generator]) -> None:
        self._handle = handle

    async def describe(self) -> ModelCard:
        """The model that is served now.

        Returns:
            Its card.

        Raises:
            RequestRefused: If no replica can answer.
        """
        try:
            card: ModelCard = await self._handle.describe.remote()
        except (BackPressureError, DeploymentUnavailableError) as error:
            raise RequestRefused("no model is ready; try again in a second", status=503) from error
        return card

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        """Images, or the reason why there are none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        try:
            answer: ImagesResponse | Refusal = await self._handle.generate.remote(request)
        except BackPressureError as error:
            waiting = int(error.args[0])
            return refusal(Overloaded(waiting))
        except DeploymentUnavailableError:
            return refusal(RequestRefused("no model is ready; try again in a second", status=503))
        return answer


@final
class Ingress:
    """The web application; it holds no model and needs no core of its own.

    Args:
        generator: Handle of the deployment ``Generator``.
    """

    def __init__(self, generator: DeploymentHandle[Generator]) -> None:
        self._generator = generator

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application that Serve runs in this replica."""
        return build_api(RemoteService(self._generator))


GENERATOR: Final[Deployment] = serve.deployment(name="Generator")(Generator)
INGRESS: Final[Deployment] = serve.deployment(name="Ingress")(serve.ingress()(Ingress))


def build(args: Mapping[str, Any]) -> Application:
    """The application, as a Serve config file names it: ``onestep.serving.app:build``.

    An alias is looked up here, once, and the replicas are given the version: one that starts again
    after the alias has moved serves what the others do.

    Args:
        args: Fields of ``AppSettings``.

    Returns:
        The application, not yet running.
    """
    from .loading import version_of

    settings = AppSettings.from_dict(args)
    return build_application(settings, {"model": version_of(settings), "name": settings.model})


def build_application(settings: AppSettings, config: Mapping[str, str]) -> Application:
    """The application with a first user config.

    Args:
        settings: How many replicas, and of what size.
        config: ``model``, a version, and perhaps ``name``, under which it is served.

    Returns:
        The application, not yet running.
    """
    # Serve restarts the replicas of an application that is run again unless its version stays.
    # All but the model is in the version, so a new model is a new user config and no restart.
    fixed = settings.to_dict() | {"model": ""}
    # Its digest, because Serve shows versions, and the store's URL may hold a password.
    version = sha256(str(sorted(fixed.items())).encode()).hexdigest()[:16]
    # The batcher of a replica counts who waits and refuses the next, so that max_waiting is one
    # number. It must see them all: Serve's own queues begin at twice of what it takes.
    at_once = 2 * (settings.max_waiting + settings.bucket)
    generator = GENERATOR.options(
        version=version,
        _internal=True,
        num_replicas=settings.replicas,
        user_config=dict(config),
        max_ongoing_requests=at_once,
        max_queued_requests=settings.replicas * at_once,
        ray_actor_options={
            "num_cpus": settings.threads,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(settings.threads)}},
        },
    )
    ingress = INGRESS.options(
        version=version,
        _internal=True,
        max_ongoing_requests=2 * settings.replicas * at_once + _PAGES,
        ray_actor_options={"num_cpus": 0},
    )
    replicas = generator.bind(settings.to_dict() | {"model": "unset"})
    application: Application = ingress.bind(replicas)
    return application
