"""Ray: the cluster that the user names, or an instance of this process alone."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import ray

_DEFAULTS: Final = {
    # Explicit on both sides: what Ray does without it depends on whether a token file exists.
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray Train hands on a report once per poll of its controller, by default every two seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A single accelerator-free task must see no GPU of its neighbours; Ray's coming default.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def ray_instance(*, address: str = "", num_cpus: int = 2) -> Iterator[None]:
    """Ray, for as long as the context lasts.

    Args:
        address: A running cluster, or ``auto``; empty for RAY_ADDRESS, and without that for an
            instance of its own.
        num_cpus: Logical CPUs of an instance of its own.

    Yields:
        Nothing; Ray is up inside. What was started here is shut down after.

    Raises:
        ValueError: If the cluster does not answer.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS", "")
    try:
        if address:
            ray.init(address=address)
        else:
            # A short folder: the paths of Unix sockets have a limit of about a hundred letters.
            folder = tempfile.mkdtemp(prefix="os-", dir="/tmp")
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, _temp_dir=folder)
    except ConnectionError as error:
        raise ValueError(f"no Ray cluster answers at {address!r}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()
