"""Guidance: label dropout, and targets pushed away from the unconditional velocity."""

import math
import warnings
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .condition import Condition
from .flow_map import FlowMap
from .record import Batch, Moment, Nets
from .shape import rows_like


@final
@dataclass(frozen=True, kw_only=True)
class LabelDropout:
    """Training without the condition in a random share of rows, for guidance and for free samples.

    Attributes:
        probability: Share of rows that lose their condition, in [0, 1].

    Raises:
        ValueError: If the probability is out of range.
    """

    probability: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"label dropout needs a probability in [0, 1], got {self.probability}")

    def draw(self, n: int, now: Moment, *, device: torch.device) -> Bool[Tensor, " n"]:
        """Which rows lose their condition."""
        return (now.rng.uniform(n) < self.probability).to(device)

    def keep(self, batch: Batch, now: Moment) -> Condition | None:
        """The condition of a batch, of which some rows have lost theirs; None if it has none."""
        if batch.condition is None:
            return None
        return batch.condition.drop(self.draw(len(batch), now, device=batch.x1.device))

    def warn_if_never(self, guidance: str) -> None:
        """Warn where guidance meets a network that never sees a row without its condition.

        Args:
            guidance: The setting that asks for guidance.
        """
        if self.probability == 0.0:
            warnings.warn(
                f"{guidance} without label dropout trains against an unconditional velocity "
                "that the network never learns; set method.label_dropout.probability above 0",
                UserWarning,
                stacklevel=4,
            )


def require_labels(batch: Batch) -> Condition:
    """The condition of a batch that guidance needs.

    Args:
        batch: Data, with or without a condition.

    Raises:
        ValueError: If the batch has none.
    """
    if batch.condition is None:
        raise ValueError("guidance needs labelled data, got data without labels")
    return batch.condition


