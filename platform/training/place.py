"""The place of a worker among the others: its rank, its device, its share of a batch."""

from dataclasses import dataclass
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor

from ..experiment import Experiment


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

    def mean(self, values: Tensor) -> Tensor:
        """Mean over all workers."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.world
        return values


def place_of(experiment: Experiment) -> Place:
    """Where this process computes for an experiment: on a GPU if its workers do and it has one."""
    has_gpu = experiment.workers.gpus_per_worker > 0 and torch.cuda.is_available()
    return Place(device=torch.device("cuda" if has_gpu else "cpu"))
