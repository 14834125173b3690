"""Assembly: an experiment becomes its things."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, final

import torch

from ...methods.core.flow_map import FlowMap
from ...methods.core.game import AbstractGame
from ...methods.core.method import AbstractLearner, AbstractMethod
from ...methods.core.rng import Purpose, mix
from ...methods.core.schedule import Schedule
from ...methods.nets.condition_embedding import scale_weights
from ..build import build
from ..data.source import AbstractSource
from ..experiment import Experiment, module_of
from ..home import Home
from ..registry.model import drawn_scales, fill, flow_map_of
from .fit import require_fit
from .parent import require_record, require_scale

if TYPE_CHECKING:  # the store imports MLflow, which takes seconds, and most trials need none
    from ..registry.store import LoadedModel, Registry

Learner = AbstractMethod | AbstractGame
Models = Mapping[str, "LoadedModel"]
"""Registered models that have been loaded, by reference."""


@final
@dataclass(frozen=True, kw_only=True)
class Assembly:
    """The things of an experiment that need no file to be read.

    Attributes:
        experiment: What they were built from.
        source: Where the data come from.
        learner: The method or game.
        learning_rate: Multiplier of the optimizer's learning rate.
        models: Registered models that have been loaded, by reference; others are loaded when used.
    """

    experiment: Experiment
    source: AbstractSource
    learner: Learner
    learning_rate: Schedule
    models: Models = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The method's name, as its file and its configuration have it."""
        return module_of(self.experiment.method)

    def net(self) -> FlowMap:
        """The network with its initial weights, the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(Purpose.WEIGHTS, self.experiment.seed))
            net = build(
                self.experiment.net,
                FlowMap,
                shape=self.source.shape,
                classes=self.source.told_classes,
                domain=self.learner.domain,
            )
        return net.to(self.experiment.training.precision.dtype)

    def initial_net(self) -> FlowMap:
        """The network with the weights that the run starts from."""
        net = self.net()
        reference = self.experiment.parents.initial
        if reference:
            model = self._model(reference)
            fill(net, model.weights, model=str(model.reference), new=scale_weights(net))
        return net

    def frozen(self) -> dict[str, FlowMap]:
        """The frozen networks of the method by role."""
        references, nets = self.experiment.parents.frozen, dict[str, FlowMap]()
        for role, reading in self.learner.needs.frozen.items():
            reference = references[role]
            model = self._model(reference)
            net, record = flow_map_of(model), model.record
            student, source = self.learner.domain, self.source
            require_record(role, reference, record, reading=reading, student=student, source=source)
            drawn = drawn_scales(record) if role in self.learner.needs.told else None
            require_scale(role, reference, net, self.learner.needs, drawn=drawn)
            nets[role] = net.to(self.experiment.training.precision.dtype)
        return nets

    def load_models(self) -> dict[str, "LoadedModel"]:
        """The registered models that the run begins with, by reference."""
        parents = self.experiment.parents
        used = [parents.initial, *(parents.frozen[role] for role in self.learner.needs.frozen)]
        return {reference: self._model(reference) for reference in used if reference}

    def _model(self, reference: str) -> "LoadedModel":
        known = self.models.get(reference)
        return registry_of(self.experiment).load(reference) if known is None else known

    def at(self, step: int) -> "Assembly":
        """The things with which a step is taken, where some become others on the way.

        Args:
            step: Steps taken before it.
        """
        if not self.experiment.changes:
            return self
        return replace(parts_of(self.experiment.at(step)), models=self.models)

    def recipe(self, data_digest: str, *, after: int | None = None) -> str:
        """Digest of what a checkpoint has to fit.

        Args:
            data_digest: Digest of the data.
            after: Steps of the checkpoint, by which changes that come later mean nothing yet; None
                for the whole run.

        Returns:
            sha256 of network, method, optimizer, data and everything else that decides the
            trajectory; not of the number of workers, which does not.
        """
        e, training = self.experiment, self.experiment.training
        guardian = e.guardian
        # The digest stands for the pairs, wherever they lie.
        parents = {role: it for role, it in e.to_dict()["parents"].items() if role != "pairs"}
        decisive = {
            "seed": e.seed,
            "net": e.net,
            "method": e.method,
            "optimizer": e.optimizer,
            "learning_rate": e.learning_rate,
            "parents": parents,
            # Workers do not read a stream to its end before they train; `launch` knows its digest.
            "data": ["" if training.stream else data_digest, e.data, training.stream],
            "training": [
                training.samples,
                training.batch_size,
                training.shards,
                str(training.precision),
                training.clip_norm,
                training.ema_half_lives,
                training.ema_ramp,
                training.ema_snapshots > 0,
            ],
        }
        if guardian.retries:  # one that only looks on, or stops, decides nothing
            decisive["guardian"] = [
                guardian.every,
                guardian.retries,
                guardian.lr_factor,
                training.checkpoint_every,
            ]
        turns = [
            [step, *one.nodes.values()]
            for step, one in e.turns.items()
            if after is None or step < after
        ]
        if turns:
            decisive["turns"] = turns
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def parts_of(experiment: Experiment) -> Assembly:
    """Build the things of an experiment, whether or not they fit.

    Args:
        experiment: What to build.

    Returns:
        The things.

    Raises:
        ValueError: If a part is refused by its class.
    """
    learner = build(experiment.method, AbstractLearner)
    if not isinstance(learner, AbstractMethod | AbstractGame):
        raise ValueError(f"{experiment.method['_target_']} is neither a method nor a game")
    return Assembly(
        experiment=experiment,
        source=build(experiment.data, AbstractSource),
        learner=learner,
        learning_rate=build(experiment.learning_rate, Schedule),
    )


def assemble(experiment: Experiment) -> Assembly:
    """Build the things of an experiment and check that they fit.

    Args:
        experiment: What to build.

    Returns:
        The things.

    Raises:
        ValueError: If a part is refused by its class or does not fit the others.
    """
    assembly = parts_of(experiment)
    require_fit(assembly)
    return assembly


def home_of(experiment: Experiment) -> Home:
    """The home of an experiment: that of this process, with the store that it names, if any."""
    return Home.here(tracking_uri=experiment.storage.tracking_uri)


def registry_of(experiment: Experiment) -> "Registry":
    """The registry that an experiment reads from and writes to."""
    from ..registry.store import Registry

    return Registry.at(home_of(experiment))
