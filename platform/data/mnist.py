"""MNIST and Fashion-MNIST from their four original files, in the IDX format."""

import gzip
import struct
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from .published import PublishedFile, data_folder, provide, read
from .source import AbstractSource, Dataset, Examples

_UINT8: Final = 8
_TRAIN: Final = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
_TEST: Final = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


@final
@dataclass(frozen=True, kw_only=True)
class Published:
    """The published files of a set.

    Attributes:
        address: URL of the folder that has them.
        layouts: Folders that a copy of them lies in.
        sha256: Digest of each file by its name.
    """

    address: str
    layouts: tuple[str, ...]
    sha256: Mapping[str, str]


_MNIST: Final = Published(
    address="https://ossci-datasets.s3.amazonaws.com/mnist/",
    layouts=("mnist", "MNIST/raw"),
    sha256={
        _TRAIN[0]: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        _TRAIN[1]: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        _TEST[0]: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        _TEST[1]: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
)
_FASHION: Final = Published(
    address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    layouts=("fashion-mnist", "FashionMNIST/raw"),
    sha256={
        _TRAIN[0]: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        _TRAIN[1]: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        _TEST[0]: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        _TEST[1]: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
)


@dataclass(frozen=True, kw_only=True)
class AbstractIdx(AbstractSource):
    """A set of 60000 + 10000 images of 28 x 28 pixels; the official test set is held out.

    Attributes:
        folder: Folder that holds one of the set's layouts; None takes ONESTEP_DATA.
        download: Whether missing files may be downloaded.
        horizontal_flip: Whether training may mirror examples left to right.
    """

    folder: str | None = None
    download: bool = False
    horizontal_flip: bool = False

    @property
    @abstractmethod
    def published(self) -> Published:
        """Where the files are and what is in them."""

    @property
    @final
    def shape(self) -> tuple[int, ...]:
        """One channel of 28 x 28 pixels."""
        return (1, 28, 28)

    @final
    def load(self) -> Dataset:
        """The set in memory, checked against its checksums.

        Raises:
            DataNotFound: If a file is missing and not to be downloaded.
            DataAltered: If a file is not the published one.
        """
        files = _read(self.published, data_folder(self.folder), download=self.download)
        return Dataset.of(
            self,
            train=_examples(files[_TRAIN[0]], files[_TRAIN[1]]),
            held_out=_examples(files[_TEST[0]], files[_TEST[1]]),
            horizontal_flip=self.horizontal_flip,
        )


@final
@dataclass(frozen=True, kw_only=True)
class Mnist(AbstractIdx):
    """Handwritten digits, from a folder that holds mnist/ or MNIST/raw/.

    Reference: LeCun, Cortes and Burges 1998, The MNIST database of handwritten digits.
    """

    @property
    def name(self) -> str:
        """Name of the set."""
        return "mnist"

    @property
    def published(self) -> Published:
        """The four files of MNIST."""
        return _MNIST

    @property
    def label_names(self) -> tuple[str, ...]:
        """The ten numerals."""
        return tuple("0123456789")


@final
@dataclass(frozen=True, kw_only=True)
class FashionMnist(AbstractIdx):
    """Pieces of clothing, from a folder that holds fashion-mnist/ or FashionMNIST/raw/.

    Reference: Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747v2.
    """

    @property
    def name(self) -> str:
        """Name of the set."""
        return "fashion_mnist"

    @property
    def published(self) -> Published:
        """The four files of Fashion-MNIST."""
        return _FASHION

    @property
    def label_names(self) -> tuple[str, ...]:
        """The ten kinds of clothing, in the words of the authors."""
        return (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        )


def _read(published: Published, folder: Path, *, download: bool) -> dict[str, bytes]:
    """The checked bytes of the four files; all are found before the first is read."""
    paths = {
        name: provide(
            PublishedFile(name=name, sha256=sha256, address=published.address + name),
            folder,
            published.layouts,
            download=download,
        )
        for name, sha256 in published.sha256.items()
    }
    return {name: read(path, sha256=published.sha256[name]) for name, path in paths.items()}


def parse_idx(compressed: bytes) -> UInt8[Tensor, "..."]:
    """The array of a compressed IDX file of bytes.

    Args:
        compressed: The file, which is known to be the published one.
    """
    content = gzip.decompress(compressed)
    zero, kind, dimensions = struct.unpack(">HBB", content[:4])
    assert (zero, kind) == (0, _UINT8), "a published file is an IDX file of bytes"
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def _examples(images: bytes, labels: bytes) -> Examples:
    return Examples(x=parse_idx(images)[:, None], label=parse_idx(labels).long())
