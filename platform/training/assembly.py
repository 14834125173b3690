"""Assembly: an experiment becomes its things, and every mistake in it is found before a step."""

import hashlib
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Final, final

import torch

from ...methods.core.condition import UNGUIDED
from ...methods.core.flow_map import DomainKind, FlowMap
from ...methods.core.game import AbstractGame
from ...methods.core.guided_teacher import Unguided
from ...methods.core.method import AbstractLearner, AbstractMethod
from ...methods.core.rng import Purpose, mix
from ...methods.core.sampler_choice import sampler_for
from ...methods.core.schedule import Schedule, require_range
from ...methods.nets.condition_embedding import conditions_of, scale_weights, vocabulary_of
from ..build import build, class_at
from ..data.source import AbstractSource
from ..data.stream import STREAMABLE
from ..evaluation.sampling import allowed_nfes
from ..experiment import Evaluation, Experiment, Workers, module_of
from ..home import Home
from ..ray_instance import names_cluster
from ..registry.model import drawn_scales, fill, flow_map_of
from ..registry.reference import check_name
from .parent import require_record, require_scale

if TYPE_CHECKING:  # the store imports MLflow, which takes seconds, and most trials need none
    from ..registry.store import LoadedModel, Registry

Learner = AbstractMethod | AbstractGame
Models = Mapping[str, "LoadedModel"]
"""Registered models that have been loaded, by reference."""
_FIELDS: Final = {"guidance": "guided", "tokens": "vocabulary"}
"""By which of its fields a network takes a part of the condition."""


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
    assembly, training, workers = parts_of(experiment), experiment.training, experiment.workers
    learner = assembly.learner
    _check_name(assembly.source)
    require_range("learning_rate", assembly.learning_rate, 0.0, math.inf)
    if training.shards % workers.num_workers:
        raise ValueError(
            f"workers.num_workers must divide training.shards, "
            f"got {workers.num_workers} and {training.shards}"
        )
    mine = training.shards // workers.num_workers
    if learner.balance.parameter is not None and training.accumulate > 1:
        raise ValueError(
            "gradient ratios are those of the whole batch: training.accumulate must be 1, "
            f"got {training.accumulate}"
        )
    if training.stream:
        _check_stream(assembly)
    if mine % training.accumulate:
        raise ValueError(
            f"training.accumulate must divide the {mine} shards of each worker, "
            f"got {training.accumulate}"
        )
    _check_workers(workers)
    net = assembly.net()
    _check_optimizer(assembly, net)
    _check_end(assembly, net)
    _check_conditions(assembly, net)
    _check_parents(assembly)
    _check_nfes(assembly)
    for step in experiment.turns:
        _check_turn(assembly, assembly.at(step), net)
    return assembly


def _check_name(source: AbstractSource) -> None:
    try:
        check_name(source.name)
    except ValueError as error:
        raise ValueError(
            "models take the name of their data, the last part of data.folder or data.path: "
            f"{error}"
        ) from None


def _check_workers(workers: Workers) -> None:
    if not workers.uses_ray:
        for name in ("address", "max_failures"):
            got, default = getattr(workers, name), getattr(Workers(), name)
            if got != default:
                raise ValueError(
                    f"workers.{name} has no effect without Ray Train: set workers.ray=true, or "
                    f"leave it at {default!r}, got {got!r}"
                )
        return
    has_gpu = torch.cuda.is_available() or names_cluster(workers.address)
    if workers.gpus_per_worker and not has_gpu:
        raise ValueError(
            f"workers.gpus_per_worker is {workers.gpus_per_worker:g}, but this machine has no GPU "
            "and neither workers.address nor RAY_ADDRESS names a cluster"
        )


def _check_optimizer(assembly: Assembly, net: FlowMap) -> None:
    node, parameters = assembly.experiment.optimizer, list(net.parameters())
    rate = node.get("lr", 0.0)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate < 0.0:
        raise ValueError(f"optimizer.lr must be a number of at least 0, got {rate!r}")
    given = {key: value for key, value in node.items() if not key.startswith("_")}
    make = build(node, partial)
    try:
        made = make(parameters)
    except TypeError as error:
        allowed = ", ".join(inspect.signature(class_at(str(node["_target_"]))).parameters)
        raise ValueError(
            f"optimizer {node['_target_']} takes numbers for its own settings ({allowed}), "
            f"got {given}: {error}"
        ) from error
    except ValueError as error:
        raise ValueError(f"optimizer refuses its settings, got {given}: {error}") from error
    if not isinstance(made, torch.optim.Optimizer):
        raise ValueError(f"optimizer {node['_target_']} is no torch.optim.Optimizer")


def _check_turn(assembly: Assembly, later: Assembly, net: FlowMap) -> None:
    """Refuse changes after which the state of the run would not fit."""
    require_range("learning_rate", later.learning_rate, 0.0, math.inf)
    ours, theirs = (_held(each.learner, net) for each in (assembly, later))
    for what, held in ours.items():
        if theirs[what] != held:
            raise ValueError(
                f"changes cannot make another {what} in the middle of a run, on which its state "
                f"depends, got method {later.experiment.method}"
            )


def _held(learner: Learner, net: FlowMap) -> dict[str, object]:
    """What the state of a run depends on."""
    needs = learner.needs
    with torch.random.fork_rng(devices=[]):
        companions = {name: make(net) for name, make in needs.companions.items()}
    return {
        "domain": learner.domain,
        "coupling": learner.coupling,
        "target": needs.target is None,
        "choice of frozen models": needs.frozen,
        "choice of pairs": needs.pairs is None,
        "range of scales": needs.scales,
        "companion": {
            name: {key: value.shape for key, value in part.state_dict().items()}
            for name, part in companions.items()
        },
    }


