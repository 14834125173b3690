"""Configuration: Hydra composes plain dictionaries here, and nowhere else."""

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

PLATFORM = "onestep.platform.conf"


def compose(
    config_name: str, overrides: Sequence[str] = (), *, module: str = PLATFORM
) -> dict[str, Any]:
    """A resolved configuration.

    Config groups come from the module itself and from every module that an installed package
    names under the entry point ``onestep.conf``.

    Args:
        config_name: The primary file, without its ending.
        overrides: Hydra overrides, such as ``method=mean_flow`` or ``training.samples=200000``.
        module: The package that holds the primary file.

    Returns:
        Plain dictionaries, lists and scalars.

    Raises:
        ValueError: If an override names no key, gives a value of the wrong kind or misses one.
    """
    groups = sorted(e.value for e in entry_points(group="onestep.conf") if e.value != module)
    search = f"hydra.searchpath=[{','.join(f'pkg://{group}' for group in groups)}]"
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(module, version_base="1.3"):
            config = hydra_compose(config_name, overrides=[*overrides, search])
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_sentence(error)) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _sentence(error: Exception) -> str:
    """Hydra's message on one line, without its advice on how to force an unknown key."""
    cause = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("To append", "Set the env", "full_key"))]
    if cause is not None and "is not in struct" in str(cause):
        kept.append(str(cause).splitlines()[0])
    return ". ".join(dict.fromkeys(line.rstrip(".") for line in kept))
