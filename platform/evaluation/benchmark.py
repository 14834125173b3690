"""The yardstick of a data set: reference, floors and baselines, measured once for all models."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self, TypeVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...methods.core.condition import Condition
from ...methods.core.rng import Purpose, mix
from ..data.source import Dataset
from ..experiment import LEAST_SAMPLES
from .agreement import CHECKERBOARD, ClassAgreement, ForbiddenSquares
from .baseline import class_pools, distinct_rows, gaussian_samples, resampled_rows
from .classifier import ClassifierRecipe
from .features import FeatureSpace, feature_space, has_classifier
from .frechet import FrechetFeatures
from .kernel import EnergyDistance, SquaredMmd
from .manifold import DensityCoverage, PrecisionRecall
from .memorisation import Memorisation
from .metric import AbstractMetric, AbstractPooledMetric
from .modes import Modes
from .neighbour import OneNearestNeighbour
from .population import Population, Reference
from .sampling import Finish, finish_of
from .score import Score, score_by_draw, score_together
from .transport import SlicedWasserstein2, Wasserstein2

GAUSSIAN: Final = "gaussian"
"""Baseline: one Gaussian per class, or for the whole set where it has no classes.

Its images are clipped, as those of a model are."""
TRAINING_DATA: Final = "training_data"
"""Baseline: training examples drawn with replacement."""


COMPARISONS: Final[tuple[AbstractMetric, ...]] = (
    OneNearestNeighbour(),
    SlicedWasserstein2(),
    EnergyDistance(),
    SquaredMmd(),
    PrecisionRecall(),
    DensityCoverage(),
    FrechetFeatures(),
    Memorisation(),
)
"""Metrics that every set allows; each compares a draw with as many held-out data."""
MATCHED: Final[tuple[AbstractMetric, ...]] = (Wasserstein2(),)
"""The same of those whose time grows with the cube, so that they see a part of a large draw."""
_MOST_MATCHED: Final = 1000
_M = TypeVar("_M", bound=AbstractMetric)


METRICS: Final = (*COMPARISONS, ClassAgreement(), ForbiddenSquares(), *MATCHED, Modes())
"""All metrics, of which each set allows some."""


def shares(dataset: Dataset) -> tuple[AbstractMetric, ...]:
    """The shares of samples alone that a data set allows.

    Args:
        dataset: The set.
    """
    metrics: list[AbstractMetric] = []
    if has_classifier(dataset):
        metrics.append(ClassAgreement())
    if dataset.name == CHECKERBOARD:
        metrics.append(ForbiddenSquares())
    return tuple(metrics)


def pooled(dataset: Dataset) -> tuple[AbstractPooledMetric, ...]:
    """The metrics that a data set allows whose bias falls with the number of samples.

    Args:
        dataset: The set.
    """
    return () if dataset.mixture is None else (Modes(),)


def metric_names(dataset: Dataset) -> tuple[str, ...]:
    """What a benchmark of a data set finds; it takes no time to say.

    Args:
        dataset: The set.
    """
    metrics = (*COMPARISONS, *shares(dataset), *MATCHED, *pooled(dataset))
    return tuple(name for metric in metrics for name in metric.names)


def held_out_rows(dataset: Dataset, samples: int, seed: int) -> Int[Tensor, " n"]:
    """The held-out data that samples are compared with; it takes no time to find them.

    Args:
        dataset: The set.
        samples: Samples of a draw; at most as many as there are held-out and training data.
        seed: Seed of the part.

    Returns:
        Their numbers.

    Raises:
        ValueError: If the seed is negative, they are too few, or there is no training example of
            the class of one.
    """
    if seed < 0:
        raise ValueError(f"the seed of an evaluation must be at least 0, got {seed}")
    held_out, train = dataset.held_out, dataset.train
    n = min(samples, len(held_out), len(train))
    if n < LEAST_SAMPLES:
        raise ValueError(
            f"an evaluation needs at least {LEAST_SAMPLES} samples, held-out and training data, "
            f"got {samples}, {len(held_out)} and {len(train)}"
        )
    rows = _part(dataset, n, of=len(held_out), seed=seed)
    if held_out.label is not None and train.label is not None:
        class_pools(held_out.label[rows], train.label)  # refuses a class without examples
    return rows


def _part(dataset: Dataset, n: int, *, of: int, seed: int) -> Int[Tensor, " n"]:
    """Points of the plane in their order, of which any run is balanced; of images a random part."""
    if len(dataset.shape) == 1 or n == of:
        return torch.arange(n)
    rng = torch.Generator().manual_seed(mix(Purpose.HELD_OUT, seed))
    return torch.randperm(of, generator=rng)[:n].sort().values


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Benchmark:
    """Everything about an evaluation that is the same for every model.

    Samples, floors and baselines have the classes of the held-out data, point by point. Equal
    class counts bring sets closer than independent draws, so that unbiased distances have floors
    slightly below zero.

    Attributes:
        dataset: The set.
        space: Its feature space.
        reference: Held-out and training data.
        condition: What the samples of a draw are asked to be: the classes or the captions of the
            held-out data; None without either.
        draws: Independent draws of samples over which numbers are averaged.
        seed: Seed of noise, floors, baselines and intervals.
        floors: Each number for training data against held-out data.
        baselines: Each number for the trivial generators, by generator.
    """

    dataset: Dataset
    space: FeatureSpace
    reference: Reference
    condition: Condition | None
    draws: int
    seed: int
    floors: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]

    @classmethod
    def prepare(
        cls,
        dataset: Dataset,
        *,
        home: Path,
        samples: int = 1000,
        draws: int = 8,
        seed: int = 0,
        recipe: ClassifierRecipe | None = None,
    ) -> Self:
        """Train or load the classifier, and measure floors and baselines.

        Args:
            dataset: The set.
            home: Folder of the platform.
            samples: Samples of a draw; at most as many as there are held-out and training data.
            draws: Draws over which numbers are averaged.
            seed: Seed of noise, floors, baselines and intervals.
            recipe: How the classifier is trained.

        Raises:
            ValueError: If the counts are too small.
        """
        if draws < 1:
            raise ValueError(f"an evaluation needs at least 1 draw, got {draws}")
        rows = held_out_rows(dataset, samples, seed)
        x, label = dataset.held_out.take(rows)
        space = feature_space(dataset, home=home, recipe=recipe)
        # Training data is only asked for its nearest points, so it needs no features.
        train_x, train_label = dataset.train.everything()
        reference = Reference(
            held_out=space.populate(x, label=label),
            train=Population(x=train_x.flatten(1), features=train_x.flatten(1), label=train_label),
            mixture=dataset.mixture,
        )
        trivial = _Trivial(
            space=space,
            reference=reference,
            shape=dataset.shape,
            finish=finish_of(dataset.latents),
            seed=seed,
        )

        def means(make: Callable[[int], Population]) -> dict[str, float]:
            scores = _score(dataset, [make(k) for k in range(draws)], reference, seed)
            return {name: score.value for name, score in scores.items()}

        return cls(
            dataset=dataset,
            space=space,
            reference=reference,
            condition=dataset.held_out.condition(rows),
            draws=draws,
            seed=seed,
            floors=means(trivial.fresh_data),
            baselines={
                GAUSSIAN: means(trivial.gaussian),
                TRAINING_DATA: means(trivial.training_data),
            },
        )

    @property
    def count(self) -> int:
        """Samples of a draw."""
        return len(self.reference.held_out)

    @property
    def asked(self) -> Condition | None:
        """What to ask for in all draws, draw after draw."""
        if self.condition is None:
            return None
        return self.condition[torch.arange(self.count).repeat(self.draws)]

    def judge(
        self, x: Float[Tensor, " n *d"], *, names: Set[str] | None = None
    ) -> dict[str, Score]:
        """The metrics of samples that were made for ``asked``.

        Args:
            x: Samples, draw after draw.
            names: Numbers that are wanted, and come with those that are found together with them;
                None for all.

        Raises:
            ValueError: If their number is not the number of draws times the count.
        """
        if len(x) != self.draws * self.count:
            raise ValueError(
                f"{self.draws} draws of {self.count} samples are needed, got {len(x)} samples"
            )
        label = self.reference.held_out.label
        draws = [self.space.populate(part, label=label) for part in torch.split(x, self.count)]
        return _score(self.dataset, draws, self.reference, self.seed, names)


def _wanted(metrics: Sequence[_M], names: Set[str] | None) -> tuple[_M, ...]:
    return tuple(one for one in metrics if names is None or not names.isdisjoint(one.names))


def _score(
    dataset: Dataset,
    draws: Sequence[Population],
    reference: Reference,
    seed: int,
    names: Set[str] | None = None,
) -> dict[str, Score]:
    n = len(reference.held_out)
    part = _part(dataset, min(n, _MOST_MATCHED), of=n, seed=seed)
    compared = _wanted((*COMPARISONS, *shares(dataset)), names)
    matched = score_by_draw(
        _wanted(MATCHED, names),
        [draw[part] for draw in draws],
        replace(reference, held_out=reference.held_out[part]),
        seed=seed,
    )
    return (
        score_by_draw(compared, draws, reference, seed=seed)
        | matched
        | score_together(_wanted(pooled(dataset), names), draws, reference)
    )


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Trivial:
    """Draws of the floor and of the trivial generators, each a function of its number."""

    space: FeatureSpace
    reference: Reference
    shape: tuple[int, ...]
    finish: Finish
    seed: int

    def _rng(self, kind: int, draw: int) -> torch.Generator:
        return torch.Generator().manual_seed(mix(Purpose.BASELINE, self.seed, kind, draw))

    def _populate(self, x: Tensor, rows: Tensor | None = None) -> Population:
        images = self.finish(x.reshape(len(x), *self.shape))  # as a model's samples are
        return self.space.populate(images, label=self.reference.held_out.label, rows=rows)

    def fresh_data(self, draw: int) -> Population:
        """Distinct training examples, each of which knows its place and so is no copy."""
        train, held_out = self.reference.train, self.reference.held_out
        rows = distinct_rows(
            len(train), train.label, n=len(held_out), labels=held_out.label, rng=self._rng(0, draw)
        )
        return self._populate(train.x[rows], rows)

    def gaussian(self, draw: int) -> Population:
        """One Gaussian per class."""
        train, held_out = self.reference.train, self.reference.held_out
        x = gaussian_samples(
            train.x, train.label, n=len(held_out), labels=held_out.label, rng=self._rng(1, draw)
        )
        return self._populate(x)

    def training_data(self, draw: int) -> Population:
        """Training examples as a generator that has learned them by heart would give them."""
        train, held_out = self.reference.train, self.reference.held_out
        rows = resampled_rows(
            len(train), train.label, n=len(held_out), labels=held_out.label, rng=self._rng(2, draw)
        )
        return self._populate(train.x[rows])
