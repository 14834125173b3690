"""The Ray instance that serving runs on: one that is there already, or one of its own."""

import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_OBJECT_STORE_BYTES: Final = 128 * 2**20
_RAY_CORE: Final = "ray._raylet"


def set_ray_environment() -> None:
    """Says explicitly what Ray would otherwise decide by what earlier clusters left behind.

    Values that the user has set stay as they are, and a user's cluster has its own.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if os.environ.keys() & {"RAY_AUTH_MODE", "RAY_ADDRESS"}:
        return
    if not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        # A token of our own leaves no file behind that changes the next cluster.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    if _RAY_CORE not in sys.modules:
        # Ray reads the mode when it is imported. After that, only ray.init may turn tokens on, and
        # for an instance of our own it does.
        os.environ["RAY_AUTH_MODE"] = "token"


@contextmanager
def ray_session(*, cores: int) -> Iterator[bool]:
    """Connects to Ray for the time of a block.

    Takes the instance that this process is connected to, else the cluster of RAY_ADDRESS, else
    starts one on this machine, in a folder of its own, which ends with the block.

    Args:
        cores: Cores that an instance of our own has.

    Yields:
        Whether the instance is our own.
    """
    set_ray_environment()
    import ray

    if ray.is_initialized():
        yield False
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING)
        try:
            yield False
        finally:
            ray.shutdown()
        return
    folder = tempfile.mkdtemp(prefix="os-")  # short: Ray's sockets have a limit of 107 bytes
    try:
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            logging_level=logging.WARNING,
            _temp_dir=folder,
        )
        yield True
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
