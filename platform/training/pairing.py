"""Pairing: the stored pairs of a run, given or made by a teacher in the run's folder."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, final

from ...methods.core.flow_map import FlowMap
from ...methods.core.guidance_scale import AtScale
from ...methods.core.noise import draw_noise
from ...methods.core.rng import Purpose
from ...methods.core.sampler import require_velocity
from ..data.errors import DataNotFound
from ..data.pairs import Pairs, PairSet, no_pairs, read_pairs
from ..data.source import Dataset
from ..experiment import Experiment
from ..registry.errors import ReferenceNotFound
from ..registry.model import load_generator
from ..registry.store import Registry
from .assembly import registry_of
from .errand import Progress, run_errand
from .pair_generation import check_guidance, generate_pairs
from .parent import require_lost_labels_of, require_same_data
from .place import place_of
from .watcher import Watcher

_EXAMPLES: Final = 64


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Pairing:
    """Where the pairs of a run lie or will lie, checked before they are made.

    Attributes:
        experiment: The run, whose parents name the folder of the pairs.
        dataset: Its data.
        lineage: What decides the pairs.
        given: The set that the user named, or None where a teacher makes one.
    """

    experiment: Experiment
    dataset: Dataset
    lineage: Mapping[str, Any]
    given: PairSet | None

    @classmethod
    def of(
        cls, experiment: Experiment, dataset: Dataset, *, registry: Registry, folder: Path
    ) -> Self:
        """The pairing of a run, with nothing made yet.

        Args:
            experiment: The run; its parents are versions.
            dataset: Its data.
            registry: Where the teacher is registered.
            folder: Folder of the run.

        Returns:
            The pairing.

        Raises:
            ValueError: If the pairs are missing or made for other data or by another teacher, the
                registry lacks their teacher, or the teacher or its guidance does not fit the data.
        """
        parents = experiment.parents
        place = Path(parents.pairs).absolute() if parents.pairs else folder / "pairs"
        given = read_pairs(place) if parents.pairs else None
        if given is None:
            check_guidance(experiment.pairs, dataset)
            _teacher(experiment, dataset, registry)
            assert parents.teacher is not None, "checked when the experiment was assembled"
            weights = registry.entry(parents.teacher).files.weights_sha256
            lineage = experiment.pairs.lineage(
                parents.teacher, weights=weights, data_digest=dataset.digest
            )
        else:
            _check_given(given, place, teacher=parents.teacher, dataset=dataset)
            _check_registered(given, place, registry)
            lineage = dict(given.lineage)
        return cls(
            experiment=replace(experiment, parents=replace(parents, pairs=str(place))),
            dataset=dataset,
            lineage=lineage,
            given=given,
        )

    @property
    def examples(self) -> PairSet:
        """Pairs of the kinds that the set has or will have, as a loss can be tried on."""
        if self.given is not None:
            return self.given
        rows, train = slice(0, _EXAMPLES), self.dataset.train
        settings, shape = self.experiment.pairs, self.dataset.shape
        x1, _ = train.take(rows)
        x0 = draw_noise(len(x1), shape, seed=settings.seed, purpose=Purpose.PAIRS)[0]
        pairs = Pairs(x0=x0, x1=x1, condition=train.condition(rows))
        real = pairs if settings.real else no_pairs(shape)
        return PairSet(generated=pairs, real=real, digest="", lineage=self.lineage)

    def pairs(self, watcher: Watcher) -> PairSet:
        """The set, made now unless it is there already, where the workers compute.

        Args:
            watcher: Told how many pairs are made.

        Returns:
            The set.

        Raises:
            ValueError: If the folder holds pairs of another teacher.
        """
        if self.given is not None:
            return self.given
        made = _made_before(self._folder, self.lineage)
        if made is not None:
            return made
        with watcher.counting("pairs") as count:
            run_errand(self.make, self.experiment, folder=self._folder.parent, progress=count)
        return read_pairs(self._folder)

    def make(self, progress: Progress) -> None:
        """Make the set in this process, which leaves it in its folder.

        Args:
            progress: Told how many pairs are done, and of how many.
        """
        experiment = self.experiment
        generate_pairs(
            _teacher(experiment, self.dataset, registry_of(experiment)),
            self.dataset,
            experiment.pairs,
            self._folder,
            lineage=self.lineage,
            device=place_of(experiment).device,
            progress=progress,
        )

    @property
    def _folder(self) -> Path:
        assert self.experiment.parents.pairs is not None, "the pairing has named it"
        return Path(self.experiment.parents.pairs)


def _teacher(experiment: Experiment, dataset: Dataset, registry: Registry) -> FlowMap:
    reference = experiment.parents.teacher
    assert reference is not None, "checked when the experiment was assembled"
    teacher, record = load_generator(registry, reference)
    theirs, ours = f"{record.data_digest[:12]}...", f"{dataset.digest[:12]}..."
    require_same_data(
        reference,
        {"shape": record.shape, "classes": record.classes, "digest": theirs},
        {"shape": dataset.shape, "classes": dataset.told_classes, "digest": ours},
    )
    if experiment.pairs.guidance != 1.0:
        require_lost_labels_of("pairs.guidance", reference, record)
        if isinstance(teacher, AtScale):
            raise ValueError(
                f"{reference} takes a guidance scale itself, and makes pairs at its own, "
                f"{teacher.scale:g}: leave pairs.guidance at 1, got {experiment.pairs.guidance:g}"
            )
    domain = teacher.domain
    require_velocity(f"making pairs by {reference}", domain)
    if experiment.pairs.real and (domain.t_lo, domain.t_hi) != (0.0, 1.0):
        raise ValueError(
            f"pairs.real=true takes data back to noise, for which {reference} must be trained on "
            f"[0, 1], got [{domain.t_lo:g}, {domain.t_hi:g}]"
        )
    return teacher


def _check_given(pairs: PairSet, place: Path, *, teacher: str | None, dataset: Dataset) -> None:
    if pairs.lineage["data_digest"] != dataset.digest:
        raise ValueError(
            f"pairs in {place} were made for data {pairs.lineage['data_digest'][:12]}..., "
            f"the data here are {dataset.digest[:12]}..."
        )
    if teacher and pairs.lineage["teacher"] != teacher:
        raise ValueError(
            f"pairs in {place} were made by {pairs.lineage['teacher']}, "
            f"parents.teacher is {teacher}"
        )


def _check_registered(pairs: PairSet, place: Path, registry: Registry) -> None:
    """Refuse pairs whose teacher the record of a trained model could not name."""
    teacher = str(pairs.lineage["teacher"])
    try:
        here = registry.entry(teacher).files.weights_sha256
    except ReferenceNotFound as error:
        raise ValueError(
            f"pairs in {place} were made by {teacher}, which the registry here does not hold; "
            "name the store that does by storage.tracking_uri=..."
        ) from error
    made_by = pairs.lineage.get("teacher_weights")
    if made_by is None:
        raise ValueError(
            f"pairs in {place} must say which weights their teacher {teacher} had, which sets of "
            "older versions do not; make them again by parents.teacher=..."
        )
    if made_by != here:
        raise ValueError(
            f"pairs in {place} were made by {teacher} with weights {made_by[:12]}..., that of "
            f"the registry here has {here[:12]}...; name the store of theirs by "
            "storage.tracking_uri=..."
        )


def _made_before(place: Path, lineage: Mapping[str, Any]) -> PairSet | None:
    """The pairs that an earlier attempt of the same run finished, or None."""
    try:
        pairs = read_pairs(place)
    except DataNotFound:
        return None
    if pairs.lineage != lineage:
        raise ValueError(
            f"pairs in {place} were made by another teacher or with other settings "
            f"({dict(pairs.lineage)}, now {dict(lineage)}); give the run another name"
        )
    return pairs
