"""A registry with two models of digits: version 1, the champion, is a network; 2 is the oracle."""

from pathlib import Path
from typing import Final

import torch

from onestep.platform.registry.store import Registry
from onestep.tests.serving.model import UNET_NODE, gaussian, record_of, unet

NETWORK: Final = "digits/1"
ORACLE: Final = "digits/2"


def fill_registry(folder: Path) -> str:
    """Registers both models in a new store, and returns its URI."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    registry = Registry(uri, artifacts=str(folder / "artifacts"))
    experiment = registry.connection.experiment("serving")
    run_id = registry.connection.client.create_run(experiment).info.run_id
    network = registry.register(record_of(net=UNET_NODE), unet().state_dict(), run_id=run_id)
    oracle = registry.register(record_of(), gaussian().state_dict(), run_id=run_id)
    assert (str(network), str(oracle)) == (NETWORK, ORACLE)
    registry.promote(network, "champion", why="the first one")
    return uri


def register_broken(uri: str) -> str:
    """Registers a third version, whose weights are no numbers; the alias stays where it is."""
    registry = Registry(uri)
    weights = {name: torch.full_like(one, torch.nan) for name, one in unet().state_dict().items()}
    run_id = registry.entry(NETWORK).run_id
    return str(registry.register(record_of(net=UNET_NODE), weights, run_id=run_id))
