"""Whether the parts of an experiment fit each other: every mistake is told before a step."""

import inspect
import math
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import torch

from ...methods.core.condition import UNGUIDED
from ...methods.core.flow_map import DomainKind, FlowMap
from ...methods.core.guided_teacher import Unguided
from ...methods.core.sampler_choice import sampler_for
from ...methods.core.schedule import require_range
from ...methods.nets.condition_embedding import conditions_of, vocabulary_of
from ..build import build, class_at
from ..data.source import AbstractSource
from ..data.stream import STREAMABLE
from ..evaluation.sampling import allowed_nfes
from ..experiment import Evaluation, Workers
from ..ray_instance import names_cluster
from ..registry.reference import check_name

if TYPE_CHECKING:
    from .assembly import Assembly, Learner

_FIELDS: Final = {"guidance": "guided", "tokens": "vocabulary"}
"""By which of its fields a network takes a part of the condition."""


def require_fit(assembly: "Assembly") -> None:
    """Refuse an experiment whose parts do not fit.

    Args:
        assembly: Its parts.

    Raises:
        ValueError: If they do not fit.
    """
    experiment, learner = assembly.experiment, assembly.learner
    training, workers = experiment.training, experiment.workers
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


def _check_optimizer(assembly: "Assembly", net: FlowMap) -> None:
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


def _check_turn(assembly: "Assembly", later: "Assembly", net: FlowMap) -> None:
    """Refuse changes after which the state of the run would not fit."""
    require_range("learning_rate", later.learning_rate, 0.0, math.inf)
    ours, theirs = (_held(each.learner, net) for each in (assembly, later))
    for what, held in ours.items():
        if theirs[what] != held:
            raise ValueError(
                f"changes cannot make another {what} in the middle of a run, on which its state "
                f"depends, got method {later.experiment.method}"
            )


def _held(learner: "Learner", net: FlowMap) -> dict[str, object]:
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


def _check_end(assembly: "Assembly", net: FlowMap) -> None:
    if assembly.learner.domain.kind not in (DomainKind.TRIANGLE, DomainKind.GRID):
        return
    for part in net.modules():
        if isinstance(part, FlowMap) and not part.is_told_end:
            raise ValueError(
                f"{type(part).__name__} is not told where a jump ends, on which maps of method "
                f"{assembly.name} depend: it can be a velocity, or a map to the data"
            )


def _check_conditions(assembly: "Assembly", net: FlowMap) -> None:
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


def _remedy(assembly: "Assembly", idle: str) -> str:
    """What makes a method supply a part of the condition, or that the network goes without."""
    guidance = assembly.experiment.method.get("guidance")
    scales = guidance if idle == "guidance" and isinstance(guidance, Mapping) else {}
    if "highest" in scales:
        lowest = scales.get("lowest", UNGUIDED)
        return f"set method.guidance.highest above {lowest:g}, or leave the field out"
    if scales.get("_target_") == f"{Unguided.__module__}.{Unguided.__name__}":
        return "set teacher_guidance@method.guidance=labels, or leave the field out"
    return "leave the field out"


def _check_stream(assembly: "Assembly") -> None:
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


def _with_its_parents(assembly: "Assembly") -> str:
    """A sequence of ours that trains the parents of a method, too, if there is one."""
    shipped = files("onestep.platform.conf").joinpath("stages")
    for data in (assembly.source.name, "digits"):
        name = f"{data}_{assembly.name}"
        if shipped.joinpath(f"{name}.yaml").is_file():
            return f" (stages={name} trains all that it needs)"
    return ""


def _check_parents(assembly: "Assembly") -> None:
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


def _check_nfes(assembly: "Assembly") -> None:
    nfes, domain = assembly.experiment.evaluation.nfes, assembly.learner.domain
    refused = [nfe for nfe in nfes if sampler_for(domain, nfe) is None]
    is_default = nfes == Evaluation().nfes
    if not refused or (is_default and len(refused) < len(nfes)):
        return
    raise ValueError(
        f"evaluation.nfes must be numbers at which a map of method {assembly.name} has a sampler, "
        f"which are {allowed_nfes(domain)}, got {', '.join(map(str, refused))}"
    )
