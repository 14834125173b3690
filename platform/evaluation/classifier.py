"""A small image classifier, trained on the set itself: the feature space of the metrics."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Final, Self, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ..data.source import Dataset, Examples
from ..threads import threads

_BATCH: Final = 1024  # images at a time outside training
_GRID: Final = 4  # height and width of the last layer that sees places


@final
@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe:
    """How the classifier is built and trained; part of its identity.

    Attributes:
        width: Channels of the first layer; the others have twice as many.
        features: Dimension of the feature space.
        samples: Training images seen, repeats counted; at least one pass over the set.
        batch_size: Images of a step.
        learning_rate: Peak of the one-cycle schedule of AdamW.
        seed: Seed of weights and order.

    Raises:
        ValueError: If a number is out of range.
    """

    width: int = 32
    features: int = 64
    samples: int = 20_000
    batch_size: int = 128
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = (self.width, self.features, self.samples, self.batch_size)
        if min(sizes) < 1 or not self.learning_rate > 0.0:
            raise ValueError(f"sizes and learning rate of a classifier must be positive: {self}")

    def digest(self, dataset: Dataset) -> str:
        """Digest of the question, this recipe on this data; the answer has one of its own.

        Args:
            dataset: What the classifier is trained on.
        """
        question = json.dumps({"recipe": asdict(self), "data": dataset.digest}, sort_keys=True)
        return hashlib.sha256(question.encode()).hexdigest()


def _layer(inside: int, outside: int) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]


@final
class Classifier(nn.Module):
    """Convolutions and poolings down to a grid of 4 x 4, a feature layer and a linear one.

    Args:
        shape: Channels, height and width of the images.
        classes: Number of classes.
        recipe: Sizes.
    """

    def __init__(self, *, shape: tuple[int, ...], classes: int, recipe: ClassifierRecipe) -> None:
        super().__init__()
        channels, side, _ = shape
        layers = _layer(channels, recipe.width)
        width = recipe.width
        while side >= 2 * _GRID:
            layers += [nn.MaxPool2d(2), *_layer(width, 2 * recipe.width)]
            width, side = 2 * recipe.width, side // 2
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(_GRID), nn.Flatten())
        self.project = nn.Linear(width * _GRID**2, recipe.features)
        self.head = nn.Linear(recipe.features, classes)

    def embed(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """Features of images.

        Args:
            x: Images in [-1, 1].
        """
        return functional.relu(self.project(self.body(x)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits of images.

        Args:
            x: Images in [-1, 1].
        """
        logits: Tensor = self.head(self.embed(x))
        return logits

    @classmethod
    def of(cls, dataset: Dataset, recipe: ClassifierRecipe) -> Self:
        """An untrained classifier for the images of a set, a function of the recipe's seed.

        Args:
            dataset: Labelled images.
            recipe: Sizes and seed.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return cls(shape=dataset.shape, classes=dataset.classes, recipe=recipe)

    @torch.no_grad()
    def read(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n f"], Int[Tensor, " n"]]:
        """Features and predicted class of images, block by block.

        Args:
            x: Images in [-1, 1].
        """
        features = torch.cat([self.embed(block) for block in torch.split(x, _BATCH)])
        return features, self.head(features).argmax(dim=1)


def train_classifier(dataset: Dataset, recipe: ClassifierRecipe) -> Classifier:
    """A classifier trained on the training split, a pure function of data and recipe.

    Sums in another order give other digits, so that it is trained on one thread and by algorithms
    that always give the same, whatever the process computes with. Another version of torch, or
    another kind of processor, may still round otherwise.

    Args:
        dataset: Labelled images.
        recipe: How to train.
    """
    with threads(1), _deterministic():
        net = Classifier.of(dataset, recipe)
        _train(net, dataset, recipe)
    return net.eval().requires_grad_(False)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Compute by algorithms that always give the same, and as before afterwards."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def _train(net: Classifier, dataset: Dataset, recipe: ClassifierRecipe) -> None:
    rng = torch.Generator().manual_seed(recipe.seed)
    n = len(dataset.train)
    size = min(recipe.batch_size, n)
    steps = max(recipe.samples, n) // size
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=steps
    )
    order = torch.randperm(n, generator=rng)
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(n, generator=rng)
        x, label = dataset.train.take(order[:size])
        order = order[size:]
        assert label is not None, "a classifier is trained on labelled images"
        loss = functional.cross_entropy(net(x), label, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def accuracy(net: Classifier, examples: Examples) -> float:
    """Share of examples whose class is seen, in [0, 1].

    Args:
        net: The classifier.
        examples: Labelled images.
    """
    x, label = examples.everything()
    assert label is not None, "accuracy is of labelled images"
    return (net.read(x)[1] == label).double().mean().item()
