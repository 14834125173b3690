"""Every method of the catalogue as a run of a few steps, configured as its file has it."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, final

import torch

from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.method import AbstractLearner
from onestep.platform.build import build
from onestep.platform.configuration import compose
from onestep.platform.data.pairs import read_pairs
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import Assembly, assemble
from onestep.platform.training.learning import Learning
from onestep.platform.training.place import Place
from onestep.platform.training.worker import feed_on
from onestep.tests.platform.training.recipe import CRITIC, HALVES, POINTS, recipe

STEPS: Final = 8
HALF: Final = 4
_ROOT: Final = Path(__file__).resolve().parents[3]
CATALOGUE: Final = tuple(
    sorted(path.stem for path in (_ROOT / "methods" / "conf" / "method").glob("*.yaml"))
)
_CORE: Final = "onestep.methods.core"
_KEPT: Final = {"_target_": f"{_CORE}.guidance.LabelDropout", "probability": 0.25}
_SLOW_COPY: Final = {
    "_target_": f"{_CORE}.method.Ema",
    "decay": {"_target_": f"{_CORE}.schedule.Constant", "value": 0.9},
}


@final
@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method of the catalogue with other values, for a need that its file leaves out.

    Attributes:
        method: The method.
        values: The values.
        labelled: Whether the data have labels.
        guided: Whether the network takes a guidance scale.
    """

    method: str
    values: Mapping[str, Any] = field(default_factory=dict)
    labelled: bool = False
    guided: bool = False


VARIANTS: Final[Mapping[str, Variant]] = {
    "dmd2 with a critic": Variant(method="dmd2", values={"adversary": CRITIC, "fake_steps": 2}),
    "consistency_trajectory with a critic": Variant(
        method="consistency_trajectory", values={"adversary": CRITIC}
    ),
    "continuous_consistency by a teacher": Variant(
        method="continuous_consistency",
        values={"source": {"_target_": f"{_CORE}.teacher.TeacherVelocity"}},
    ),
    "self_distillation by a slow copy": Variant(
        method="self_distillation", values={"target": _SLOW_COPY}
    ),
    "neural_flow on pairs": Variant(
        method="neural_flow",
        values={
            "coupling": {"_target_": f"{_CORE}.coupling.StoredPairs"},
            "pairs": {
                "_target_": f"{_CORE}.method.PairMix",
                "generated": {"_target_": f"{_CORE}.schedule.Constant", "value": 0.5},
            },
        },
    ),
    "mean_flow with guidance": Variant(
        method="mean_flow",
        values={
            "label_dropout": _KEPT,
            "guidance": {"_target_": f"{_CORE}.guidance.Guidance", "omega": 1.0, "kappa": 0.5},
        },
        labelled=True,
    ),
    "improved_mean_flow with guidance": Variant(
        method="improved_mean_flow",
        values={
            "label_dropout": _KEPT,
            "guidance": {"_target_": f"{_CORE}.guidance.GuidanceScales", "highest": 4.0},
        },
        labelled=True,
        guided=True,
    ),
}
NAMES: Final = (*CATALOGUE, *VARIANTS)


@cache
def _method(name: str) -> dict[str, Any]:
    node: dict[str, Any] = compose("train", [f"method={name}"])["method"]
    return node


def experiment(name: str, folder: Path, *, parts: int = 1) -> dict[str, Any]:
    """A method's run as plain values; the frozen networks that it names do not exist.

    Args:
        name: One of ``NAMES``.
        folder: Where a set of pairs lies.
        parts: In how many parts a batch is taken.
    """
    variant = VARIANTS.get(name, Variant(method=name))
    node = _method(variant.method) | dict(variant.values)
    data = HALVES if variant.labelled else POINTS
    values = recipe(node, steps=STEPS, data=data, training={"accumulate": parts})
    if variant.guided:
        values["net"]["guided"] = True
    needs = build(node, AbstractLearner).needs  # type: ignore[type-abstract]
    values["parents"] = dict.fromkeys(needs.frozen, "none/1")
    if needs.pairs is not None:
        values["parents"]["pairs"] = str(folder)
    return values


def learning(values: Mapping[str, Any], place: Place | None = None) -> Learning:
    """An experiment before its first step; frozen networks have random weights.

    Args:
        values: The experiment.
        place: Where the worker stands; None for the only one.
    """
    assembly = assemble(Experiment.from_dict(values))
    learner, pairs = assembly.learner, assembly.experiment.parents.pairs
    data = assembly.source.load() if pairs is None else read_pairs(Path(pairs))
    return Learning(
        learner,
        assembly.net(),
        {role: _frozen(assembly, seed) for seed, role in enumerate(sorted(learner.needs.frozen))},
        optimizer=build(assembly.experiment.optimizer, object),  # type: ignore[arg-type]
        learning_rate=assembly.learning_rate,
        feed=feed_on(assembly, data),
        training=assembly.experiment.training,
        seed=assembly.experiment.seed,
        place=place or Place(),
    )


def _frozen(assembly: Assembly, seed: int) -> FlowMap:
    """A network that has forgotten that its last layer began at zero."""
    node, source = assembly.experiment.net, assembly.source
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build(node, FlowMap, shape=source.shape, classes=source.classes, domain=Domain())
        for weight in net.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    return net.double()


def walk(learning: Learning, steps: int) -> list[float]:
    """Take steps, and give the loss of each: the sum over all who moved."""
    losses = []
    for _ in range(steps):
        players = learning.players
        logs = learning.advance()
        losses.append(sum(logs[f"loss/{player}"].item() for player in players))
    return losses


def saved(learning: Learning) -> bytes:
    """The state as a checkpoint has it."""
    kept = io.BytesIO()
    torch.save(learning.state(), kept)
    return kept.getvalue()


def opened(state: bytes) -> dict[str, Any]:
    """A saved state."""
    found: dict[str, Any] = torch.load(io.BytesIO(state), weights_only=True)
    return found


def walk_many(place: Place, experiments: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """The last state of several experiments; a task for several workers."""
    last = {}
    for name, values in experiments.items():
        mine = learning(values, place)
        walk(mine, STEPS)
        last[name] = saved(mine)
    return last