@final
@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Classifier-free guidance inside the regression target, so that sampling needs one pass.

        v_guided = omega v + (1 - omega - kappa) v(null) + kappa v(condition)

    At its fixed point this is guidance of scale omega / (1 - kappa). Both network terms are on the
    diagonal and carry no gradient.

    Reference: Geng et al. 2025, arXiv:2505.13447v1, section 4.2 and appendix B.1.
    Convention: their interval counts from data; [a, b] of theirs is [1 - b, 1 - a] here.
    Fails by: dropout in the network: its terms are evaluated under the masks of the batch, not in
        evaluation mode, so that their noise is in the target.

    Attributes:
        omega: Share of the sample's own velocity, at least 0; 1 with kappa 0 is no guidance.
        kappa: Share of the network's conditional velocity, in [0, 1).
        s_lo: Start of the times that are guided, in [0, s_hi].
        s_hi: End of the times that are guided, in [s_lo, 1].

    Raises:
        ValueError: If a value is out of range.
    """

    omega: float = 1.0
    kappa: float = 0.0
    s_lo: float = 0.0
    s_hi: float = 1.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.omega < math.inf and 0.0 <= self.kappa < 1.0):
            raise ValueError(
                "guidance needs a finite omega >= 0 and kappa in [0, 1), "
                f"got {self.omega} and {self.kappa}"
            )
        if not 0.0 <= self.s_lo <= self.s_hi <= 1.0:
            raise ValueError(
                f"guidance needs 0 <= s_lo <= s_hi <= 1, got {self.s_lo} and {self.s_hi}"
            )

    @property
    def scale(self) -> float:
        """The guidance scale that the model ends up with."""
        return self.omega / (1.0 - self.kappa)

    @property
    def is_on(self) -> bool:
        """Whether it changes anything."""
        return (self.omega, self.kappa) != (1.0, 0.0)

    def target(
        self,
        v: Float[Tensor, " b *d"],
        flow_map: FlowMap,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        condition: Condition,
        *,
        plain: Bool[Tensor, " b"],
    ) -> Float[Tensor, " b *d"]:
        """The guided velocity.

        Args:
            v: The sample's own velocity.
            flow_map: Model whose diagonal gives the other velocities.
            x: State.
            s: Time of the state.
            condition: Condition of each row.
            plain: Rows whose condition was dropped; they keep their own velocity.

        Returns:
            The target velocity of each row, without a graph.
        """
        with torch.no_grad():
            null = flow_map.velocity(x, s, condition.null())
            guided = self.omega * v + (1.0 - self.omega - self.kappa) * null
            if self.kappa:
                guided = guided + self.kappa * flow_map.velocity(x, s, condition)
        is_guided = (s >= self.s_lo) & (s <= self.s_hi) & ~plain
        return torch.where(rows_like(is_guided, x), guided, v)

    def apply(
        self,
        nets: Nets,
        batch: Batch,
        now: Moment,
        *,
        dropout: LabelDropout,
        x: Float[Tensor, " b *d"],
        v: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
    ) -> tuple[Float[Tensor, " b *d"], Condition | None]:
        """The velocity that a batch is regressed on, and the condition that its rows kept.

        Args:
            nets: The network in training, whose diagonal guides.
            batch: Data and their condition.
            now: The moment.
            dropout: How often a row loses its condition.
            x: States at s.
            v: Velocities of the pairs.
            s: Times.

        Raises:
            ValueError: If there is guidance and the batch has no condition.
        """
        if not self.is_on:
            return v, dropout.keep(batch, now)
        condition = require_labels(batch)
        plain = dropout.draw(len(batch), now, device=s.device)
        condition = condition.drop(plain)
        return self.target(v, nets.online, x, s, condition, plain=plain), condition


@final
@dataclass(frozen=True, kw_only=True)
class GuidanceScales:
    """Guidance by a scale that the network takes as an input, so that it is chosen when sampling.

        v_guided = v + (1 - 1 / scale) (v(condition, scale) - v(null))

    Each row draws a scale w >= 1 of density proportional to w^-power. The fixed point is guidance
    of that scale; a scale of 1 is none. Both network terms are on the diagonal and carry no
    gradient.

    Reference: Geng et al. 2025 (improved MeanFlow), arXiv:2512.02012v1, section 4.2; the law of the
        scale after their code.
    Convention: their interval counts from data; [a, b] of theirs is [1 - b, 1 - a] here.

    Attributes:
        highest: Greatest scale, at least 1; 1 is no guidance.
        power: How fast the density falls, at least 0; 1 is uniform in the logarithm.
        s_lo: Start of the times that are guided, in [0, s_hi].
        s_hi: End of the times that are guided, in [s_lo, 1].

    Raises:
        ValueError: If a value is out of range.
    """

    highest: float = 1.0
    power: float = 1.0
    s_lo: float = 0.0
    s_hi: float = 1.0

    def __post_init__(self) -> None:
        if not (1.0 <= self.highest < math.inf and 0.0 <= self.power < math.inf):
            raise ValueError(
                "guidance scales need finite highest >= 1 and power >= 0, "
                f"got {self.highest} and {self.power}"
            )
        if not 0.0 <= self.s_lo <= self.s_hi <= 1.0:
            raise ValueError(
                f"guidance scales need 0 <= s_lo <= s_hi <= 1, got {self.s_lo} and {self.s_hi}"
            )

    @property
    def is_on(self) -> bool:
        """Whether any scale differs from 1."""
        return self.highest > 1.0

    def draw(self, n: int, now: Moment, *, like: Tensor) -> Float[Tensor, " n"]:
        """Scales of n rows, independent of each other, of the type and place of a tensor."""
        u = now.rng.uniform(n, dtype=like.dtype).to(like.device)
        if self.power == 1.0:
            return self.highest**u
        rest = 1.0 - self.power
        return (1.0 + u * (self.highest**rest - 1.0)) ** (1.0 / rest)

    def target(
        self,
        v: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        scale: Float[Tensor, " b"],
        *,
        own: Float[Tensor, " b *d"],
        null: Float[Tensor, " b *d"],
    ) -> Float[Tensor, " b *d"]:
        """The guided velocity.

        Args:
            v: The sample's own velocity.
            s: Time of the state.
            scale: Scale of each row.
            own: The network's velocity with the condition and the scale of the row.
            null: The network's velocity without either.

        Returns:
            The target velocity of each row; at scale 1 and outside the interval it is v.
        """
        is_guided = (s >= self.s_lo) & (s <= self.s_hi)
        push = torch.where(is_guided, 1.0 - scale.reciprocal(), 0.0)
        return v + rows_like(push, v) * (own - null)
