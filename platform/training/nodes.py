"""The nodes of a cluster: whether all that may hold workers see the folder of the run."""

import secrets
import tempfile
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
        ValueError: If the head, or a node that may hold workers, does not see the folder or cannot
            write there.
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
    """Why this machine cannot work on a run whose folder is marked, or None if it can.

    It has to see the folder, and to write into it.
    """
    marker, nonce = mark
    if not _holds(marker, nonce):
        return f"node {_address()} does not see the folder {marker.parent}: {CURE}"
    try:
        # It has no name, or loses it at once: nothing stays, whenever this process ends.
        with tempfile.TemporaryFile(dir=marker.parent) as file:
            file.write(nonce.encode())
    except OSError as error:
        return f"node {_address()} cannot write into {marker.parent}: {error.strerror}"
    return None


def _holds(marker: Path, nonce: str) -> bool:
    try:
        return marker.read_text() == nonce
    except OSError:
        return False


def _address() -> str:
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address
