"""Couplings: which noise belongs to which datum. They run before the objective, on x0 only."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .record import Batch, Moment

CouplingState = Mapping[str, Tensor]
"""What a coupling keeps between steps: tensors by name. It goes in and comes out of ``pair``."""
_SMALL: Final = 1000
"""Points up to which SciPy solves an assignment sooner than the network simplex of POT."""
_SIMPLEX_STEPS: Final = 100_000_000


class AbstractCoupling(ABC):
    """A joint law of noise and data with the right marginals, drawn batch by batch.

    Attributes:
        is_paired: Whether noise depends on the data that it comes with.
    """

    is_paired: ClassVar[bool] = True

    @abstractmethod
    def initial(self, num_data: int, shape: tuple[int, ...]) -> CouplingState:
        """State before the first step, for a set of num_data examples of this shape."""

    @abstractmethod
    def pair(self, batch: Batch, state: CouplingState, now: Moment) -> tuple[Batch, CouplingState]:
        """The batch with noise paired to its data, and the state after it."""


class AbstractSolvedCoupling(AbstractCoupling):
    """A coupling that looks at the whole set once, before the first step of a run."""

    @abstractmethod
    def solve(self, whole: Batch, state: CouplingState) -> CouplingState:
        """The state of the first step: a pure function of the set and of the initial state."""


def _fresh_noise(batch: Batch, now: Moment) -> Float[Tensor, " b *d"]:
    if batch.x0 is not None:
        return batch.x0
    noise = now.rng.normal(len(batch), *batch.x1.shape[1:], dtype=batch.x1.dtype)
    return noise.to(batch.x1.device)


@final
@dataclass(frozen=True, kw_only=True)
class IndependentCoupling(AbstractCoupling):
    """Fresh noise, independent of the data."""

    is_paired: ClassVar[bool] = False

    def initial(self, num_data: int, shape: tuple[int, ...]) -> CouplingState:
        """No state."""
        del num_data, shape
        return {}

    def pair(self, batch: Batch, state: CouplingState, now: Moment) -> tuple[Batch, CouplingState]:
        """The batch with fresh noise."""
        return batch.with_noise(_fresh_noise(batch, now)), state


@final
@dataclass(frozen=True, kw_only=True)
class MinibatchOTCoupling(AbstractCoupling):
    """Fresh noise, permuted within each shard to the least total squared distance to its data.

    A permutation keeps every datum and every noise of the batch exactly once; drawing pairs from
    the plan with replacement would keep 63 % of them.

    Reference: Pooladian et al. 2023, arXiv:2304.14772v2; Tong et al. 2023, arXiv:2302.00482v4,
        Alg. 3.

    Attributes:
        by_label: Whether noise stays within its label, which keeps the law of the noise given the
            label normal in conditional models (Cheng and Schwing 2025, arXiv:2503.10636v1).
            Without it a label's noise is skewed towards its data.
    """

    by_label: bool = False

    def initial(self, num_data: int, shape: tuple[int, ...]) -> CouplingState:
        """No state."""
        del num_data, shape
        return {}

    def pair(self, batch: Batch, state: CouplingState, now: Moment) -> tuple[Batch, CouplingState]:
        """The batch with noise in the order of the optimal assignment of its shard."""
        x0 = _fresh_noise(batch, now)
        return batch.with_noise(x0[optimal_order(batch, x0, now, by_label=self.by_label)]), state


def optimal_order(
    batch: Batch, x0: Float[Tensor, " b *d"], now: Moment, *, by_label: bool
) -> Int[Tensor, " b"]:
    """The row of x0 that belongs to each row of a batch, optimal within each shard.

    Args:
        batch: Data.
        x0: Noise, as many rows.
        now: The moment, whose shards the rows lie in.
        by_label: Whether noise stays within its label.

    Returns:
        A permutation of the rows of each shard.

    Raises:
        ValueError: If labels are to be kept and there are none.
    """
    rows = now.rng.rows_per_shard(len(batch))
    parts = torch.arange(len(batch)).split(rows)
    assign = _assign_by_label if by_label else _assign
    return torch.cat([assign(batch, x0, part) for part in parts]).to(x0.device)


def _assign(batch: Batch, x0: Float[Tensor, " b *d"], rows: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    return rows[optimal_assignment(batch.x1[rows], x0[rows])]


def _assign_by_label(
    batch: Batch, x0: Float[Tensor, " b *d"], rows: Int[Tensor, " n"]
) -> Int[Tensor, " n"]:
    if batch.condition is None or batch.condition.label is None:
        raise ValueError("coupling by label needs labelled data, got a batch without labels")
    labels = batch.condition.label[rows].cpu()
    order = rows.clone()
    for label in labels.unique():
        order[labels == label] = _assign(batch, x0, rows[labels == label])
    return order


def optimal_assignment(x1: Float[Tensor, " n *d"], x0: Float[Tensor, " n *d"]) -> Int[Tensor, " n"]:
    """The row of x0 that belongs to each row of x1 at the least total squared distance."""
    cost = torch.cdist(x1.flatten(1).double(), x0.flatten(1).double()).square().cpu()
    if len(cost) <= _SMALL:
        _, columns = linear_sum_assignment(cost.numpy())
        return torch.from_numpy(columns)
    import ot  # here, for it takes seconds to import and most runs never come this far

    # Masses of one stay whole numbers all the way, so that the plan is a permutation exactly.
    mass = torch.ones(len(cost), dtype=torch.float64).numpy()
    plan = torch.from_numpy(ot.emd(mass, mass, cost.numpy(), numItermax=_SIMPLEX_STEPS))
    return plan.argmax(1)


@final
@dataclass(frozen=True, kw_only=True)
class StoredPairs(AbstractCoupling):
    """The noise that is stored with each datum, in a set of pairs made before the first step."""

    def initial(self, num_data: int, shape: tuple[int, ...]) -> CouplingState:
        """No state: the pairs are data."""
        del num_data, shape
        return {}

    def pair(self, batch: Batch, state: CouplingState, now: Moment) -> tuple[Batch, CouplingState]:
        """The batch as it is."""
        del now
        if batch.x0 is None:
            raise ValueError(
                "coupling StoredPairs needs a set of pairs as data, got data without noise"
            )
        return batch, state
