"""Parents: whether a model is what a run asks of it, before anything is trained on it."""

from dataclasses import replace
from typing import Final

from ...methods.core.flow_map import Domain
from ...methods.core.method import AbstractLearner, View
from ..build import build
from ..experiment import Experiment
from ..registry.record import ModelRecord
from ..registry.store import Registry
from ..registry.trust import check_trusted

ROLES: Final = ("initial", "teacher", "weak")
"""Parents that are registered models."""


def with_versions(experiment: Experiment, registry: Registry) -> Experiment:
    """The experiment, and its overrides, with parents as versions, which aliases do not move.

    Args:
        experiment: What names its parents.
        registry: Where they are registered.

    Returns:
        The same on the versions that its parents are now.

    Raises:
        ReferenceNotFound: If a parent is not registered.
    """
    parents = experiment.parents
    pinned = {
        role: str(registry.entry(reference).reference)
        for role in ROLES
        if (reference := getattr(parents, role))
    }
    overrides = experiment.overrides
    if overrides:
        moved = {r: to for r, to in pinned.items() if to != getattr(parents, r)}
        keys = {f"parents.{role}" for role in moved}
        kept = (line for line in overrides if line.partition("=")[0].lstrip("+~") not in keys)
        overrides = (*kept, *(f"parents.{role}={version}" for role, version in moved.items()))
    return replace(experiment, parents=replace(parents, **pinned), overrides=overrides)


def require_fit(role: str, reference: str, parent: Domain, *, view: View, student: Domain) -> None:
    """Refuse a frozen model of another path than its student's, or one that has no velocity.

    Args:
        role: What the model is to the method.
        reference: What it is called.
        parent: Its domain.
        view: How the method looks at it.
        student: Domain of the map that the method learns.

    Raises:
        ValueError: If it does not fit.
    """
    if view is not View.JUMP and not parent.has_velocity:
        raise ValueError(
            f"the method reads the {role} as a velocity, got {reference} with domain {parent.kind}"
        )
    if parent.path != student.path:
        raise ValueError(
            f"the method needs a {role} of the path {student.path}, "
            f"got {reference} of the path {parent.path}"
        )


def require_lost_labels(asked: str, reference: str, learner: AbstractLearner) -> None:
    """Refuse guidance by a model that was never trained without its condition.

    Args:
        asked: The setting that asks for guidance.
        reference: What the model is called.
        learner: The method that trains it.

    Raises:
        ValueError: If the method never drops a label.
    """
    if learner.label_dropout.probability == 0.0:
        raise ValueError(
            f"{asked} reads {reference} without its condition, for which its "
            "method.label_dropout.probability must be above 0, got 0"
        )


def require_lost_labels_of(asked: str, reference: str, record: ModelRecord) -> None:
    """The same of a registered model. What weights from elsewhere were trained on nobody knows.

    Args:
        asked: The setting that asks for guidance.
        reference: What the model is called.
        record: Its record.

    Raises:
        ValueError: If the method never drops a label.
    """
    if record.origin:
        return
    check_trusted(record.method, what=f"the method of {reference}")
    require_lost_labels(asked, reference, build(record.method, AbstractLearner))
