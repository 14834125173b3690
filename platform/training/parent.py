"""Parents: whether a model is what a run asks of it, before anything is trained on it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ...methods.core.flow_map import Domain, FlowMap
from ...methods.core.method import AbstractLearner, Needs, Reading, View
from ...methods.core.teacher import require_reading
from ...methods.nets.condition_embedding import conditions_of
from ..build import build
from ..data.source import AbstractSource
from ..experiment import Experiment
from ..registry.record import ModelRecord
from ..registry.trust import check_trusted

if TYPE_CHECKING:  # the store imports MLflow, which takes seconds, and most trials need none
    from ..registry.store import Registry

ROLES: Final = ("initial", "teacher", "weak")
"""Parents that are registered models."""


def with_versions(experiment: Experiment, registry: "Registry") -> Experiment:
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


def require_record(
    role: str,
    reference: str,
    record: ModelRecord,
    *,
    reading: Reading,
    student: Domain,
    source: AbstractSource,
) -> None:
    """Refuse a registered model that a method cannot learn from.

    Args:
        role: What the model is to the method.
        reference: What it is called.
        record: Its record.
        reading: How and where the method asks it.
        student: Domain of the map that the method learns.
        source: The data that it is learned on.

    Raises:
        ValueError: If it does not fit.
    """
    require_data(role, shape=record.shape, classes=record.classes, source=source)
    domain = Domain.from_dict(dict(record.domain))
    require_fit(role, reference, domain, reading=reading, student=student)
    if reading.view is View.GUIDED:
        require_lost_labels_of("guidance", reference, record)


def require_data(
    role: str, *, shape: tuple[int, ...], classes: int, source: AbstractSource
) -> None:
    """Refuse a frozen model of data of another shape, or of other classes where both have some.

    Args:
        role: What the model is to the method.
        shape: Shape of what the model makes.
        classes: Classes that it knows, 0 for none.
        source: The data that the method is trained on.

    Raises:
        ValueError: If it does not fit.
    """
    if shape != source.shape:
        raise ValueError(f"the {role} makes data of shape {shape}, the data have {source.shape}")
    known = source.told_classes
    if classes and known and classes != known:
        raise ValueError(f"the {role} knows {classes} classes, the data have {known}")


def require_same_data(
    reference: str, theirs: Mapping[str, object], ours: Mapping[str, object]
) -> None:
    """Refuse a teacher of pairs that was trained on other data.

    Args:
        reference: What the teacher is called.
        theirs: What is known of its data, by name.
        ours: The same of the data here.

    Raises:
        ValueError: If they differ.
    """
    for what, its in theirs.items():
        if its != ours[what]:
            raise ValueError(
                f"the teacher {reference} was trained on other data: their {what} is {its}, "
                f"that of the data here {ours[what]}"
            )


def require_fit(
    role: str, reference: str, parent: Domain, *, reading: Reading, student: Domain
) -> None:
    """Refuse a frozen model of another path than its student's, or one untrained where it is asked.

    Args:
        role: What the model is to the method.
        reference: What it is called.
        parent: Its domain.
        reading: How and where the method asks it.
        student: Domain of the map that the method learns.

    Raises:
        ValueError: If it does not fit.
    """
    if parent.path != student.path:
        raise ValueError(
            f"the method needs a {role} of the path {student.path}, "
            f"got {reference} of the path {parent.path}"
        )
    require_reading(role, reference, parent, reading)


def require_scale(
    role: str,
    reference: str,
    net: FlowMap,
    needs: Needs,
    *,
    drawn: tuple[float, float] | None,
) -> None:
    """Refuse a frozen network that is told a guidance scale and takes none, and the reverse.

    Args:
        role: What the model is to the method.
        reference: What it is called.
        net: Its network, of any device.
        needs: What the method needs.
        drawn: Lowest and highest scale of its training; None where that is not known.

    Raises:
        ValueError: If it does not fit.
    """
    takes, told = "guidance" in conditions_of(net), role in needs.told
    if told and not takes:
        raise ValueError(
            f"the method tells its {role} a guidance scale, which {reference} does not take as an "
            "input: a teacher that takes none is guided by teacher_guidance labels or weak_model"
        )
    if takes and not told:
        raise ValueError(
            f"{reference} takes a guidance scale as an input, and the method tells its {role} "
            "none: take teacher_guidance input"
        )
    if told and needs.scales and drawn:
        (low, high), (least, most) = needs.scales, drawn
        if low < least or high > most:
            raise ValueError(
                f"the method tells its {role} guidance scales of {low:g}..{high:g}, and "
                f"{reference} was trained with {least:g}..{most:g}: set lowest and highest of "
                "method.guidance"
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
