"""The place of a worker among the others: its rank, its device, its share of a batch."""

from dataclasses import dataclass
from typing import TypeVar, final

import torch
import torch.distributed as dist
from torch import Tensor

from ..experiment import Experiment, Workers

T = TypeVar("T")


@final
@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a worker stands.

    Attributes:
        rank: Number of this worker, from 0.
        world: How many workers there are.
        device: Where this worker computes.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this worker writes for all."""
        return self.rank == 0

    def shards(self, total: int) -> tuple[int, ...]:
        """The shards of a batch that are this worker's.

        Args:
            total: Shards of the whole batch.

        Returns:
            Consecutive shards, as many for each worker.

        Raises:
            ValueError: If the shards cannot be shared equally.
        """
        if total % self.world:
            raise ValueError(
                f"workers.num_workers must divide training.shards, got {self.world} and {total}"
            )
        mine = total // self.world
        return tuple(range(self.rank * mine, (self.rank + 1) * mine))

    def told(self, words: T) -> T:
        """What the leading worker says, at every worker.

        Args:
            words: What it says; what the others pass is not used.
        """
        said = [words]
        if self.world > 1:
            dist.broadcast_object_list(said, src=0, device=self.device)
        return said[0]

    def mean(self, values: Tensor) -> Tensor:
        """Mean over all workers."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.world
        return values


def place_of(experiment: Experiment) -> Place:
    """Where this process computes for an experiment: on a GPU if its workers do.

    Args:
        experiment: What is computed.

    Returns:
        The place. Where only Ray's workers have GPUs, a CPU will do for what is tried beforehand.

    Raises:
        ValueError: If this process is the worker, and asks for a GPU that it does not have.
    """
    workers = experiment.workers
    has_gpu = workers.gpus_per_worker > 0 and torch.cuda.is_available()
    if workers.gpus_per_worker > 0 and not (has_gpu or workers.uses_ray):
        raise ValueError(
            "workers.gpus_per_worker must be 0 where this process has no GPU, got "
            f"{workers.gpus_per_worker:g}; the GPUs of a Ray cluster take workers.ray=true"
        )
    return Place(device=torch.device("cuda" if has_gpu else "cpu"))


def is_elsewhere(experiment: Experiment) -> bool:
    """Whether only the workers of Ray have the GPUs that an experiment computes on."""
    workers = experiment.workers
    return workers.uses_ray and workers.gpus_per_worker > 0 and not torch.cuda.is_available()


def check_place(experiment: Experiment) -> None:
    """Refuse a run in this process whose workers are not what this process is.

    Args:
        experiment: The run; Ray Train takes all settings, and a trial those that Ray Tune reserves.

    Raises:
        ValueError: If a setting would have no effect, or this process lacks a GPU.
    """
    workers, default = experiment.workers, Workers()
    if workers.uses_ray:
        return
    if workers.cpus_per_worker != default.cpus_per_worker:
        raise ValueError(
            "workers.cpus_per_worker has no effect without Ray: set workers.ray=true, or leave it "
            f"at {default.cpus_per_worker:g}, got {workers.cpus_per_worker:g}"
        )
    if workers.gpus_per_worker not in (0.0, 1.0):
        raise ValueError(
            "workers.gpus_per_worker must be 0 or 1 without Ray: set workers.ray=true, got "
            f"{workers.gpus_per_worker:g}"
        )
    place_of(experiment)