def _check_end(assembly: Assembly, net: FlowMap) -> None:
    if assembly.learner.domain.kind not in (DomainKind.TRIANGLE, DomainKind.GRID):
        return
    for part in net.modules():
        if isinstance(part, FlowMap) and not part.is_told_end:
            raise ValueError(
                f"{type(part).__name__} is not told where a jump ends, on which maps of method "
                f"{assembly.name} depend: it can be a velocity, or a map to the data"
            )


def _check_conditions(assembly: Assembly, net: FlowMap) -> None:
    words, known = len(assembly.source.vocabulary), vocabulary_of(net)
    if words and words != known:
        raise ValueError(
            f"the captions of {assembly.source.name} have {words} words, got a network of {known}: "
            f"take one with attention, such as net=dit_captions, and set net.vocabulary={words}"
        )
    scales = assembly.learner.needs.scales
    told = ({"guidance"} if scales else set()) | ({"tokens"} if words else set())
    if scales and "guidance" not in conditions_of(net):
        raise ValueError(
            f"method {assembly.name} draws guidance scales, which the network has to take as an "
            "input: set +net.guided=true"
        )
    idle = sorted(conditions_of(net) - told)
    if idle:
        raise ValueError(
            f"the network takes {idle[0]} by its field {_FIELDS[idle[0]]}, which method "
            f"{assembly.name} does not supply in training: {_remedy(assembly, idle[0])}"
        )
    scale = assembly.experiment.evaluation.guidance
    low, high = scales or (UNGUIDED, UNGUIDED)
    if not low <= scale <= high:
        raise ValueError(
            f"evaluation.guidance must be one of the scales that method {assembly.name} draws, "
            f"which are {low:g} to {high:g}, got {scale:g}"
            if scales
            else f"evaluation.guidance needs a method that draws guidance scales, got {scale:g} "
            f"with method {assembly.name}, which draws none"
        )


def _remedy(assembly: Assembly, idle: str) -> str:
    """What makes a method supply a part of the condition, or that the network goes without."""
    guidance = assembly.experiment.method.get("guidance")
    scales = guidance if idle == "guidance" and isinstance(guidance, Mapping) else {}
    if "highest" in scales:
        lowest = scales.get("lowest", UNGUIDED)
        return f"set method.guidance.highest above {lowest:g}, or leave the field out"
    if scales.get("_target_") == f"{Unguided.__module__}.{Unguided.__name__}":
        return "set teacher_guidance@method.guidance=labels, or leave the field out"
    return "leave the field out"


def _check_stream(assembly: Assembly) -> None:
    if not isinstance(assembly.source, STREAMABLE):
        allowed = " or ".join(kind.__name__ for kind in STREAMABLE)
        raise ValueError(
            f"training.stream needs data of {allowed}, got {type(assembly.source).__name__}"
        )
    if not assembly.experiment.workers.uses_ray:
        raise ValueError("training.stream needs Ray Train: set workers.ray=true, got false")
    if assembly.experiment.guardian.every:
        raise ValueError(
            "guardian.every needs data in memory, of which the probes keep some: set "
            "training.stream=false, or guardian.every=0"
        )
    learner = assembly.learner
    if learner.needs.pairs or learner.coupling.initial(1, assembly.source.shape):
        raise ValueError(
            f"method {assembly.name} remembers each example, which a stream does not number "
            "beforehand: set training.stream=false"
        )


def _with_its_parents(assembly: Assembly) -> str:
    """A sequence of ours that trains the parents of a method, too, if there is one."""
    name = f"digits_{assembly.name}"
    known = files("onestep.platform.conf").joinpath("stages", f"{name}.yaml").is_file()
    return f" (stages={name} trains all that it needs)" if known else ""


def _check_parents(assembly: Assembly) -> None:
    needs, parents = assembly.learner.needs, assembly.experiment.parents
    given: Mapping[str, str] = parents.frozen
    if needs.pairs and not (parents.pairs or parents.teacher):
        raise ValueError(
            f"method {assembly.name} trains on pairs that a teacher makes: name a registered "
            "model by parents.teacher=..., or a folder of pairs by parents.pairs=..."
            + _with_its_parents(assembly)
        )
    missing = sorted(set(needs.frozen) - set(given))
    if missing:
        raise ValueError(
            f"method {assembly.name} needs a {' and a '.join(missing)}: name a registered model "
            + " and ".join(f"by parents.{role}=..." for role in missing)
            + _with_its_parents(assembly)
        )
    useful = set(needs.frozen) | ({"teacher"} if needs.pairs else set())
    useless = sorted(set(given) - useful)
    if useless:
        raise ValueError(
            f"method {assembly.name} has no use for parents.{useless[0]}, got {given[useless[0]]}"
        )


def _check_nfes(assembly: Assembly) -> None:
    nfes, domain = assembly.experiment.evaluation.nfes, assembly.learner.domain
    refused = [nfe for nfe in nfes if sampler_for(domain, nfe) is None]
    is_default = nfes == Evaluation().nfes
    if not refused or (is_default and len(refused) < len(nfes)):
        return
    raise ValueError(
        f"evaluation.nfes must be numbers at which a map of method {assembly.name} has a sampler, "
        f"which are {allowed_nfes(domain)}, got {', '.join(map(str, refused))}"
    )


def home_of(experiment: Experiment) -> Home:
    """The home of an experiment: that of this process, with the store that it names, if any."""
    return Home.here(tracking_uri=experiment.storage.tracking_uri)


def registry_of(experiment: Experiment) -> "Registry":
    """The registry that an experiment reads from and writes to."""
    from ..registry.store import Registry

    return Registry.at(home_of(experiment))
