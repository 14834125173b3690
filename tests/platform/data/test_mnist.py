import gzip
import os
import struct
from pathlib import Path

import pytest
import torch

from onestep.platform.data.errors import DataAltered, DataNotFound
from onestep.platform.data.mnist import FashionMnist, Mnist, parse_idx

FOLDER = Path(os.environ.get("ONESTEP_DATA", "/nowhere"))
FILES = [
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
]
sources = pytest.mark.parametrize(
    ("source", "layout"), [(Mnist, "mnist"), (FashionMnist, "fashion-mnist")]
)


def is_there(layout: str) -> bool:
    return (FOLDER / layout / FILES[0]).is_file()


@sources
def test_the_original_files_load(source: type[Mnist | FashionMnist], layout: str) -> None:
    if not is_there(layout):
        pytest.skip(f"needs ONESTEP_DATA with {layout}/{FILES[0]}")
    data = source(folder=str(FOLDER), horizontal_flip=True).load()
    assert (len(data.train), len(data.held_out)) == (60_000, 10_000)
    x, label = data.held_out.take(torch.arange(1000))
    assert x.shape == (1000, *data.shape) == (1000, 1, 28, 28)
    assert (x.min(), x.max()) == (-1.0, 1.0)
    assert label is not None
    assert label.unique().tolist() == list(range(data.classes))
    assert data.horizontal_flip


@sources
def test_missing_files_are_one_sentence(
    source: type[Mnist | FashionMnist], layout: str, tmp_path: Path
) -> None:
    with pytest.raises(DataNotFound, match=rf"holds {layout}/train-images.*data\.download=true"):
        source(folder=str(tmp_path)).load()


@sources
def test_altered_files_are_refused(
    source: type[Mnist | FashionMnist], layout: str, tmp_path: Path
) -> None:
    (tmp_path / layout).mkdir()
    for name in FILES:
        (tmp_path / layout / name).write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataAltered, match=r"train-images-idx3-ubyte\.gz has .* bytes with sha256"):
        source(folder=str(tmp_path)).load()


def test_an_idx_file_is_an_array_with_its_shape() -> None:
    header = struct.pack(">HBBIII", 0, 8, 3, 2, 3, 4)
    array = parse_idx(gzip.compress(header + bytes(range(24))))
    assert torch.equal(array, torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4))


def test_the_sets_have_ten_classes_before_any_file_is_read() -> None:
    assert Mnist().label_names == tuple("0123456789")
    assert FashionMnist().classes == 10
