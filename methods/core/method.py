"""Methods: a batch at a moment of training becomes a loss on a flow map."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, final

from .balance import AbstractBalance, FixedBalance
from .coupling import AbstractCoupling
from .flow_map import Domain
from .guidance import LabelDropout
from .record import Batch, CompanionFactory, Loss, Moment, Nets
from .schedule import Schedule, require_range

TEACHER: Final = "teacher"
"""The role of the frozen model that a method learns from."""


class View(StrEnum):
    """How a method looks at a frozen model."""

    VELOCITY = "velocity"
    """On its diagonal."""
    GUIDED = "guided"
    """On its diagonal, with its condition and without it."""
    JUMP = "jump"
    """As a flow map, over intervals."""


@final
@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a method looks at a frozen model, and where it asks it.

    Attributes:
        view: How it looks at it.
        on: The (s, t) at which it asks, of the path of its own domain. None for a velocity that is
            asked within the model's own range, whatever that is.
        pairing: Whether it has to have been trained with noise that was paired with the data,
            because states of such noise have the velocity that the method relies on; None where
            any velocity will do, as where its trajectories alone are followed.
    """

    view: View = View.VELOCITY
    on: Domain | None = None
    pairing: bool | None = None

    def __post_init__(self) -> None:
        assert self.on is not None or self.view is not View.JUMP, "jumps are asked for by name"


@final
@dataclass(frozen=True, kw_only=True)
class Ema:
    """A target network: the moving average of the online one, updated whenever that one moves.

    Attributes:
        decay: Share of the old target that stays at each move, in [0, 1].

    Raises:
        ValueError: If the decay leaves [0, 1].
    """

    decay: Schedule

    def __post_init__(self) -> None:
        require_range("target decay", self.decay, 0.0, 1.0)


@final
@dataclass(frozen=True, kw_only=True)
class PairMix:
    """Training on stored pairs: pairs made from noise, mixed with real data and its own noise.

    Attributes:
        generated: Share of the rows that a teacher made from fresh noise, in [0, 1]; the others
            are real data with the noise that the teacher's flow takes back from them.

    Raises:
        ValueError: If the share leaves [0, 1].
    """

    generated: Schedule

    def __post_init__(self) -> None:
        require_range("share of generated pairs", self.generated, 0.0, 1.0)


@final
@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a method asks the platform to build, keep and checkpoint beside the online network.

    Attributes:
        target: Moving average of the online network, or None.
        frozen: Registered models by role, and how and where each is asked; all of them of the path
            of the method's domain.
        companions: Small trained parts by name; never served.
        pairs: How stored pairs are mixed, or None for plain data.
        scales: Lowest and highest guidance scale that the method draws and tells the network, or
            None. A network that takes a scale and is told none is refused, and the reverse.
        told: Frozen models that are told the same scale, by role; the others must take none.
    """

    target: Ema | None = None
    frozen: Mapping[str, Reading] = field(default_factory=dict)
    companions: Mapping[str, CompanionFactory] = field(default_factory=dict)
    pairs: PairMix | None = None
    scales: tuple[float, float] | None = None
    told: frozenset[str] = frozenset()


class AbstractLearner(ABC):
    """What methods and games declare about themselves. Subclasses are frozen dataclasses."""

    @property
    @abstractmethod
    def coupling(self) -> AbstractCoupling:
        """How noise is paired with data before the loss."""

    @property
    @abstractmethod
    def domain(self) -> Domain:
        """On which (s, t) the map is trained."""

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What the platform builds for the method."""

    @property
    def balance(self) -> AbstractBalance:
        """How the terms of the network's loss combine; a sum unless a learner holds another."""
        return FixedBalance()

    @property
    def switches(self) -> Mapping[str, Schedule]:
        """Schedules that plain numbers stand for, by field; none unless a learner has such fields.

        Whatever compares runs on their way asks all schedules where they stand, and has to see
        these too.
        """
        return {}

    @property
    def label_dropout(self) -> LabelDropout:
        """How often a sample is seen without its condition; never unless a method holds another."""
        return LabelDropout(probability=0.0)


class AbstractMethod(AbstractLearner, ABC):
    """A method with one loss and one optimizer."""

    @abstractmethod
    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired.

        Args:
            nets: Networks; only the online one and the companions receive gradients.
            batch: Data with paired noise.
            now: The moment, the only source of randomness.

        Returns:
            One number for each sample and term.
        """
