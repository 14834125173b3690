"""CIFAR-10 from its original batches, which are pickles and are read as carefully as that asks."""

import io
import pickle
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast, final

import numpy as np
import torch

from .errors import DataAltered, DataNotFound
from .published import PublishedFile, check, data_folder, find, provide, read
from .source import AbstractSource, Dataset, Examples

_FOLDER: Final = "cifar-10-batches-py"
_ARCHIVE: Final = PublishedFile(
    name="cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    address="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
_TRAIN_SHA256: Final = {
    "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
}
_TEST_SHA256: Final = {
    "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
}
_CLASSES: Final = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@final
@dataclass(frozen=True, kw_only=True)
class Cifar10(AbstractSource):
    """50000 + 10000 photographs of 32 x 32 pixels; the official test set is held out.

    Reference: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.

    Attributes:
        folder: Folder that holds cifar-10-batches-py/ or cifar-10-python.tar.gz; None takes
            ONESTEP_DATA.
        download: Whether the archive may be downloaded.
        horizontal_flip: Whether training may mirror examples left to right.
        labelled: Whether the classes are seen; most published figures are of models without.
    """

    folder: str | None = None
    download: bool = False
    horizontal_flip: bool = False
    labelled: bool = True

    @property
    def name(self) -> str:
        """Name of the set."""
        return "cifar10"

    @property
    def shape(self) -> tuple[int, ...]:
        """Three channels (red, green, blue) of 32 x 32 pixels."""
        return (3, 32, 32)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The ten classes, in the words of the authors; none where they are not seen."""
        return _CLASSES if self.labelled else ()

    def load(self) -> Dataset:
        """The set in memory, checked against its checksums.

        Raises:
            DataNotFound: If batches or archive are missing and not to be downloaded.
            DataAltered: If a file is not the published one.
        """
        batches = self._batches()
        return Dataset.of(
            self,
            train=_examples([batches[name] for name in _TRAIN_SHA256], labelled=self.labelled),
            held_out=_examples([batches[name] for name in _TEST_SHA256], labelled=self.labelled),
            horizontal_flip=self.horizontal_flip,
        )

    def _batches(self) -> dict[str, bytes]:
        """The checked bytes of each batch, from the unpacked folder or from the archive."""
        folder = data_folder(self.folder)
        sha256 = _TRAIN_SHA256 | _TEST_SHA256
        unpacked = {name: find(name, folder, (_FOLDER,)) for name in sha256}
        paths = {name: path for name, path in unpacked.items() if path is not None}
        if len(paths) == len(sha256):
            return {name: read(path, sha256=sha256[name]) for name, path in paths.items()}
        try:
            archive = provide(_ARCHIVE, folder, (".",), download=self.download)
        except DataNotFound as e:
            if self.download:
                raise
            missing = sorted(set(sha256) - set(paths))
            raise DataNotFound(
                f"{missing[0]} was looked for in {folder / _FOLDER} and in "
                f"{folder / _ARCHIVE.name} and is not there; set ONESTEP_DATA to a folder that "
                f"holds {_FOLDER}/{missing[0]} or {_ARCHIVE.name}, or let onestep download it "
                f"with data.download=true"
            ) from e
        return unpack(read(archive, sha256=_ARCHIVE.sha256), sha256)


def unpack(archive: bytes, sha256_by_name: Mapping[str, str]) -> dict[str, bytes]:
    """The checked members of a compressed archive, read in memory: nothing is extracted to disk.

    Args:
        archive: Bytes of the archive.
        sha256_by_name: Checksum of each member that is wanted.

    Raises:
        DataAltered: If a member is missing or another one.
    """
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for name, sha256 in sha256_by_name.items():
            place = f"{_FOLDER}/{name}"
            file = tar.extractfile(place) if place in tar.getnames() else None
            if file is None:
                raise DataAltered(f"{_ARCHIVE.name} has no member {place}; download it again")
            members[name] = file.read()
            check(members[name], f"{_ARCHIVE.name}:{place}", sha256=sha256)
    return members


@final
class ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle of numbers, texts and NumPy arrays; anything else that it names is refused.

    Args:
        file: The open pickle.

    Raises:
        DataAltered: If the pickle asks for anything but the parts of an array.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="latin1")  # written by Python 2
        # The function that rebuilds arrays has moved between versions of NumPy.
        rebuild = cast(Callable[..., object], np.empty(0).__reduce__()[0])
        self._allowed: dict[tuple[str, str], Callable[..., object]] = {
            ("numpy.core.multiarray", "_reconstruct"): rebuild,
            ("numpy._core.multiarray", "_reconstruct"): rebuild,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }

    def find_class(self, module_name: str, global_name: str) -> Callable[..., object]:
        """The part of an array that has this name.

        Args:
            module_name: Module that the pickle names.
            global_name: Name inside it.

        Raises:
            DataAltered: If it is no part of an array.
        """
        if (module_name, global_name) not in self._allowed:
            raise DataAltered(
                f"a CIFAR-10 batch asks for {module_name}.{global_name}, but only NumPy arrays "
                f"are allowed; remove the file"
            )
        return self._allowed[module_name, global_name]


def _examples(batches: list[bytes], *, labelled: bool) -> Examples:
    contents = [cast(Mapping[str, object], ArrayUnpickler(io.BytesIO(b)).load()) for b in batches]
    pixels = np.concatenate([np.asarray(content["data"], np.uint8) for content in contents])
    labels = np.concatenate([np.asarray(content["labels"], np.int64) for content in contents])
    return Examples(
        x=torch.from_numpy(pixels.reshape(-1, 3, 32, 32)),
        label=torch.from_numpy(labels) if labelled else None,
    )
