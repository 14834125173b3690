"""The protocol of every data set: a source is its configuration, and loads to tensors in memory."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ...methods.core.condition import Condition
from .latent_space import LatentSpace

WHITE: Final = 255
"""The brightest level of an ordinary image."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Examples in the order in which they are numbered.

    Attributes:
        x: Grey levels 0..white as uint8, or raw coordinates as float32.
        label: Class of each example, in [0, classes), or None.
        tokens: Caption of each example, as the set's tokenizer gives it, or None.
        white: Level of the stored images that becomes 1; 0 becomes -1.

    Raises:
        ValueError: If the type of x is neither, or there is not one label or caption for each
            example.
    """

    x: Shaped[Tensor, " n *d"]
    label: Int[Tensor, " n"] | None = None
    tokens: Int[Tensor, "n m"] | None = None
    white: int = WHITE

    def __post_init__(self) -> None:
        if self.x.dtype not in (torch.uint8, torch.float32):
            raise ValueError(f"examples must be uint8 or float32, got {self.x.dtype}")
        if self.label is not None and len(self.label) != len(self.x):
            raise ValueError(f"{len(self.x)} examples need as many labels, got {len(self.label)}")
        if self.tokens is not None and len(self.tokens) != len(self.x):
            raise ValueError(
                f"{len(self.x)} examples need as many captions, got {len(self.tokens)}"
            )

    def __len__(self) -> int:
        return len(self.x)

    def take(
        self, index: Int[Tensor, " b"] | slice
    ) -> tuple[Float[Tensor, " b *d"], Int[Tensor, " b"] | None]:
        """The examples of these numbers: images in [-1, 1], or raw coordinates; and their labels.

        Args:
            index: Numbers of the examples, each in [0, n).
        """
        rows = self.x[index]
        if rows.dtype == torch.uint8:
            # Division, not multiplication by 2 / white: white then becomes exactly 1.
            rows = rows.float() / (self.white / 2) - 1.0
        return rows, None if self.label is None else self.label[index]

    def condition(self, index: Int[Tensor, " b"] | slice = slice(None)) -> Condition | None:
        """What a model is told about examples: the caption if there is one, else the label.

        The label of an example with a caption serves the evaluation alone: a model that saw both
        could do without the caption.

        Args:
            index: Numbers of the examples, each in [0, n).
        """
        if self.tokens is not None:
            return Condition(tokens=self.tokens[index])
        return None if self.label is None else Condition(label=self.label[index])

    def everything(self) -> tuple[Float[Tensor, " n *d"], Int[Tensor, " n"] | None]:
        """All examples as ``take`` gives them."""
        return self.take(slice(None))


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """The mixture of equally wide round Gaussians that a set was drawn from.

    Attributes:
        means: Centre of each mode, in the coordinates of the set.
        std: Standard deviation of each coordinate within a mode, positive.
        weights: Probability of each mode; they sum to 1.
    """

    means: Float[Tensor, "k d"]
    std: float
    weights: Float[Tensor, " k"]


def _update(digest: "hashlib._Hash", examples: Examples) -> None:
    x = np.ascontiguousarray(examples.x.numpy())
    label = examples.label
    header = [str(x.dtype), list(x.shape), examples.white, label is not None]
    digest.update(json.dumps(header).encode())
    digest.update(x.astype(x.dtype.newbyteorder("<"), copy=False).data)
    if label is not None:
        digest.update(np.ascontiguousarray(label.numpy().astype("<i8")).data)
    if examples.tokens is not None:
        digest.update(json.dumps(["tokens", list(examples.tokens.shape)]).encode())
        digest.update(np.ascontiguousarray(examples.tokens.numpy().astype("<i8")).data)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A data set in memory, cut into what is trained on and what is held out.

    Attributes:
        name: Name of the set.
        shape: Shape of one example: (2,) for points, (channels, side, side) for images.
        classes: Number of classes, 0 for a set without labels.
        label_names: Name of each class.
        vocabulary: Words of the captions in the order of their tokens, empty without captions.
        train: Examples to train on.
        held_out: Examples that no training run sees.
        digest: sha256 over contents, split and label names, in hexadecimal digits.
        mixture: The law of the set where it is a mixture of Gaussians.
        horizontal_flip: Whether training may mirror examples left to right.
        latents: The space of the examples where they are latents, or None.
        decoder_file: Where the weights of its decoder lie, or None.
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    label_names: tuple[str, ...]
    train: Examples
    held_out: Examples
    digest: str
    vocabulary: tuple[str, ...] = ()
    mixture: Mixture | None = None
    horizontal_flip: bool = False
    latents: LatentSpace | None = None
    decoder_file: Path | None = None

    @property
    def told_classes(self) -> int:
        """Classes that a model is told of, 0 where captions tell it."""
        return 0 if self.vocabulary else self.classes

    def in_turn(self, n: int) -> Condition | None:
        """Conditions to show samples of: all classes in turn, or a caption of each.

        Args:
            n: How many.
        """
        if not self.classes:
            return None
        label = torch.arange(n) % self.classes
        if not self.vocabulary:
            return Condition(label=label)
        assert self.train.label is not None, "a class has its label"
        first = [int((self.train.label == k).nonzero()[0]) for k in range(self.classes)]
        return self.train.condition(torch.tensor(first)[label])

    @classmethod
    def of(
        cls,
        source: "AbstractSource",
        *,
        train: Examples,
        held_out: Examples,
        mixture: Mixture | None = None,
        horizontal_flip: bool = False,
        latents: LatentSpace | None = None,
        decoder_file: Path | None = None,
    ) -> Self:
        """The set of a source, with its digest.

        Args:
            source: Where the set comes from; it declares name, shape and labels.
            train: Examples to train on.
            held_out: Examples that no training run sees.
            mixture: The law of the set where it is a mixture of Gaussians.
            horizontal_flip: Whether training may mirror examples left to right.
            latents: The space of the examples where they are latents, or None.
            decoder_file: Where the weights of its decoder lie, or None.
        """
        for part in (train, held_out):
            assert tuple(part.x.shape[1:]) == source.shape, "a source loads the shape it declares"
        digest = hashlib.sha256(json.dumps(list(source.label_names)).encode())
        _update(digest, train)
        _update(digest, held_out)
        if source.vocabulary:
            digest.update(json.dumps(list(source.vocabulary)).encode())
        return cls(
            name=source.name,
            shape=source.shape,
            classes=source.classes,
            label_names=source.label_names,
            vocabulary=source.vocabulary,
            train=train,
            held_out=held_out,
            digest=digest.hexdigest(),
            mixture=mixture,
            horizontal_flip=horizontal_flip,
            latents=latents,
            decoder_file=decoder_file,
        )


def is_image(shape: Sequence[int]) -> bool:
    """Whether an example of this shape is a picture; otherwise it is a point."""
    return len(shape) > 1


class AbstractSource(ABC):
    """Where a data set comes from; subclasses are frozen dataclasses, their fields the settings.

    What a network has to know (shape and classes) is known before any file is read.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the set, which is also the default name of models trained on it."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one example: (2,) for points, (channels, side, side) for images."""

    @property
    @abstractmethod
    def label_names(self) -> tuple[str, ...]:
        """Name of each class, empty for a set without labels."""

    @property
    def classes(self) -> int:
        """Number of classes, 0 for a set without labels."""
        return len(self.label_names)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Words of the captions in the order of their tokens, empty for a set without captions."""
        return ()

    @property
    def told_classes(self) -> int:
        """Classes that a model is told of, 0 where captions tell it."""
        return 0 if self.vocabulary else self.classes

    @abstractmethod
    def load(self) -> Dataset:
        """The set in memory, checked against its checksums.

        Raises:
            DataNotFound: If the data is not where it was looked for.
            DataAltered: If the data is not what was published.
        """
