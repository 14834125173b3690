"""What an evaluation hands on: numbers that never travel without where they come from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, final


@final
@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number, with what is needed to judge it.

    Attributes:
        name: ``family/name``.
        value: Mean over draws.
        interval: Its interval at 95 %: a bootstrap over draws, or over trajectories for a property
            of the map itself; a jackknife where draws are pooled.
        count: Samples of a draw.
        draws: Draws that were averaged.
        space: ``data`` or ``features``; where the metric looks.
        nfe: Evaluations of the map for one sample; None for a property of the map itself.
        sampler: How the samples were made, with all settings; empty for a property of the map.
        floor: The same number for training data against held-out data, or for an exact map where
            it is a property of the map itself; None where there is none.
        baselines: The same number for trivial generators, by name.
    """

    name: str
    value: float
    interval: tuple[float, float]
    count: int
    draws: int
    space: str
    nfe: int | None = None
    sampler: str = ""
    floor: float | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``, after a way through JSON.

        Args:
            values: Plain values.
        """
        low, high = values["interval"]
        return cls(**{**values, "interval": (low, high), "baselines": dict(values["baselines"])})


@final
@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the numbers of a report rest on.

    Attributes:
        model: Reference or name of the model.
        data: Name of the set.
        data_digest: sha256 over contents and split of the set.
        features: Feature space: ``sha256:`` of the classifier, or ``coordinates``.
        classifier_accuracy: Held-out accuracy of the classifier, or None.
        count: Samples of a draw.
        draws: Draws of samples.
        seed: Seed of noise, floors, baselines and intervals.
        ema: Which weights of the model were used.
        classes: Classes of the data, 0 for none; None in reports from before they were noted.
        guidance: Guidance scale of a model that takes one, or None.
    """

    model: str
    data: str
    data_digest: str
    features: str
    classifier_accuracy: float | None
    count: int
    draws: int
    seed: int
    ema: str = ""
    classes: int | None = None
    guidance: float | None = None

    @property
    def title(self) -> str:
        """The model, and the guidance scale if it takes one."""
        return self.model if self.guidance is None else f"{self.model}, guidance {self.guidance:g}"

    @property
    def gaussian(self) -> str:
        """What the baseline of Gaussians is called in tables and figures."""
        return "Gaussian per class" if self.classes else "Gaussian"


@final
@dataclass(frozen=True, kw_only=True)
class Report:
    """The measurements of one model.

    Attributes:
        provenance: What they rest on.
        measurements: All of them, by number of evaluations, then by metric.
    """

    provenance: Provenance
    measurements: tuple[Measurement, ...]

    @property
    def nfes(self) -> tuple[int, ...]:
        """Numbers of evaluations at which the model was sampled, ascending."""
        return tuple(sorted({m.nfe for m in self.measurements if m.nfe is not None}))

    def find(self, name: str, *, nfe: int | None = None, sampler: str = "") -> Measurement:
        """One measurement.

        Args:
            name: Name of the metric.
            nfe: Evaluations of the map; None for a property of the map itself.
            sampler: How it was sampled; the first way at this number of evaluations by default.

        Raises:
            ValueError: If the report has no such measurement.
        """
        for m in self.measurements:
            if m.name == name and m.nfe == nfe and sampler in ("", m.sampler):
                return m
        raise ValueError(
            f"the report on {self.provenance.model or 'a model'} has no {name} at {nfe} network "
            f"evaluations, only {sorted({m.name for m in self.measurements})} at {self.nfes}"
        )

    def metrics(self) -> dict[str, float]:
        """The values by flat name, ``family/name/nfe_4``, for a tracker or a model's record."""
        flat: dict[str, float] = {}
        for m in self.measurements:
            # The first way of sampling at a number of evaluations is the domain's own.
            flat.setdefault(m.name if m.nfe is None else f"{m.name}/nfe_{m.nfe}", m.value)
        return flat

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """The report in a file.

        Args:
            file: Where it is; there may be none.

        Raises:
            ValueError: If the file holds no report.
        """
        return cls.from_json(file.read_text()) if file.exists() else None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of ``to_json``.

        Args:
            text: JSON.

        Raises:
            ValueError: If the text is no report.
        """
        try:
            values = json.loads(text)
            return cls(
                provenance=Provenance(**values["provenance"]),
                measurements=tuple(Measurement.from_dict(m) for m in values["measurements"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the text is no evaluation report: {error}") from error
