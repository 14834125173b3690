"""The choice of a derivative: `auto` becomes the way that measures best, once and before a run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, final

from ...methods.core.calculus import FastestDerivative, ForwardMode
from ..atomic import write_json
from ..experiment import Experiment
from .assembly import Assembly
from .derivative_costs import DerivativeCost, measure, recommend
from .place import place_of

_AUTO: Final = f"onestep.methods.core.calculus.{FastestDerivative.__name__}"
_NOTE: Final = "derivative.json"
_KEY: Final = "method.derivative"
_GROUP: Final = "derivative@method.derivative"


@final
@dataclass(frozen=True, kw_only=True)
class DerivativeChoice:
    """The derivative that stands for `auto` in one run.

    A run is trained with what was chosen when it was launched first: the choice is kept in the
    folder of the run, and its configuration and overrides name it.

    Attributes:
        node: Configuration node of the derivative.
        costs: What was measured.
    """

    node: Mapping[str, Any]
    costs: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, assembly: Assembly, folder: Path) -> Self:
        """The choice that a run has made before, or what measures best on the device that trains.

        Args:
            assembly: The things of an experiment whose derivative is `auto`.
            folder: Folder of the run.

        Returns:
            The choice.

        Raises:
            ValueError: If this process cannot measure on the device that trains.
        """
        note = folder / _NOTE
        if note.exists():
            kept = json.loads(note.read_text())
            return cls(node=kept["node"], costs=tuple(kept["costs"]))
        experiment, place = assembly.experiment, place_of(assembly.experiment)
        gpus = experiment.workers.gpus_per_worker
        if gpus and place.device.type != "cuda":
            raise ValueError(
                "derivative auto measures where the run is launched, which has no GPU, got "
                f"workers.gpus_per_worker={gpus:g}: name one by {_GROUP}=..., as onestep doctor "
                "recommends on a worker's machine"
            )
        costs = measure(
            assembly.net().to(place.device),
            assembly.source.shape,
            assembly.source.told_classes,
            precision=experiment.training.precision,
        )
        return cls(node=recommend(costs).node, costs=tuple(_plain(cost) for cost in costs))

    def __str__(self) -> str:
        fields = (f"{k} {v:g}" for k, v in self.node.items() if k != "_target_")
        return " ".join([str(self.node["_target_"]).rsplit(".", 1)[1], *fields])

    def keep(self, folder: Path) -> None:
        """Write the choice where a resumed run finds it.

        Args:
            folder: Folder of the run.
        """
        write_json(folder / _NOTE, asdict(self))

    def applied(self, experiment: Experiment) -> Experiment:
        """The experiment that names the derivative, in its method and in its overrides.

        Args:
            experiment: One whose derivative is `auto`.

        Returns:
            The experiment to train and to record.
        """
        method = {**experiment.method, "derivative": dict(self.node)}
        overrides = experiment.overrides
        return replace(
            experiment,
            method=method,
            overrides=pinned(overrides, self.node) if overrides else overrides,
        )


def is_auto(experiment: Experiment) -> bool:
    """Whether the derivative of an experiment is still to be chosen."""
    node = experiment.method.get("derivative")
    return isinstance(node, Mapping) and node.get("_target_") == _AUTO


def with_forward_mode(experiment: Experiment) -> Experiment:
    """The experiment with forward mode in place of `auto`, or as it is."""
    node = {"_target_": f"{ForwardMode.__module__}.{ForwardMode.__name__}"}
    method = {**experiment.method, "derivative": node}
    return replace(experiment, method=method) if is_auto(experiment) else experiment


def require_chosen(experiment: Experiment) -> None:
    """Refuse an experiment whose derivative is still to be chosen.

    Args:
        experiment: What is to be compared and repeated.

    Raises:
        ValueError: If its derivative is `auto`.
    """
    if is_auto(experiment):
        raise ValueError(
            "trials are compared and repeated, so each names its derivative: got auto, use "
            f"{_GROUP}=... as onestep doctor recommends"
        )


def naming(node: Mapping[str, Any]) -> tuple[str, str]:
    """Overrides that name a derivative, whatever stood there before.

    Args:
        node: Its configuration node.
    """
    fields = ",".join(f"{key}:{value}" for key, value in node.items())
    return f"~{_KEY}", f"+{_KEY}={{{fields}}}"


def pinned(overrides: Sequence[str], node: Mapping[str, Any]) -> tuple[str, ...]:
    """Overrides that name a derivative in place of all they said about it.

    Args:
        overrides: What composed an experiment.
        node: Configuration node of the derivative.
    """
    return (*(line for line in overrides if not _is_about_it(line)), *naming(node))


def _is_about_it(override: str) -> bool:
    key = override.partition("=")[0].lstrip("+~")
    return key in (_KEY, _GROUP) or key.startswith(f"{_KEY}.")


def _plain(cost: DerivativeCost) -> dict[str, Any]:
    """As JSON has it, which knows no infinity."""
    values = {"name": cost.name, "node": dict(cost.node)}
    numbers = {"step": cost.step, "memory": cost.memory, "error": cost.error}
    return values | ({"refusal": cost.refusal} if cost.refusal else numbers)
