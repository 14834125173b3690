"""The nodes of a cluster: whether all that may hold workers see the folder of the run."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import ray

from ..atomic import write_text
from ..experiment import Experiment
from ..ray_instance import names_cluster, ray_instance
from ..shared_storage import CURE, check_shared

_MARKER: Final = ".seen-by-every-node"


def check_nodes(experiment: Experiment, folder: Path) -> None:
    """Refuse a cluster whose nodes have a folder of their own in the place of the run's.

    Workers read what the run began from and write checkpoints into its folder. Nodes that an
    autoscaler adds later are not there to be asked; their workers ask ``refusal_here`` themselves.

    Args:
        experiment: What to train.
        folder: Folder of the run; it exists.

    Raises:
        ValueError: If a node that may hold workers does not see the folder, or cannot write there.
    """
    workers = experiment.workers
    is_cluster = names_cluster(workers.address) or ray.is_initialized()
    if not (workers.uses_ray and is_cluster):
        return
    with ray_instance(address=workers.address):
        needed = {"CPU": workers.cpus_per_worker, "GPU": workers.gpus_per_worker}
        check_shared(folder, needed=needed)


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
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return f"node {address} does not see the folder {marker.parent}: {CURE}"
