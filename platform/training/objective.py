"""The objective: the module that is differentiated, and that several workers synchronise."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import final

import torch
from torch import Tensor, nn

from ...methods.core.balance import AbstractBalance
from ...methods.core.dropout import dropout_masks
from ...methods.core.game import ONLINE, AbstractGame
from ...methods.core.method import AbstractMethod
from ...methods.core.precision import Precision
from ...methods.core.record import Batch, Loss, Moment, Nets
from .loss_by_time import BY_TIME, by_time
from .place import Place


@final
class Objective(nn.Module):
    """A method and its networks as one module whose forward gives the mean of each loss term.

    Forward-mode derivatives through a network that is wrapped for several workers fail under
    common settings, and going around the wrapper skips its synchronisation without a word. So the
    loss is wrapped, not the network: whatever the method does inside is one forward to the outside.

    Only what the player trains is registered; the target and the frozen networks are held apart.

    Args:
        learner: The method, or the game.
        nets: Its networks.
        precision: Arithmetic of the networks.
        player: Whose turn it is in a game; a method has the online player alone.
    """

    def __init__(
        self,
        learner: AbstractMethod | AbstractGame,
        nets: Nets,
        *,
        precision: Precision = Precision.FLOAT32,
        player: str = ONLINE,
    ) -> None:
        super().__init__()
        self._learner, self._precision, self._player = learner, precision, player
        self._nets = (nets,)  # in a tuple, so that nothing in it is registered
        if isinstance(learner, AbstractGame):
            trained = nets.online if player == ONLINE else nets.companions[player]
            self.trained = nn.ModuleDict({"player": trained})
        else:
            self.trained = nn.ModuleDict({"online": nets.online, **nets.companions})

    def forward(self, batch: Batch, now: Moment) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Mean of each term over the rows, and other quantities without a graph.

        Args:
            batch: Rows of this worker, with paired noise.
            now: The moment, with the streams of this worker's shards.

        Returns:
            The terms by name, and the mean of each logged quantity; the shares of ``by_time``
            among them, of the network's own loss.
        """
        with ExitStack() as contexts:
            contexts.enter_context(dropout_masks(now.rng, len(batch)))
            contexts.enter_context(self._precision.autocast(batch.x1.device.type))
            loss = self._loss(batch, now)
        terms = {name: rows.mean() for name, rows in loss.terms.items()}
        logs = {name: rows.detach().mean() for name, rows in loss.logs.items()}
        shares = by_time(loss) if self._player == ONLINE else None
        return terms, logs if shares is None else {**logs, BY_TIME: shares}

    def _loss(self, batch: Batch, now: Moment) -> Loss:
        (nets,) = self._nets
        if isinstance(self._learner, AbstractGame):
            return self._learner.loss(self._player, nets, batch, now)
        return self._learner.loss(nets, batch, now)


def combine(
    terms: Mapping[str, Tensor],
    balance: AbstractBalance,
    named: Mapping[str, nn.Parameter],
    now: Moment,
    place: Place,
) -> Tensor:
    """The one number that is differentiated: the terms, weighted by their balance.

    Args:
        terms: Mean of each term on this worker.
        balance: How they combine.
        named: Parameters of the online network by name.
        now: The moment.
        place: Where this worker stands; gradients that decide a weight are means over all workers.

    Returns:
        A scalar with a graph.

    Raises:
        ValueError: If the balance names a term or a parameter that does not exist.
    """
    norms: dict[str, float] = {}
    if balance.parameter is not None:
        if balance.parameter not in named:
            raise ValueError(f"balance.parameter names no parameter, got {balance.parameter}")
        at = named[balance.parameter]
        for name, term in terms.items():
            (gradient,) = torch.autograd.grad(term, at, retain_graph=True)
            norms[name] = float(place.mean(gradient).norm())
    weights = balance.weights(tuple(terms), norms, now)
    total = [weights[name] * term for name, term in terms.items()]
    return torch.stack(total).sum()
