"""Earlier work: the points of other sweeps and of registered models that a sweep starts from."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..methods.core.schedule import Schedule
from ..platform.build import build
from ..platform.configuration import compose
from ..platform.registry.entry import ModelEntry
from ..platform.training.assembly import registry_of
from .condition import Scalar
from .findings import Findings
from .objective import COSTS, Objective
from .plan import Plan
from .record import Outcome
from .report import wanted
from .settings import SweepSettings
from .space import Space
from .warm_start import FirstPoint, FirstPoints


def first_points(plan: Plan) -> FirstPoints:
    """The points that a sweep is to try first.

    Args:
        plan: The sweep.

    Returns:
        The point of the registered model, then those of each earlier sweep from best to worst.

    Raises:
        ValueError: If an earlier sweep is unknown, has no key of this one, other objectives or no
            finished trial, if no model fits, or if no point lies in the space.
    """
    asked = plan.settings.warm_start
    if not asked.is_asked:
        return FirstPoints()
    candidates: list[FirstPoint] = []
    left_out: list[str] = []
    if asked.registry:
        model = _best_model(plan)
        origin = f"model {model.reference}"
        try:
            values = values_of(model.record.overrides, plan.settings.space)
            candidates.append(FirstPoint(values=values, origin=origin))
        except ValueError as error:
            left_out.append(f"{origin}: {error}")
    for name in asked.sweeps:
        candidates += _of_sweep(name, plan.settings)
    found = FirstPoints.of(candidates, plan.settings.space, left_out=left_out)
    if not found.points:
        raise ValueError(
            f"sweep.warm_start has no point in sweep.space; left out is {found.left_out[0]}"
        )
    return found


def values_of(overrides: tuple[str, ...], space: Space) -> dict[str, Scalar]:
    """The values that a training has at the swept keys, as far as they are plain ones or schedules.

    Args:
        overrides: What composes the training.
        space: The swept keys.

    Returns:
        Values by key; whether they are a point of the space is another question.

    Raises:
        ValueError: If nothing can be composed, or no values give one of its schedules.
    """
    config = compose("train", overrides)
    given = {key: text for key, _, text in (one.partition("=") for one in overrides)}
    found: dict[str, Scalar] = {}
    for key, one in space.dimensions.items():
        if key in found or not one.is_present(found):
            continue
        written = space.written(key)
        if (drawn := space.schedules.get(written)) is not None:
            found |= drawn.values_of(written, _schedule_at(config, written))
            continue
        value = _at(config, key)
        if isinstance(value, Mapping):  # a group, of which the line of the model has the choice
            value = given.get(key)
        if isinstance(value, Scalar):
            found[key] = value
    return found


def _of_sweep(name: str, settings: SweepSettings) -> Iterator[FirstPoint]:
    findings = Findings.of(name)
    earlier, now = set(findings.settings.space.dimensions), set(settings.space.dimensions)
    if not earlier & now:
        raise ValueError(
            f"sweep.warm_start.sweeps: sweep {name} shares no key with this one; only there are "
            f"{sorted(earlier - now)}, only here {sorted(now - earlier)}"
        )
    if set(findings.objectives.all) != set(settings.objectives.all):
        raise ValueError(
            f"sweep.warm_start.sweeps: sweep {name} improved {wanted(findings.settings)}, "
            f"this one improves {wanted(settings)}"
        )
    most = max((one.samples for one in findings.ranked), default=0)
    whole = [
        one
        for one in findings.ranked
        if one.outcome is Outcome.FINISHED and (one.lineage is None or one.samples == most)
    ]
    if not whole:
        raise ValueError(f"sweep.warm_start.sweeps: sweep {name} has no finished trial")
    for one in whole[: settings.warm_start.best]:
        yield _completed(one.values, settings.space, f"trial {one.number} of sweep {name}")


def _completed(values: Mapping[str, Scalar], space: Space, origin: str) -> FirstPoint:
    """The values that a point has at the keys of a space, with the first value of every other key.

    As far as constraints and conditions allow; where they do not, it is as it was, and left out.
    """
    own = {key: value for key, value in values.items() if key in space.dimensions}
    is_drawn = all(space.dimensions[key].has(value) for key, value in own.items())
    point = space.point(own) if is_drawn else None
    if point is None:
        return FirstPoint(values=own, origin=origin)
    added = [f"{key}={value}" for key, value in point.items() if key not in own]
    said = f", with {', '.join(added)}" if added else ""
    return FirstPoint(values=point, origin=f"{origin}{said}")


def _best_model(plan: Plan) -> ModelEntry:
    experiment, lead = plan.experiment, plan.settings.objectives.lead
    if lead.name in COSTS:
        raise ValueError(
            f"sweep.warm_start.registry needs an objective of the evaluation first, got {lead}"
        )
    data, method = experiment.to_dict()["data"], experiment.method["_target_"]
    fitting = [
        one
        for one in registry_of(experiment).list()
        if isinstance(one, ModelEntry)
        and not one.record.experiment.get("changes")  # such a run has no one point
        and one.record.method["_target_"] == method
        and one.record.experiment.get("data") == data
        and _metric(lead) in one.metrics
    ]
    if not fitting:
        raise ValueError(
            f"sweep.warm_start.registry: no registered model has {lead} of method "
            f"{plan.assembly.name} on these data"
        )
    return min(fitting, key=lambda one: lead.sign * one.metrics[_metric(lead)])


def _metric(objective: Objective) -> str:
    """What a record calls an objective."""
    return objective.name if objective.nfe is None else f"{objective.name}/nfe_{objective.nfe}"


def _schedule_at(config: Mapping[str, Any], key: str) -> Schedule:
    node = _at(config, key)
    if not isinstance(node, Mapping) or not node:
        raise ValueError(f"its line writes no schedule at {key}")
    return build(node, Schedule)


def _at(config: Mapping[str, Any], key: str) -> object:
    """What a configuration has at a key; an empty mapping where it has none."""
    node: object = config
    for part in key.split("."):
        match node:
            case Mapping():
                node = node.get(part, {})
            case list() if part.isdecimal() and int(part) < len(node):
                node = node[int(part)]
            case _:
                node = {}
    return node
