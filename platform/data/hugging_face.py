"""A data set of the Hugging Face hub by its name, read through the optional package datasets."""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from PIL import Image

from .errors import DataAltered, DataNotFound
from .image import check_size, to_pixels
from .source import AbstractSource, Dataset, Examples
from .split import check_fraction, is_held_out

Rows = Iterable[Mapping[str, Any]]


@final
@dataclass(frozen=True, kw_only=True)
class HuggingFace(AbstractSource):
    """Images and labels of two columns of a hub data set.

    The package ``datasets`` downloads, caches and verifies the files. Pixels are cut to their
    central square and resized. Held out is the split that is named, else a share of the examples
    by the digest of their pixels.

    Attributes:
        path: Name on the hub, such as "owner/name".
        revision: Branch, tag or commit; a commit makes the set reproducible.
        split: Split to train on.
        held_out_split: Split to hold out; None takes a share of the training split.
        held_out_fraction: Expected share of held-out examples where no split is named, in (0, 1).
        image_column: Column with the images.
        label_column: Column with the classes as integers; None for a set without labels.
        label_names: Name of each class, as many as there are; empty for a set without labels.
        side: Pixels of a side, at least 1.
        channels: 1 for grey, 3 for red, green, blue.
        horizontal_flip: Whether training may mirror examples left to right.

    Raises:
        ValueError: If a size or share is out of range, or names and column of the labels do not
            come together.
    """

    path: str
    revision: str = "main"
    split: str = "train"
    held_out_split: str | None = None
    held_out_fraction: float = 0.1
    image_column: str = "image"
    label_column: str | None = None
    label_names: tuple[str, ...] = ()
    side: int = 32
    channels: int = 3
    horizontal_flip: bool = False

    def __post_init__(self) -> None:
        check_size(side=self.side, channels=self.channels)
        check_fraction(self.held_out_fraction)
        # A configuration gives a list.
        object.__setattr__(self, "label_names", tuple(self.label_names))
        if (self.label_column is None) != (not self.label_names):
            raise ValueError(
                f"label_column and label_names must be given together or not at all, "
                f"got {self.label_column} and {len(self.label_names)} names"
            )

    @property
    def name(self) -> str:
        """Name on the hub, without its owner."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels and pixels."""
        return (self.channels, self.side, self.side)

    def load(self) -> Dataset:
        """The set in memory.

        Raises:
            DataNotFound: If the package, the data set, a split or a column is missing.
            DataAltered: If a row holds no image or a label outside the classes.
        """
        train = self._examples(self.rows(self.split))
        if self.held_out_split is not None:
            held_out = self._examples(self.rows(self.held_out_split))
        else:
            train, held_out = self._cut(train)
        return Dataset.of(
            self, train=train, held_out=held_out, horizontal_flip=self.horizontal_flip
        )

    def rows(self, split: str) -> Rows:
        """The rows of a split as ``datasets`` reads them, with decoded images.

        Args:
            split: Name of the split.

        Raises:
            DataNotFound: If the package, the data set or the split is missing.
        """
        rows: Rows = self._table(split)
        return rows

    def encoded_rows(self, split: str) -> Any:
        """The table of a split with images as bytes and a column ``index``, for streaming.

        Args:
            split: Name of the split.

        Raises:
            DataNotFound: If the package, the data set, the split or a column is missing.
        """
        table = self._table(split)
        datasets = importlib.import_module("datasets")
        for column in (self.image_column, self.label_column):
            if column is not None and column not in table.column_names:
                raise DataNotFound(
                    f"{self.path} has no column {column}; it has {', '.join(table.column_names)}"
                )
        encoded = table.cast_column(self.image_column, datasets.Image(decode=False))
        return encoded.add_column("index", np.arange(len(table)))

    def _table(self, split: str) -> Any:
        try:
            datasets = importlib.import_module("datasets")
        except ModuleNotFoundError as e:
            raise DataNotFound(
                f"reading {self.path} from the Hugging Face hub needs the package datasets, which "
                f"cannot be imported ({e}); install it with pip install 'onestep[hub]'"
            ) from e
        try:
            return datasets.load_dataset(self.path, split=split, revision=self.revision)
        except (OSError, ValueError) as e:  # what datasets and its hub client raise is one of these
            raise DataNotFound(
                f"split {split} of {self.path} at revision {self.revision} cannot be loaded ({e})"
            ) from e

    def _examples(self, rows: Rows) -> Examples:
        pixels, labels = [], []
        for number, row in enumerate(rows):
            pixels.append(self.pixels(row, number))
            labels.append(self.label(row, number))
        if not pixels:
            raise DataNotFound(f"a split of {self.path} has no rows; choose another one")
        return Examples(
            x=torch.from_numpy(np.stack(pixels)),
            label=None if self.label_column is None else torch.tensor(labels),
        )

    def _column(self, row: Mapping[str, Any], column: str) -> Any:
        if column not in row:
            raise DataNotFound(f"{self.path} has no column {column}; it has {', '.join(row)}")
        return row[column]

    def pixels(self, row: Mapping[str, Any], number: int) -> np.ndarray:
        """Pixels of a row, shape [channels, side, side].

        Args:
            row: The row.
            number: Its number, for the message.

        Raises:
            DataAltered: If its column holds no image.
        """
        image = self._column(row, self.image_column)
        if not isinstance(image, Image.Image):
            raise DataAltered(
                f"row {number} of {self.path} has {type(image).__name__} in column "
                f"{self.image_column}, not an image; set data.image_column"
            )
        return to_pixels(image, side=self.side, channels=self.channels)

    def decode(self, row: Mapping[str, Any], number: int) -> np.ndarray:
        """Pixels of a row of ``encoded_rows``, shape [channels, side, side].

        Args:
            row: The row.
            number: Its number, for the message.

        Raises:
            DataAltered: If its column holds no image, or one that is cut short or too deep.
        """
        datasets = importlib.import_module("datasets")
        try:
            image = datasets.Image().decode_example(row[self.image_column])
            return self.pixels({self.image_column: image}, number)
        except (OSError, SyntaxError, ValueError) as e:
            raise DataAltered(
                f"row {number} of {self.path} cannot be read as an image ({e})"
            ) from e

    def label(self, row: Mapping[str, Any], number: int) -> int:
        """Class of a row, 0 for a set without labels.

        Args:
            row: The row.
            number: Its number, for the message.

        Raises:
            DataAltered: If the label is no class of the set.
        """
        if self.label_column is None:
            return 0
        label = self._column(row, self.label_column)
        if not isinstance(label, int | np.integer) or not 0 <= label < self.classes:
            raise DataAltered(
                f"row {number} of {self.path} has label {label!r}, but label_names has "
                f"{self.classes} classes; allowed are integers in [0, {self.classes})"
            )
        return int(label)

    def _cut(self, examples: Examples) -> tuple[Examples, Examples]:
        held = is_held_out([x.numpy().tobytes() for x in examples.x], self.held_out_fraction)
        if held.all() or not held.any():
            raise DataNotFound(
                f"{self.path} has {len(held)} rows, of which {int(held.sum())} are held out; both "
                f"sides need some: change held_out_fraction, now {self.held_out_fraction}, "
                f"or name held_out_split"
            )
        parts = [
            Examples(
                x=examples.x[rows], label=None if examples.label is None else examples.label[rows]
            )
            for rows in (~held, held)
        ]
        return parts[0], parts[1]
