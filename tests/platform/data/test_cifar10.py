import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from onestep.platform.data.cifar10 import ArrayUnpickler, Cifar10, unpack
from onestep.platform.data.errors import DataAltered, DataNotFound

FOLDER = Path(os.environ.get("ONESTEP_DATA", "/nowhere"))
BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


def archive_of(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.skipif(
    not (FOLDER / "cifar-10-batches-py" / "test_batch").is_file(),
    reason="needs ONESTEP_DATA with cifar-10-batches-py/test_batch",
)
def test_the_original_batches_load() -> None:
    data = Cifar10(folder=str(FOLDER)).load()
    assert (len(data.train), len(data.held_out)) == (50_000, 10_000)
    assert data.train.label is not None
    assert data.train.label.bincount().tolist() == [5000] * 10
    x, label = data.held_out.take(slice(0, 1))
    assert label is not None
    assert data.label_names[int(label)] == "cat"  # the first image of the official test set
    assert x.shape == (1, 3, 32, 32)


def test_missing_batches_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"data_batch_1 was looked for .*data\.download=true"):
        Cifar10(folder=str(tmp_path)).load()


def test_altered_batches_are_refused_before_they_are_unpickled(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in BATCHES:
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(DataAltered, match=r"data_batch_1 has .* bytes with sha256"):
        Cifar10(folder=str(tmp_path)).load()


def test_an_altered_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"other")
    with pytest.raises(DataAltered, match=r"cifar-10-python\.tar\.gz has 5 bytes with sha256"):
        Cifar10(folder=str(tmp_path)).load()


def test_members_of_an_archive_are_checked_and_read() -> None:
    archive = archive_of({"cifar-10-batches-py/a": b"first", "cifar-10-batches-py/b": b"second"})
    sha256 = hashlib.sha256(b"first").hexdigest()
    assert unpack(archive, {"a": sha256}) == {"a": b"first"}
    with pytest.raises(DataAltered, match="cifar-10-batches-py/b has 6 bytes"):
        unpack(archive, {"b": sha256})
    with pytest.raises(DataAltered, match="no member cifar-10-batches-py/c"):
        unpack(archive, {"c": sha256})


def test_a_pickle_of_arrays_and_lists_is_read() -> None:
    content = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2]}
    got = ArrayUnpickler(io.BytesIO(pickle.dumps(content, protocol=4))).load()
    assert (got["data"] == content["data"]).all()
    assert got["labels"] == [1, 2]


def test_a_pickle_that_calls_anything_else_is_refused() -> None:
    with pytest.raises(DataAltered, match=r"asks for posix\.system, but only NumPy arrays"):
        ArrayUnpickler(io.BytesIO(pickle.dumps(Malicious()))).load()
