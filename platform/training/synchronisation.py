"""Whether several workers that share a batch find the gradient of one: tried in real processes."""

import datetime
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor

from ...methods.core.precision import Precision
from ..experiment import Experiment, Workers
from .place import Place
from .stand_in import stand_in

Gradients = dict[str, list[Tensor]]
_ROWS: Final = 8
"""Rows of each worker: with the usual shares, some lie off the diagonal."""
_STEPS: Final = 64
"""Steps of a run of which those in the middle are taken, where no curriculum is at an end."""
_TURNS: Final = 32
"""Steps within which each player of a game moves."""
_TOLERATED: Final = 1e-9
_OPTIMIZERS: Final = "torch._dynamo"
"""What an optimizer imports at its first step."""
_LONGEST: Final = datetime.timedelta(seconds=120)


@final
@dataclass(frozen=True, kw_only=True)
class Synchronisation:
    """What came of the trial.

    Attributes:
        workers: How many processes shared the batch.
        difference: Largest difference of an element of any worker's gradient from that of one
            process with the whole batch, over the largest element; in double precision.
    """

    workers: int
    difference: float

    @property
    def holds(self) -> bool:
        """Whether the gradients are the same but for the order of a sum."""
        return self.difference <= _TOLERATED


def check_synchronised(experiment: Experiment, *, workers: int = 2) -> Synchronisation:
    """Take the steps of an experiment in several processes of this machine, over gloo on the CPU.

    Noise stands for the data and random networks for parents.

    Args:
        experiment: Whose method, network and optimizer are tried.
        workers: How many processes share the batch.

    Returns:
        How far their gradients lie from those of one process.

    Raises:
        ValueError: If a part of the experiment is refused by its class.
        torch.multiprocessing.ProcessRaisedException: If a worker fails.
    """
    small = _small(experiment, workers)
    alone = gradients(small, Place())
    with tempfile.TemporaryDirectory() as folder:
        # Imports, which take seconds, are paid for once by the process that the workers fork from.
        multiprocessing.get_context("forkserver").set_forkserver_preload([__name__, _OPTIMIZERS])
        torch.multiprocessing.start_processes(  # type: ignore[attr-defined,no-untyped-call]
            _work, (workers, small.to_dict(), folder), nprocs=workers, start_method="forkserver"
        )
        found = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(workers)]
    return Synchronisation(
        workers=workers, difference=max(_difference(each, alone) for each in found)
    )


def gradients(experiment: Experiment, place: Place) -> Gradients:
    """Gradients of every player after steps in the middle of a run, until each has moved.

    Args:
        experiment: What is trained.
        place: Where this worker stands.

    Returns:
        Gradients by player.
    """
    learning = stand_in(experiment, place)
    learning.step = experiment.training.steps // 2
    found: Gradients = {}
    for _ in range(_TURNS):
        players = learning.players
        learning.advance()
        for player in players:
            groups = learning.optimizers[player].param_groups
            parameters = [p for group in groups for p in group["params"]]
            found[player] = [p.grad.clone() for p in parameters if p.grad is not None]
        if found.keys() == learning.optimizers.keys():
            break
    return found


def _small(experiment: Experiment, workers: int) -> Experiment:
    batch_size = workers * _ROWS
    training = replace(
        experiment.training,
        samples=_STEPS * batch_size,
        batch_size=batch_size,
        shards=workers,
        accumulate=1,
        precision=Precision.FLOAT64,
        clip_norm=0.0,
        compile=False,
        stream=False,
        ema_snapshots=0,
        threads=1,
    )
    return replace(experiment, training=training, workers=Workers())


def _work(rank: int, world: int, experiment: Mapping[str, Any], folder: str) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the host's name may mean nothing
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world,
        timeout=_LONGEST,
    )
    try:
        found = gradients(Experiment.from_dict(experiment), Place(rank=rank, world=world))
        torch.save(found, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def _difference(ours: Gradients, theirs: Gradients) -> float:
    """Infinite where one has gradients that the other lacks."""
    mine, other = ([p for player in sorted(g) for p in g[player]] for g in (ours, theirs))
    if [p.shape for p in mine] != [p.shape for p in other] or not other:
        return float("inf")
    largest = max(float(p.abs().max()) for p in other)
    apart = max(float((a - b).abs().max()) for a, b in zip(mine, other, strict=True))
    return apart / largest if largest else float("inf")
