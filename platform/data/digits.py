"""The handwritten digits that come with scikit-learn: real images that need no download."""

import hashlib
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from sklearn.datasets import load_digits

from .errors import DataAltered
from .source import AbstractSource, Dataset, Examples
from .split import check_fraction, is_held_out

_WHITE: Final = 16
_SHA256: Final = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


@final
@dataclass(frozen=True, kw_only=True)
class Digits(AbstractSource):
    """1797 handwritten digits of 8 x 8 pixels with grey levels 0..16.

    Reference: E. Alpaydin and C. Kaynak 1998, Optical Recognition of Handwritten Digits, UCI.

    Attributes:
        held_out_fraction: Expected share of held-out examples, in (0, 1).
        horizontal_flip: Whether training may mirror examples left to right.

    Raises:
        ValueError: If the share of held-out examples is outside (0, 1).
    """

    held_out_fraction: float = 0.25
    horizontal_flip: bool = False

    def __post_init__(self) -> None:
        check_fraction(self.held_out_fraction)

    @property
    def name(self) -> str:
        """Name of the set."""
        return "digits"

    @property
    def shape(self) -> tuple[int, ...]:
        """One channel of 8 x 8 pixels."""
        return (1, 8, 8)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The ten numerals."""
        return tuple("0123456789")

    def load(self) -> Dataset:
        """The set in memory, checked against its checksum.

        Raises:
            DataAltered: If the installed scikit-learn ships other digits.
        """
        published = load_digits()
        image = published.images.astype(np.uint8)
        label = published.target.astype(np.int64)
        check(image, label.astype(np.uint8))
        held_out = is_held_out([example.tobytes() for example in image], self.held_out_fraction)
        x, labels = torch.from_numpy(image)[:, None], torch.from_numpy(label)
        return Dataset.of(
            self,
            train=Examples(x=x[~held_out], label=labels[~held_out], white=_WHITE),
            held_out=Examples(x=x[held_out], label=labels[held_out], white=_WHITE),
            horizontal_flip=self.horizontal_flip,
        )


def check(image: np.ndarray, label: np.ndarray) -> None:
    """Refuse digits that are not the published ones.

    Args:
        image: Grey levels as uint8, shape [n, 8, 8].
        label: Classes as uint8, shape [n].

    Raises:
        DataAltered: If their bytes have another checksum.
    """
    got = hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()
    if got != _SHA256:
        raise DataAltered(
            f"the digits of the installed scikit-learn have sha256 {got}, "
            f"but the published ones have {_SHA256}; install scikit-learn again"
        )
