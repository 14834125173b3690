"""What the registry knows about a model beside its weights: to build, trust and repeat it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Self, final

from ..data.latent_space import LatentSpace
from ..password import without_passwords
from .reference import ModelVersion, check_name

_FORMAT: Final = 1


@final
@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The domain's record of one registered model.

    Attributes:
        name: Registered model; by default the name of the data set.
        method: `_target_` node of the method that trained it.
        net: `_target_` node of the network.
        shape: Shape of one sample, without the batch.
        domain: The (s, t) on which the map was trained, as `Domain.to_dict` gives it.
        data_digest: SHA-256 of the data set and its split.
        seed: Seed of the run.
        classes: Number of classes, 0 if unconditional.
        label_names: A name for each class.
        parents: What it was made from, by role: a version `digits/3`, or a checksum of pairs.
        experiment: The resolved experiment.
        overrides: The overrides that composed it; pasted into a shell they repeat it.
        revision: Code revision, with `+dirty` if files had changed or code was new; several, in
            turn, of what went on with other code.
        ema: Which weights these are, such as `online` or a half-life.
        metrics: Quality by name, all finite; the first ones head the listings.
        provenance: How the metrics were measured.
        origin: Where weights that were trained elsewhere come from: their licence, their source
            and the SHA-256 of their file; empty for a run of ours.
        latents: The space of the samples where they are latents, or None.
        sampler: `_target_` node of the sampler that takes the place of the domain's own at its
            number of evaluations, or None.
        sweep: The sweep whose best trial it is, and which one; empty for a model of no sweep.

    Raises:
        ValueError: If a part contradicts another, or is not well formed.
    """

    name: str
    method: Mapping[str, Any]
    net: Mapping[str, Any]
    shape: tuple[int, ...]
    domain: Mapping[str, Any]
    data_digest: str
    seed: int
    classes: int = 0
    label_names: tuple[str, ...] = ()
    parents: Mapping[str, str] = field(default_factory=dict)
    experiment: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    revision: str = "unknown"
    ema: str = "online"
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    latents: LatentSpace | None = None
    sampler: Mapping[str, Any] | None = None
    sweep: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.shape or any(size < 1 for size in self.shape):
            raise ValueError(f"record shape must hold positive sizes, got {self.shape}")
        if self.label_names and len(self.label_names) != self.classes:
            raise ValueError(
                f"record must name each of its {self.classes} classes or none, "
                f"got {len(self.label_names)} label names"
            )
        nodes = {"method": self.method, "net": self.net}
        for name, node in (nodes | ({"sampler": self.sampler} if self.sampler else {})).items():
            if not isinstance(node.get("_target_"), str):
                raise ValueError(f"record {name} must be a node with a _target_ path")
        for role, parent in self.parents.items():
            if "@" in parent or not parent:
                raise ValueError(
                    f"parent {role!r} must be a version such as digits/3 or a checksum, which do "
                    f"not move, got {parent!r}"
                )
        check_metrics(self.metrics)
        if self.latents is not None and len(self.latents.shift) != self.shape[0]:
            raise ValueError(
                f"record of latents of {self.shape[0]} channels must have as many shifts, "
                f"got {len(self.latents.shift)}"
            )

    @property
    def method_name(self) -> str:
        """Last part of the method's path, such as `MeanFlow`."""
        return str(self.method["_target_"]).rpartition(".")[2]

    @property
    def model_parents(self) -> dict[str, ModelVersion]:
        """The parents that are registered models, by role."""
        return {
            role: ModelVersion.parse(parent)
            for role, parent in self.parents.items()
            if ModelVersion.is_written(parent)
        }

    def to_json(self) -> str:
        """The record as JSON, in the order of its fields, without the passwords of stores."""
        values = {"format": _FORMAT} | without_passwords(asdict(self))
        return json.dumps(values, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Args:
            text: JSON of a record.

        Returns:
            The record.

        Raises:
            ValueError: If the text is no record of this format.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.pop("format", None) != _FORMAT:
            raise ValueError(f"a model record must be a JSON object of format {_FORMAT}")
        known = {part.name for part in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise ValueError(f"model record has the unknown key {unknown[0]!r}")
        try:
            latents = values.get("latents")
            return cls(
                **values
                | {
                    "latents": None if latents is None else LatentSpace.from_dict(latents),
                    "shape": tuple(values["shape"]),
                    "label_names": tuple(values.get("label_names", ())),
                    "overrides": tuple(values.get("overrides", ())),
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"model record is incomplete: {error}") from error


def check_metrics(metrics: Mapping[str, float]) -> None:
    """Refuse metrics that cannot be compared.

    Args:
        metrics: Values by name.

    Raises:
        ValueError: If one is not finite.
    """
    for metric, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"metric {metric!r} must be finite, got {value}")
