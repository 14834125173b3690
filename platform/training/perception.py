"""The perceptual distance `auto`: LPIPS where it can be had, otherwise features of the teacher."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, final, get_args

from jaxtyping import Float
from torch import Tensor

from ...methods.core.distance import AbstractDistance
from ...methods.core.feature_distance import FeatureDistance
from ..build import build, class_at
from ..data.source import AbstractSource
from ..experiment import Experiment
from .lpips import CHANNELS, Lpips, LpipsUnavailable

_LPIPS: Final = "lpips"
_FEATURES: Final = "features"
_TARGETS: Final = {it: f"{it.__module__}.{it.__name__}" for it in (Lpips, FeatureDistance)}


@final
@dataclass(frozen=True, kw_only=True)
class LpipsOrFeatures(AbstractDistance):
    """LPIPS where its package and its weights are and it takes the data, otherwise features.

    It stands for a choice that is made when a run is composed, and written into the run's
    configuration in its place. It compares nothing.

    Attributes:
        features: Parts of the teacher for a FeatureDistance; none for LPIPS or nothing.
        time: Time at which the teacher looks.
        backbone: Backbone of LPIPS.
        side: Least side of the images that LPIPS compares.
    """

    features: tuple[str, ...] = ()
    time: float = 1.0
    backbone: str = "vgg"
    side: int = 64

    def __call__(self, x: Float[Tensor, " b *d"], y: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        """Refuse: the choice has to be made before.

        Args:
            x: Not looked at.
            y: Not looked at.

        Raises:
            ValueError: Always.
        """
        del x, y
        raise ValueError(
            "perception auto is replaced when onestep train composes a run: name one here, "
            "perception@method.FIELD=lpips or features"
        )


def with_perception(experiment: Experiment) -> Experiment:
    """The experiment that names its perceptual distance, in its method and in its overrides.

    Args:
        experiment: One whose distances may be `auto`.

    Returns:
        The experiment to train and to record.

    Raises:
        ValueError: If neither LPIPS nor features can be had.
    """
    for field in _open(experiment):
        name, node = _choice(experiment, field)
        lines = experiment.overrides
        experiment = replace(
            experiment,
            method={**experiment.method, field: node},
            overrides=_pinned(lines, field, name, node) if lines else lines,
        )
    return experiment


def require_perception(experiment: Experiment) -> None:
    """Refuse an experiment whose perceptual distance is still to be chosen.

    Args:
        experiment: What is to be compared and repeated.

    Raises:
        ValueError: If one is `auto`.
    """
    for field in _open(experiment):
        raise ValueError(
            "trials are compared and repeated, so each names its perceptual distance: got auto, "
            f"use perception@method.{field}=lpips or features"
        )


def perceptions(experiment: Experiment) -> Iterator[str]:
    """What the perceptual distances of an experiment are, one line each.

    Args:
        experiment: The experiment.
    """
    for field, node in experiment.method.items():
        target = _target_of(node)
        if target == _TARGETS[Lpips]:
            yield f"method.{field}: LPIPS with backbone {node.get('backbone', Lpips.backbone)}"
        elif target == _TARGETS[FeatureDistance]:
            parts = ", ".join(node["features"])
            yield f"method.{field}: not LPIPS, but features of the teacher at {parts}"


def _open(experiment: Experiment) -> tuple[str, ...]:
    """Fields of the method whose distance is `auto`."""
    auto = f"{LpipsOrFeatures.__module__}.{LpipsOrFeatures.__name__}"
    found = [field for field, node in experiment.method.items() if _target_of(node) == auto]
    return tuple(field for field in found if field in _parameters(experiment))


def _target_of(node: object) -> object:
    return node.get("_target_") if isinstance(node, Mapping) else None


def _choice(experiment: Experiment, field: str) -> tuple[str, dict[str, Any]]:
    """The distance that can be had: its name in the group ``perception``, and its node."""
    asked = build(experiment.method[field], LpipsOrFeatures)
    try:
        shape = build(experiment.data, AbstractSource).shape
        return _LPIPS, {"_target_": _TARGETS[Lpips], **asdict(_lpips(asked, shape))}
    except LpipsUnavailable as error:
        missing = str(error)
    key = f"method.{field}"
    if FeatureDistance not in get_args(_parameters(experiment)[field].annotation):
        raise ValueError(f"{key} asks no network for features, so that auto is LPIPS: {missing}")
    if not asked.features:
        raise ValueError(f"{key} auto needs LPIPS, or parts of the teacher as features: {missing}")
    found = FeatureDistance(features=asked.features, time=asked.time)
    node = {"_target_": _TARGETS[FeatureDistance], **asdict(found)}
    return _FEATURES, {**node, "features": list(found.features)}


def _lpips(asked: LpipsOrFeatures, shape: tuple[int, ...]) -> Lpips:
    if len(shape) != 3 or shape[0] not in CHANNELS:
        raise LpipsUnavailable(f"LPIPS takes images with 1 or 3 channels, got shape {shape}")
    return Lpips(backbone=asked.backbone, side=asked.side)


def _parameters(experiment: Experiment) -> Mapping[str, inspect.Parameter]:
    """The fields of the method."""
    return inspect.signature(class_at(str(experiment.method["_target_"]))).parameters


def _pinned(
    overrides: Sequence[str], field: str, name: str, node: Mapping[str, Any]
) -> tuple[str, ...]:
    """Overrides that name a distance in place of all they said about it."""
    key, group = f"method.{field}", f"perception@method.{field}"
    kept = (line for line in overrides if not _is_about(line, key, group))
    values = {k: f"[{','.join(v)}]" if isinstance(v, list) else v for k, v in node.items()}
    del values["_target_"]
    return (*kept, f"{group}={name}", *(f"{key}.{k}={value}" for k, value in values.items()))


def _is_about(override: str, key: str, group: str) -> bool:
    said = override.partition("=")[0].lstrip("+~")
    return said in (key, group) or said.startswith(f"{key}.")
