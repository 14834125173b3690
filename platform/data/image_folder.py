"""A folder of images: one subfolder for each class, or flat and without labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
import torch

from .errors import DataNotFound
from .image import check_size, decode
from .source import AbstractSource, Dataset, Examples
from .split import check_fraction, is_held_out

EXTENSIONS: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})


def list_images(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name.

    Args:
        folder: The folder.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )


@final
@dataclass(frozen=True, kw_only=True)
class ImageFolder(AbstractSource):
    """Images of any size, cut to their central square and resized.

    Which examples are held out depends on the bytes of each file alone, not on its name.

    Attributes:
        folder: The folder, with one subfolder for each class or with the images themselves.
        side: Pixels of a side, at least 1.
        channels: 1 for grey, 3 for red, green, blue.
        held_out_fraction: Expected share of held-out examples, in (0, 1).
        horizontal_flip: Whether training may mirror examples left to right.

    Raises:
        ValueError: If a size or the share of held-out examples is out of range.
    """

    folder: str
    side: int = 32
    channels: int = 3
    held_out_fraction: float = 0.1
    horizontal_flip: bool = False

    def __post_init__(self) -> None:
        check_size(side=self.side, channels=self.channels)
        check_fraction(self.held_out_fraction)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return Path(self.folder).expanduser().resolve().name

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels and pixels."""
        return (self.channels, self.side, self.side)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the subfolders that hold images; none for a flat folder."""
        return tuple(name for name, _ in self.groups() if name)

    def groups(self) -> list[tuple[str, list[Path]]]:
        """The files of each class, by name; one nameless group for a flat folder.

        Raises:
            DataNotFound: If there is no such folder, or there are no images in it.
            ValueError: If there are images both in the folder and in its subfolders.
        """
        root = Path(self.folder).expanduser()
        if not root.is_dir():
            raise DataNotFound(
                f"{root} is no folder; set data.folder to a folder of images, "
                f"or of one folder of images for each class"
            )
        flat = list_images(root)
        folders = sorted(
            path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
        )
        by_class = [(path.name, files) for path in folders if (files := list_images(path))]
        if flat and by_class:
            raise ValueError(
                f"{root} holds images itself and in {by_class[0][0]}/; move them all into one "
                f"folder for each class, or all into one folder"
            )
        if not flat and not by_class:
            raise DataNotFound(
                f"{root} and its folders hold no images; "
                f"allowed are {', '.join(sorted(EXTENSIONS))}"
            )
        return by_class or [("", flat)]

    def load(self) -> Dataset:
        """The set in memory.

        Raises:
            DataNotFound: If the folder or images in it are missing, or all lie on one side of
                the split.
            DataAltered: If a file is no image.
        """
        groups = self.groups()
        pixels, labels, held = [], [], []
        for label, (_, files) in enumerate(groups):
            for file in files:
                content = file.read_bytes()
                pixels.append(
                    decode(content, place=str(file), side=self.side, channels=self.channels)
                )
                labels.append(label)
                held.append(is_held_out([content], self.held_out_fraction))
        x, y, out = torch.from_numpy(np.stack(pixels)), torch.tensor(labels), torch.cat(held)
        if out.all() or not out.any():
            raise DataNotFound(
                f"{self.folder} holds {len(x)} images, of which {int(out.sum())} are held out; "
                f"both sides need some: add images or change held_out_fraction, "
                f"now {self.held_out_fraction}"
            )
        has_labels = bool(groups[0][0])
        return Dataset.of(
            self,
            train=Examples(x=x[~out], label=y[~out] if has_labels else None),
            held_out=Examples(x=x[out], label=y[out] if has_labels else None),
            horizontal_flip=self.horizontal_flip,
        )
