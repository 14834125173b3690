"""The device that a user names for a model, or the best one there is."""

import re
from typing import Final

import torch

AUTO: Final = "auto"
_NAME: Final = re.compile(r"cpu|cuda(:\d+)?")


def device_named(name: str) -> torch.device:
    """The device of a name.

    Args:
        name: ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` is a GPU where there is one.

    Returns:
        The device, which this machine has.

    Raises:
        ValueError: If it is no such name, or this machine has no such device.
    """
    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not _NAME.fullmatch(name):
        raise ValueError(f"the device must be auto, cpu, cuda or cuda:N, got {name!r}")
    device = torch.device(name)
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        there = ", ".join(["cpu", *(f"cuda:{number}" for number in range(gpus))])
        raise ValueError(
            f"the device must be one that this machine has, which are {there}, got {name}"
        )
    return device
