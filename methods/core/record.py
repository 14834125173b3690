"""The records that a loss reads and writes: the batch, the moment, the networks, the loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .condition import Condition
from .flow_map import FlowMap
from .rng import Rng


@final
@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step of training sees.

    Attributes:
        x1: Data, images in [-1, 1].
        x0: Noise paired with the data; None until a coupling has supplied it.
        condition: What the samples are conditioned on, or None.
        index: Which datum of the set each row is.
        real: A second stream of real data, for methods that need one beside generated pairs.
    """

    x1: Float[Tensor, " b *d"]
    index: Int[Tensor, " b"]
    x0: Float[Tensor, " b *d"] | None = None
    condition: Condition | None = None
    real: Float[Tensor, " b *d"] | None = None

    def __len__(self) -> int:
        return len(self.x1)

    @property
    def noise(self) -> Float[Tensor, " b *d"]:
        """The paired noise; a coupling has to have run before the objective."""
        assert self.x0 is not None, "the coupling runs before the objective"
        return self.x0

    def __getitem__(self, rows: Int[Tensor, " n"] | slice) -> Self:
        return type(self)(
            x1=self.x1[rows],
            index=self.index[rows],
            x0=None if self.x0 is None else self.x0[rows],
            condition=None if self.condition is None else self.condition[rows],
            real=None if self.real is None else self.real[rows],
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same batch on a device, its data and noise in a floating-point type."""
        return type(self)(
            x1=self.x1.to(device, dtype),
            index=self.index.to(device),
            x0=None if self.x0 is None else self.x0.to(device, dtype),
            condition=None if self.condition is None else self.condition.to(device),
            real=None if self.real is None else self.real.to(device, dtype),
        )

    def with_noise(self, x0: Float[Tensor, " b *d"]) -> Self:
        """The same batch with this noise paired to its data."""
        return replace(self, x0=x0)


@final
@dataclass(frozen=True, kw_only=True)
class Moment:
    """When in training a step happens, and the random numbers that belong to it.

    Attributes:
        step: Steps taken before this one, from 0.
        total: Steps of the whole run.
        rng: Random numbers of this step, one stream for each shard of the batch.
        batch_size: Rows of the whole batch, over all workers.
    """

    step: int
    total: int
    rng: Rng
    batch_size: int = 1

    @property
    def progress(self) -> float:
        """Share of the run already done, in [0, 1)."""
        return self.step / self.total

    @property
    def samples(self) -> int:
        """Samples seen before this step."""
        return self.step * self.batch_size


@final
@dataclass(frozen=True, kw_only=True)
class Nets:
    """The networks of a loss.

    Attributes:
        online: The network in training.
        target: Its moving average that the method asked for, or None.
        frozen: Registered models by the role that they play (``teacher``, ``weak``).
        companions: Small trained parts that belong to the method and are never served.
    """

    online: FlowMap
    target: FlowMap | None = None
    frozen: Mapping[str, FlowMap] = field(default_factory=dict)
    companions: Mapping[str, nn.Module] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class Loss:
    """Losses per sample, never reduced: the platform reduces and balances them.

    Attributes:
        terms: Each term of the loss, by name.
        logs: Other quantities per sample that are worth a curve; no gradient flows from them.
        times: Start times of the samples: runs report the loss by tenths of them.
    """

    terms: Mapping[str, Float[Tensor, " b"]]
    logs: Mapping[str, Float[Tensor, " b"]] = field(default_factory=dict)
    times: Float[Tensor, " b"] | None = None

    @property
    def total(self) -> Float[Tensor, " b"]:
        """Sum of all terms, each sample by itself."""
        return torch.stack(list(self.terms.values())).sum(0)


CompanionFactory = Callable[[FlowMap], nn.Module]
