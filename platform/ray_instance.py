"""Ray: the cluster that the user names, or an instance of this process alone."""

import logging
import math
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .head_watch import watched
from .own_folder import own_folder

_OBJECT_STORE_BYTES: Final = 256 * 2**20
_RAY_CORE: Final = "ray._raylet"
_TOKEN: Final = secrets.token_hex(32)
"""Ray remembers the first token that its process has used, so there is one for each process."""
_own: Final[set[str]] = set()
"""Folder of the instance that this process has started, while it runs."""
_START_TIMEOUT: Final = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_NODE_STARTS_WITHIN_S: Final = "1800"


def set_ray_environment() -> None:
    """Say explicitly what Ray would otherwise decide by what earlier clusters left behind.

    Values that the user has set stay as they are, and a user's cluster has its own.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray Train hands on a report once per poll of its controller, by default every two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's default of 15 starves its workers beside any other load, up to its own timeouts.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Half a minute, Ray's default, is too short for its processes beside any other load.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    # Trials find data by the folder that they were started in.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    if os.environ.keys() & {"RAY_AUTH_MODE", "RAY_ADDRESS"}:
        return
    if not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        # A token of our own leaves no file behind that changes the next cluster.
        os.environ["RAY_AUTH_TOKEN"] = _TOKEN
    if _RAY_CORE not in sys.modules:
        # Ray reads the mode when it is imported. After that, only ray.init may turn tokens on, and
        # for an instance of our own it does.
        os.environ["RAY_AUTH_MODE"] = "token"


def names_cluster(address: str) -> bool:
    """Whether Ray is to be joined where it runs, by this address or by RAY_ADDRESS."""
    return bool(address or os.environ.get("RAY_ADDRESS"))


def whole_cpus(cpus: float) -> int:
    """The least number of whole CPUs that hold so many, as Ray counts them: to four decimals."""
    return max(1, math.ceil(round(cpus, 4)))


@contextmanager
def ray_instance(
    *, address: str = "", num_cpus: int = 2, tells_state: bool = False
) -> Iterator[bool]:
    """Ray, for as long as the context lasts.

    Args:
        address: A running cluster, or ``auto``; empty for the Ray that this process is connected
            to, then for RAY_ADDRESS, and without both for an instance of its own.
        num_cpus: Logical CPUs of an instance of its own.
        tells_state: Whether an instance of its own has the dashboard, which takes seconds to start.
            Ray Train asks it which groups were killed, whose CPUs it frees then.

    Yields:
        Whether the instance is this process's own, and ends with the context that started it.

    Raises:
        ValueError: If the cluster does not answer.
        OSError: If an instance of its own does not start.
    """
    set_ray_environment()
    import ray

    address = address or os.environ.get("RAY_ADDRESS", "")
    if not _own and (address or ray.is_initialized()):
        # A node that an autoscaler adds boots, pulls its image and installs the package first;
        # Ray Train's default of 60 seconds, a few times over, gives up before it is there.
        os.environ.setdefault(_START_TIMEOUT, _NODE_STARTS_WITHIN_S)
    if ray.is_initialized():
        yield bool(_own)
        return
    if address:
        try:
            ray.init(address=address, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise ValueError(f"no Ray cluster answers at {address!r}") from error
        try:
            with watched(ray.get_runtime_context().gcs_address):
                yield False
        finally:
            ray.shutdown()
        return
    with own_folder() as folder:
        yield from _own_instance(folder, num_cpus, has_dashboard=tells_state)


def _own_instance(folder: str, num_cpus: int, *, has_dashboard: bool) -> Iterator[bool]:
    import ray

    try:
        _start(folder, num_cpus, has_dashboard=has_dashboard)
        _own.add(folder)
        with watched(ray.get_runtime_context().gcs_address):
            yield True
    finally:
        _own.discard(folder)
        ray.shutdown()


def _start(folder: str, num_cpus: int, *, has_dashboard: bool) -> None:
    import ray

    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=has_dashboard,
            object_store_memory=_OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,  # a warning says that tokens are on, as they should be
            # What workers raise comes back as an exception; Ray's own chatter would cover the bars.
            log_to_driver=False,
            _temp_dir=folder,
        )
    except Exception as error:  # Ray has no class of its own for what does not start
        raise OSError(f"Ray does not start: {str(error).partition(chr(10))[0]}") from error
