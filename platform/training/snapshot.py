"""Snapshots of two power averages during a run, from which an average of any width is made."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import safetensors.torch
from torch import Tensor

from ...methods.core.flow_map import FlowMap
from ..atomic import write_safetensors
from .ema import average_into
from .power_average import PowerProfile, Snapshot, coefficients, combine

WIDTHS: Final = (0.05, 0.10)
"""Relative widths of the two averages that are kept, those of arXiv:2312.02696."""
SNAPSHOTS: Final = "snapshots"
"""Where they lie in the folder of a run."""
_PROFILES: Final = tuple(PowerProfile.of_width(width) for width in WIDTHS)


@final
class PowerAverages:
    """Two averages of the online network whose widths stay a share of the run so far.

    Args:
        online: The network in training.
    """

    def __init__(self, online: FlowMap) -> None:
        self.nets = tuple(copy.deepcopy(online).eval().requires_grad_(False) for _ in _PROFILES)

    def update(self, online: FlowMap, *, step: int) -> None:
        """Follow the online network after a step.

        Args:
            online: The network in training.
            step: Number of the step, from 1.
        """
        for profile, net in zip(_PROFILES, self.nets, strict=True):
            average_into(net, online, profile.decay(step))

    def state(self) -> list[dict[str, Tensor]]:
        """Weights of both averages."""
        return [dict(net.state_dict()) for net in self.nets]

    def load(self, state: Sequence[dict[str, Tensor]]) -> None:
        """Put back what ``state`` gave."""
        for net, weights in zip(self.nets, state, strict=True):
            net.load_state_dict(weights)


def write_snapshot(folder: Path, averages: PowerAverages, *, step: int) -> None:
    """Write both averages beside a run's checkpoints; a file of the same step is replaced.

    Args:
        folder: Folder of the run.
        averages: The averages.
        step: Steps taken.
    """
    for width, weights in zip(WIDTHS, averages.state(), strict=True):
        write_safetensors(folder / SNAPSHOTS / f"{step:09d}-{width:.2f}.safetensors", weights)


def average_of_width(folder: Path, width: float) -> dict[str, Tensor]:
    """The weights that an average of a width would have had at the end of a run.

    Args:
        folder: Folder of the run.
        width: Relative width, in (0, 0.25].

    Returns:
        Weights by name.

    Raises:
        ValueError: If the width is out of range, or the run kept no snapshots.
    """
    profile = PowerProfile.of_width(width)
    files = sorted((folder / SNAPSHOTS).glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"an average of another width is made from snapshots, got none in {folder}; "
            "train with training.ema_snapshots=16"
        )
    kept = [_snapshot(file) for file in files]
    wanted = Snapshot(profile=profile, step=max(one.step for one in kept))
    weights = [safetensors.torch.load_file(file) for file in files]
    return combine(weights, coefficients(kept, wanted))


def _snapshot(file: Path) -> Snapshot:
    step, _, width = file.stem.partition("-")
    return Snapshot(profile=_PROFILES[WIDTHS.index(float(width))], step=int(step))
