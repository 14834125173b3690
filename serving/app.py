"""The Ray Serve application: replicas that hold the models, and the web application before them."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, TypeVar, final

from fastapi import FastAPI
from ray import serve
from ray.serve import Application, Deployment
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from .api import build_api
from .desk import Desk
from .errors import LoadFailed, Overloaded, RequestRefused
from .native import GenerateRequest, Made
from .schema import ImagesRequest, ImagesResponse, ModelList, Refusal
from .service import EngineService, refusal
from .settings import AppSettings
from .shelf import Shelf
from .watch import Meaning, Watcher, look

_READY_WITHIN_S: Final = 2.0
T = TypeVar("T")
_LOG: Final = logging.getLogger(__name__)
_PAGES: Final = 1000
"""Requests at once beside those for images: pages, models, health."""


@final
class Generator:
    """A replica that holds the served models.

    Args:
        settings: Fields of ``AppSettings``; its models give way to those of the user config.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = AppSettings.from_dict(settings)
        shelf = Shelf(self._load, memory_bytes=self._settings.memory_mb * 10**6)
        self._desk = Desk(shelf)
        self._follows = False

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Loads and warms models, then serves them in the place of the present ones.

        Requests that wait for an old model are still answered by it.

        Args:
            config: ``models``, the version of each name, where aliases are followed from there on;
                or ``model``, a version that stays, and perhaps ``name``, under which it alone is
                served.

        Raises:
            ValueError: If a model is an alias, or none can be loaded.
        """
        # MLflow takes seconds to import, and the ingress, which imports this too, needs none.
        from ..platform.registry.reference import ModelVersion

        names = _names(config)
        for version in names.values():
            if not ModelVersion.is_written(version):
                raise ValueError(
                    "user_config.model must be a version such as digits/3, because each replica "
                    "would look up an alias when it starts (args.model takes one), "
                    f"got {version!r}"
                )
        follows = "models" in config and self._settings.watch_s is not None
        candidates = {name: [version] for name, version in names.items()}
        if follows:  # a replica that starts again serves what the others do, not what they did
            for name, versions in candidates.items():
                served = self._desk.versions.get(name, "")
                present = await self._present(name)
                candidates[name] = [one for one in (present, served, *versions) if one]
        await self._desk.serve(candidates)
        self._follows = follows

    async def _present(self, name: str) -> str:
        try:
            return await asyncio.to_thread(look, self._settings, name)
        except ValueError as error:  # the watch says so to users, a round later
            _LOG.warning("%s cannot be looked up: %s", name, error)
            return ""

    def _load(self, version: str) -> EngineService:
        from .loading import load_engine

        settings = self._settings.with_model(version)
        engine, version = load_engine(settings)
        return EngineService(
            engine, name=version, version=version, max_waiting=settings.max_waiting
        )

    def followed(self) -> dict[str, Meaning]:
        """What the names mean here whose aliases are followed."""
        if not self._follows:
            return {}
        problems = self._desk.problems
        return {
            name: Meaning(version=version, problem=problems.get(name, ""))
            for name, version in self._desk.versions.items()
        }

    async def stage(self, version: str) -> str:
        """Loads and warms a version beside the others.

        Args:
            version: The registered version.

        Returns:
            Why it does not load; empty where it did.
        """
        try:
            await self._desk.stage(version)
        except LoadFailed as error:
            return error.why
        return ""

    def point(self, name: str, version: str) -> None:
        """Lets a name that is followed mean a staged version.

        Args:
            name: The served name.
            version: The registered version.
        """
        if self._follows:
            self._desk.point(name, version)

    def note(self, name: str, problem: str) -> None:
        """Says what is wrong with a name that is followed.

        Args:
            name: The served name.
            problem: One sentence; empty for nothing.
        """
        if self._follows:
            self._desk.note(name, problem)

    async def describe(self) -> ModelList:
        """The models that are served now."""
        return await self._desk.describe()

    async def missing(self) -> list[str]:
        """The served names whose model has not been loaded."""
        return await self._desk.missing()

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        """Images, or the reason why there are none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await self._desk.generate(request)

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        """A file of images, or the reason why there is none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await self._desk.make(request)


def _names(config: Mapping[str, Any]) -> dict[str, str]:
    """The version of each served name of a user config."""
    if "models" in config:
        return dict(config["models"])
    return {config.get("name", config["model"]): config["model"]}


@final
class RemoteService:
    """The service of the replicas behind a handle.

    Args:
        handle: Handle of the deployment ``Generator``.
        names: The served names.
    """

    def __init__(self, handle: DeploymentHandle[Generator], names: Sequence[str]) -> None:
        self._handle = handle
        self._names = names

    async def describe(self) -> ModelList:
        """The models that are served now.

        Returns:
            Their cards.

        Raises:
            RequestRefused: If no replica can answer.
        """
        try:
            models: ModelList = await self._handle.describe.remote()
        except (BackPressureError, DeploymentUnavailableError) as error:
            raise RequestRefused("no model is ready; try again in a second", status=503) from error
        return models

    async def missing(self) -> list[str]:
        """The served names that some replica has not loaded.

        Returns:
            The names in their order; all of them where no replica answers in time.
        """
        answers = await self._handle.broadcast("missing").results_async(
            timeout_s=_READY_WITHIN_S, return_exceptions=True
        )
        if not answers or any(isinstance(answer, BaseException) for answer in answers):
            return list(self._names)
        found = set().union(*answers)
        return [name for name in self._names if name in found]

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        """Images, or the reason why there are none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await _answered(self._handle.generate.remote(request))

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        """A file of images, or the reason why there is none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        return await _answered(self._handle.make.remote(request))


async def _answered(call: Awaitable[T]) -> T | Refusal:
    """The answer, or a refusal where no replica takes the call."""
    try:
        return await call
    except BackPressureError as error:
        waiting = int(error.args[0])
        return refusal(Overloaded(waiting))
    except DeploymentUnavailableError:
        return refusal(RequestRefused("no model is ready; try again in a second", status=503))


@final
class Ingress:
    """The web application; it holds no model and needs no core of its own.

    Args:
        generator: Handle of the deployment ``Generator``.
        watch: Handle of the deployment ``Watcher``, which Serve runs because it is bound to this.
    """

    def __init__(
        self,
        generator: DeploymentHandle[Generator],
        watch: DeploymentHandle[Watcher] | None = None,
    ) -> None:
        del watch
        self._generator = generator
        self._names: list[str] = []

    def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Learns which names are served.

        Args:
            config: The user config of the replicas.
        """
        self._names[:] = _names(config)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application that Serve runs in this replica."""
        return build_api(RemoteService(self._generator, self._names))


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

    settings = AppSettings.from_dict(args)
    versions = {name: version_of(settings.with_model(name)) for name in settings.names}
    return build_application(settings, {"models": versions})


def build_application(settings: AppSettings, config: Mapping[str, Any]) -> Application:
    """The application with a first user config.

    Args:
        settings: How many replicas, and of what size.
        config: The user config of the replicas, as ``Generator.reconfigure`` takes it.

    Returns:
        The application, not yet running.
    """
    # Serve restarts the replicas of an application that is run again unless its version stays.
    # All but the models is in the version, so a new model is a new user config and no restart.
    fixed = settings.to_dict() | {"model": "", "models": ()}
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
        user_config=dict(config),
        max_ongoing_requests=2 * settings.replicas * at_once + _PAGES,
        ray_actor_options={"num_cpus": 0},
    )
    replicas = generator.bind(settings.with_model("unset").to_dict())
    if settings.watch_s is None:
        return ingress.bind(replicas)
    watcher = WATCHER.options(
        version=version,
        _internal=True,
        user_config={"names": list(_names(config))},
        ray_actor_options={"num_cpus": 0},
    )
    watch = watcher.bind(settings.with_model("unset").to_dict(), replicas)
    return ingress.bind(replicas, watch=watch)
