"""From a reference in the registry to an engine that is warm."""

from dataclasses import replace

from ..platform.home import Home
from ..platform.registry.decoder import load_decoder
from ..platform.registry.model import load_generator
from ..platform.registry.reference import ModelVersion
from ..platform.registry.store import Registry
from .engine import Engine
from .paths import with_full_paths
from .settings import AppSettings
from .speed import Host, Speed, runner


def locate(settings: AppSettings) -> AppSettings:
    """The same settings with the registry named in full, so that they mean the same elsewhere.

    Args:
        settings: Settings whose registry the environment and the working folder may complete.

    Returns:
        Settings that mean the same in any process of this machine.
    """
    home = _home(settings)
    full = with_full_paths(settings)
    return replace(full, tracking_uri=home.tracking_uri, artifacts=home.artifacts)


def version_of(settings: AppSettings) -> str:
    """The version of the one model that the settings name; only for an alias it is looked up.

    Args:
        settings: Which model, from which registry.

    Returns:
        The version.
    """
    if ModelVersion.is_written(settings.model):
        return settings.model
    return str(Registry.at(_home(settings)).resolve(settings.model))


def registry_of(settings: AppSettings) -> Registry:
    """The registry that the settings name.

    Args:
        settings: Which registry.

    Returns:
        The registry.
    """
    return Registry.at(_home(settings))


def speed_of(settings: AppSettings) -> Speed:
    """How the settings let networks compute."""
    return Speed(
        dtype=settings.dtype, channels_last=settings.channels_last, compile=settings.compile
    )


def load_engine(
    settings: AppSettings, *, device: str = "cpu", host: Host = runner
) -> tuple[Engine, str]:
    """A warm engine of the one model that the settings name.

    Args:
        settings: Which model, from which registry, in what size of batch.
        device: Where its weights are taken, and its walks go.
        host: Takes its map to where it runs, by default nowhere else.

    Returns:
        The engine, and the registered version that it holds.

    Raises:
        ValueError: If there is no such model, its files were altered, it makes no images, or this
            machine cannot run it so.
    """
    speed = speed_of(settings)
    speed.check()
    registry = Registry.at(_home(settings))
    version = str(registry.resolve(settings.model))
    flow_map, record = load_generator(registry, version, device)
    decoder = load_decoder(registry, version) if record.latents is not None else None
    engine = Engine(
        flow_map,
        record,
        bucket=settings.bucket,
        strict=settings.strict,
        decoder=decoder,
        speed=speed,
        host=host,
    )
    engine.warm_up()
    return engine, version


def _home(settings: AppSettings) -> Home:
    home = Home.here(tracking_uri=settings.tracking_uri)
    return home if settings.artifacts is None else replace(home, artifacts=settings.artifacts)
