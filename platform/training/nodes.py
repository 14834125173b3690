"""The nodes of a cluster: whether all that may hold workers see the folder of the run."""

import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..atomic import write_text
from ..experiment import Experiment
from ..ray_instance import names_cluster, ray_instance

_MARKER: Final = ".seen-by-every-node"
_WAIT_S: Final = 120.0
"""A node whose first process has to import the package takes a while to answer."""


def check_nodes(experiment: Experiment, folder: Path) -> None:
    """Refuse a cluster whose nodes have a folder of their own in the place of the run's.

    Workers read what the run began from and write checkpoints into its folder. Nodes that an
    autoscaler adds later are not there to be asked; their workers ask ``refusal_here`` themselves.

    Args:
        experiment: What to train.
        folder: Folder of the run; it exists.

    Raises:
        ValueError: If a node that may hold workers does not see the folder.
    """
    workers = experiment.workers
    is_cluster = names_cluster(workers.address) or ray.is_initialized()
    if not (workers.uses_ray and is_cluster):
        return
    with ray_instance(address=workers.address):
        needed = {"CPU": workers.cpus_per_worker, "GPU": workers.gpus_per_worker}
        here = ray.get_runtime_context().get_node_id()
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        others = [node for node in nodes if node["NodeID"] != here and _holds(node, needed)]
        if others:
            with marked(folder) as mark:
                _ask(others, mark)


def _holds(node: Mapping[str, Any], needed: Mapping[str, float]) -> bool:
    has: Mapping[str, float] = node["Resources"]
    return node["Alive"] and all(has.get(kind, 0.0) >= some for kind, some in needed.items())


def _ask(nodes: list[dict[str, Any]], mark: tuple[Path, str]) -> None:
    answers = [
        ray.remote(num_cpus=0, max_retries=0)(refusal_here)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(mark)
        for node in nodes
    ]
    for refusal in ray.get(answers, timeout=_WAIT_S):
        if refusal is not None:
            raise ValueError(refusal)


@contextmanager
def marked(folder: Path) -> Iterator[tuple[Path, str]]:
    """A file in a folder by which others tell whether theirs is the same, as long as it lasts.

    Args:
        folder: The folder.

    Yields:
        The file and what it holds.
    """
    marker, nonce = folder / _MARKER, secrets.token_hex(16)
    write_text(marker, nonce)
    try:
        yield marker, nonce
    finally:
        marker.unlink(missing_ok=True)


def refusal_here(mark: tuple[Path, str]) -> str | None:
    """Why this machine cannot work on a run whose folder is marked, or None if it can."""
    marker, nonce = mark
    try:
        if marker.read_text() == nonce:
            return None
    except OSError:
        pass
    host = socket.gethostname()
    return (
        f"node {host} does not see the run folder {marker.parent}: set ONESTEP_HOME to storage "
        "that all nodes mount at the same path"
    )
