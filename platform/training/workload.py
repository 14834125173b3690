"""The workload: operations and activations of a step, counted on tensors without memory."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from ...methods.core.balance import FixedBalance
from ...methods.core.condition import Condition
from ...methods.core.dropout import dropout_masks
from ...methods.core.flow_map import FlowMap
from ...methods.core.game import AbstractGame
from ...methods.core.record import Batch, Loss, Moment, Nets
from ...methods.core.rng import Rng
from .assembly import Assembly, Learner
from .learning import Learning
from .objective import combine
from .place import Place
from .stand_in import CAPTION_WORDS

_ROWS: Final = 16
"""Rows that are counted; operations and activations grow with the rows."""
_STEPS: Final = 60
"""Steps over which the turns of the players of a game are counted; many cycles fit into it."""


@final
@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a step of training takes.

    Attributes:
        flops: Floating-point operations of matrix products, convolutions and attention for one
            sample, forward and backward, over all networks of the loss and the mean over the turns
            of a game.
        activations: Bytes that the backward pass of one worker's rows waits with, for the player
            that takes most. An estimate: temporary tensors and the allocator come on top.
    """

    flops: int
    activations: int


def workload(assembly: Assembly, learning: Learning) -> Workload:
    """Count a step of training in the middle of a run, on the shapes alone.

    The coupling, data loading and the optimizer are left out.

    Args:
        assembly: The things of the experiment.
        learning: Its state, of tensors without memory; afterwards its networks pretend to lie on
            the CPU, and only this function can use them.

    Returns:
        The counts, those of a few rows scaled up.

    Raises:
        RuntimeError: If the loss asks for values, which such tensors do not have.
    """
    training, workers = assembly.experiment.training, assembly.experiment.workers
    held = training.batch_size // workers.num_workers // training.accumulate
    rows = min(_ROWS, training.batch_size // training.shards)
    flops, activations = 0.0, 0
    turns = _turns(assembly, learning)
    # On the device "meta" itself there is no autocast, not even one that is switched off.
    pretence = FakeTensorMode(allow_non_fake_inputs=True)
    with pretence:
        for net in _nets(learning):
            net.to_empty(device="cpu")
    for player, share in turns.items():
        counted, kept = _pass(assembly, learning, player, pretence, rows=rows)
        flops += share * counted / rows
        activations = max(activations, kept * held // rows)
    return Workload(flops=round(flops), activations=activations)


def evaluation_flops(assembly: Assembly, net: FlowMap) -> int:
    """Count one evaluation of a network for one sample.

    Args:
        assembly: The things of the experiment whose data it is asked for.
        net: The network, of tensors without memory; only this function can use it afterwards.

    Returns:
        Floating-point operations, as those of a workload.
    """
    pretence = FakeTensorMode(allow_non_fake_inputs=True)
    with pretence, torch.no_grad(), FlopCounterMode(display=False) as counter:
        batch = _batch(assembly, rows=_ROWS)
        time = torch.zeros(_ROWS, dtype=batch.x1.dtype)
        net.to_empty(device="cpu").eval().velocity(batch.x1, time, batch.condition)
    return counter.get_total_flops() // _ROWS


def _turns(assembly: Assembly, learning: Learning) -> dict[str, float]:
    """How often each player moves in a step."""
    first = assembly.experiment.training.steps // 2
    seen = Counter[str]()
    for step in range(first, first + _STEPS):
        learning.step = step
        seen.update(learning.players)
    return {player: count / _STEPS for player, count in seen.items()}


def _pass(
    assembly: Assembly, learning: Learning, player: str, pretence: FakeTensorMode, *, rows: int
) -> tuple[int, int]:
    """Operations and saved bytes of one forward and backward pass."""
    training = assembly.experiment.training
    now = Moment(
        step=training.steps // 2,
        total=training.steps,
        rng=Rng.seeded(0),
        batch_size=training.batch_size,
    )
    learning.give_turn(player)
    # The masks' seeds are numbers, and so are drawn before values are out of reach.
    with dropout_masks(now.rng, rows), pretence, FlopCounterMode(display=False) as counter:
        batch = _batch(assembly, rows=rows)
        with _saved(learning) as storages, training.precision.autocast("cpu"):
            loss = _loss(assembly.learner, learning.nets, player, batch, now)
            terms = {name: term.mean() for name, term in loss.terms.items()}
        kept = sum(storages.values())
        # Weights by ratios of gradients would be numbers, which are not to be had.
        combine(terms, FixedBalance(), {}, now, Place()).backward()
    return counter.get_total_flops(), kept


def _batch(assembly: Assembly, *, rows: int) -> Batch:
    """Rows without values, in the shapes of the data."""
    source = assembly.source
    x = torch.empty(rows, *source.shape, dtype=assembly.experiment.training.precision.dtype)
    told = None
    if source.vocabulary:
        told = Condition(tokens=torch.zeros(rows, CAPTION_WORDS, dtype=torch.long))
    elif source.told_classes:
        told = Condition(label=torch.zeros(rows, dtype=torch.long))
    return Batch(
        x1=x,
        x0=torch.empty_like(x),
        index=torch.zeros(rows, dtype=torch.long),
        condition=told,
    )


def _loss(learner: Learner, nets: Nets, player: str, batch: Batch, now: Moment) -> Loss:
    if isinstance(learner, AbstractGame):
        return learner.loss(player, nets, batch, now)
    return learner.loss(nets, batch, now)


def _nets(learning: Learning) -> list[nn.Module]:
    nets = learning.nets
    target = [] if nets.target is None else [nets.target]
    return [nets.online, *target, *nets.companions.values(), *nets.frozen.values()]


@contextmanager
def _saved(learning: Learning) -> Iterator[Mapping[int, int]]:
    """Bytes of each storage that the backward pass will read, but for weights."""
    weights = {p.untyped_storage()._cdata for net in _nets(learning) for p in net.parameters()}
    storages: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address is given twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            storages[storage._cdata] = storage.nbytes()
            alive.append(tensor.detach())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield storages
