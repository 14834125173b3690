"""The footprint: bytes that a worker holds through a run, counted from the recipe alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import final

import torch
from torch import Tensor, nn

from ...methods.core.flow_map import Domain, FlowMap
from ...methods.core.record import Batch, Moment
from ..experiment import Experiment
from ..registry.errors import RegistryError
from ..registry.model import build_flow_map
from ..registry.record import ModelRecord
from .assembly import Assembly, assemble, registry_of
from .feed import AbstractFeed
from .learning import Learning
from .parent import require_record, require_same_data
from .place import Place
from .worker import learning_on

META = torch.device("meta")
"""Where tensors have shapes and no memory."""


def held(learning: Learning) -> dict[str, int]:
    """Bytes of the tensors of a run, by what they are there for.

    Activations and what a step needs for a moment are not among them, nor is what a coupling keeps
    of each datum.

    Args:
        learning: The state of the run; gradients and what the optimizers keep count once they
            are there.

    Returns:
        Bytes: ``weights`` of the online network, ``companions``, ``gradients`` of both,
        ``optimizer``, moving ``averages``, ``target`` and ``frozen`` networks.
    """
    nets = learning.nets
    trained = [nets.online, *nets.companions.values()]
    averages = [*learning.averages.nets]
    if learning.power_averages is not None:
        averages += learning.power_averages.nets
    states = (
        tensor
        for optimizer in learning.optimizers.values()
        for state in optimizer.state.values()
        for tensor in state.values()
        if isinstance(tensor, Tensor)
    )
    return {
        "weights": _bytes_of(nets.online),
        "companions": _bytes_of(*nets.companions.values()),
        "gradients": _bytes(p.grad for net in trained for p in net.parameters()),
        "optimizer": _bytes(states),
        "averages": _bytes_of(*averages),
        "target": _bytes_of(*([] if nets.target is None else [nets.target])),
        "frozen": _bytes_of(*nets.frozen.values()),
    }


def assembly_of_shapes(experiment: Experiment) -> Assembly:
    """The things of an experiment, whose network is made without memory to be checked.

    Args:
        experiment: What to build.

    Returns:
        The things.
    """
    with META:
        return assemble(without_fusion(experiment))


def without_fusion(experiment: Experiment) -> Experiment:
    """The experiment with a plain optimizer: a fused one refuses tensors without memory.

    It keeps the same tensors.
    """
    node = {key: value for key, value in experiment.optimizer.items() if key != "fused"}
    return replace(experiment, optimizer=node)


def learning_of_shapes(
    assembly: Assembly, frozen: Mapping[str, FlowMap], *, net: FlowMap | None = None
) -> Learning:
    """The state of a run after its first step, of tensors that have shapes and no memory.

    Args:
        assembly: The things of the experiment.
        frozen: Its frozen networks, without memory.
        net: Its network without memory, or None to make it so.

    Returns:
        The state.
    """
    training = replace(assembly.experiment.training, compile=False)
    with META:
        feed, place = _NoFeed(assembly.source.shape), Place(device=META)
        net = assembly.net() if net is None else net
        learning = learning_on(assembly, feed, place, net=net, frozen=frozen, training=training)
    for each in learning.optimizers.values():
        for parameter in (p for group in each.param_groups for p in group["params"]):
            parameter.grad = torch.empty_like(parameter)
        each.step()
    return learning


def frozen_of_shapes(
    assembly: Assembly, stages: Mapping[str, Experiment]
) -> tuple[dict[str, FlowMap], tuple[str, ...]]:
    """The frozen networks of a run, without memory.

    Args:
        assembly: The things of the experiment.
        stages: Experiments of earlier stages, by name, whose models do not exist yet.

    Returns:
        The networks by role, and the roles whose model is not in the registry: they are taken to
        be as large as the network that is trained, and to know all jumps.

    Raises:
        ValueError: If a registered model does not fit.
    """
    nets, assumed = dict[str, FlowMap](), list[str]()
    for role, reading in assembly.learner.needs.frozen.items():
        reference = assembly.experiment.parents.frozen[role]
        record = None if reference in stages else _record(assembly, reference)
        if record is not None:
            student, source = assembly.learner.domain, assembly.source
            require_record(role, reference, record, reading=reading, student=student, source=source)
        elif reference not in stages:
            assumed.append(role)
        nets[role] = _net(assembly, record, stages.get(reference))
    return nets, tuple(assumed)


def pair_teacher_of_shapes(assembly: Assembly, stages: Mapping[str, Experiment]) -> FlowMap | None:
    """The network that makes the pairs of a run, without memory; None if none are made.

    Args:
        assembly: The things of the experiment.
        stages: Experiments of earlier stages, by name, whose models do not exist yet.

    Returns:
        The network; one that is not in the registry is taken to be as large as the one that is
        trained.

    Raises:
        ValueError: If a registered model was trained on data of another kind.
    """
    parents, source = assembly.experiment.parents, assembly.source
    if assembly.learner.needs.pairs is None or parents.pairs or not parents.teacher:
        return None
    record = None if parents.teacher in stages else _record(assembly, parents.teacher)
    if record is not None:
        require_same_data(
            parents.teacher,
            {"shape": record.shape, "classes": record.classes},
            {"shape": source.shape, "classes": source.told_classes},
        )
    return _net(assembly, record, stages.get(parents.teacher))


def _record(assembly: Assembly, reference: str) -> ModelRecord | None:
    try:
        return registry_of(assembly.experiment).entry(reference).record
    except RegistryError:
        return None


def _net(assembly: Assembly, record: ModelRecord | None, stage: Experiment | None) -> FlowMap:
    """The network of a registered model, of a stage, or one that stands for either."""
    with META:
        if stage is not None:
            return assembly_of_shapes(stage).net()
        if record is not None:
            return build_flow_map(record).to(assembly.experiment.training.precision.dtype)
        net = assembly.net()
    net.domain = Domain(path=assembly.learner.domain.path)
    return net


def _bytes(tensors: Iterable[Tensor | None]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def _bytes_of(*nets: nn.Module) -> int:
    return _bytes(chain.from_iterable(chain(net.parameters(), net.buffers()) for net in nets))


@final
class _NoFeed(AbstractFeed):
    """A feed that is never asked for rows.

    Args:
        shape: Shape of one example.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    @property
    def num_data(self) -> int:
        """One, so that a coupling keeps next to nothing."""
        return 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self._shape

    def rows(self, now: Moment, shards: Sequence[int], *, of: int) -> Batch:
        """Nothing."""
        raise AssertionError("shapes alone are never trained on")
