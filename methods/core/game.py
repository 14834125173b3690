"""Games: methods with a second trained network, whose players take turns."""

from abc import ABC, abstractmethod

from .method import AbstractLearner
from .record import Batch, Loss, Moment, Nets

ONLINE = "online"
"""The player that trains the flow map; every other player is named after its companion."""


class AbstractGame(AbstractLearner, ABC):
    """A method whose networks have losses of their own: discriminators, fake scores.

    The platform gives each player its own optimizer and, under several workers, its own
    synchronised objective. In a player's turn the parameters of all others are frozen, and they are
    in evaluation mode: their dropout would be noise in what the player learns.
    """

    @abstractmethod
    def players(self, now: Moment) -> tuple[str, ...]:
        """Who moves at this moment, in order."""

    @abstractmethod
    def loss(self, player: str, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples in a player's turn.

        Args:
            player: Whose turn it is.
            nets: Networks; only the player's own parameters receive gradients.
            batch: Data with paired noise.
            now: The moment.

        Returns:
            One number for each sample and term.
        """
