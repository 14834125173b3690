import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onestep.platform.data.errors import DataAltered, DataNotFound
from onestep.platform.data.hugging_face import HuggingFace

has_package = importlib.util.find_spec("datasets") is not None
needs_package = pytest.mark.skipif(not has_package, reason="needs the extra hub")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            place = tmp_path / "pets" / split / name
            place.mkdir(parents=True)
            for number in range(10):
                pixels = rng.integers(256, size=(12, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "pets"


@pytest.mark.skipif(has_package, reason="the extra hub is installed")
def test_a_missing_package_is_one_sentence() -> None:
    with pytest.raises(DataNotFound, match=r"No module named 'datasets'\); install it with pip"):
        HuggingFace(path="owner/name").load()


@needs_package
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_named_splits_become_train_and_held_out(folder: Path) -> None:
    source = HuggingFace(
        path=str(folder),
        held_out_split="test",
        label_column="label",
        label_names=("cat", "dog"),
        side=8,
    )
    data = source.load()
    assert (data.name, data.shape, len(data.train), len(data.held_out)) == (
        "pets",
        (3, 8, 8),
        20,
        20,
    )
    assert data.train.label is not None
    assert data.train.label.bincount().tolist() == [10, 10]


@needs_package
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_without_a_named_split_a_share_is_held_out(folder: Path) -> None:
    data = HuggingFace(path=str(folder), side=8, held_out_fraction=0.4).load()
    assert len(data.train) + len(data.held_out) == 20
    assert data.train.label is None


@needs_package
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_missing_split_is_one_sentence(folder: Path) -> None:
    with pytest.raises(DataNotFound, match=r"split none of .*pets at revision main cannot be"):
        HuggingFace(path=str(folder), split="none").load()


def test_a_row_without_the_image_column_names_the_columns() -> None:
    with pytest.raises(DataNotFound, match="name has no column image; it has picture, label"):
        HuggingFace(path="owner/name").pixels({"picture": None, "label": 1}, 0)


def test_a_column_of_something_else_is_refused() -> None:
    with pytest.raises(DataAltered, match="row 3 of owner/name has str in column image"):
        HuggingFace(path="owner/name").pixels({"image": "text"}, 3)


@pytest.mark.parametrize("label", [2, -1, "cat", None])
def test_a_label_outside_the_classes_is_refused(label: object) -> None:
    source = HuggingFace(path="owner/name", label_column="label", label_names=("cat", "dog"))
    assert source.label({"label": 1}, 0) == 1
    with pytest.raises(DataAltered, match=r"allowed are integers in \[0, 2\)"):
        source.label({"label": label}, 0)


def test_names_and_column_of_the_labels_come_together() -> None:
    with pytest.raises(ValueError, match="must be given together or not at all"):
        HuggingFace(path="owner/name", label_column="label")
    with pytest.raises(ValueError, match="must be given together or not at all"):
        HuggingFace(path="owner/name", label_names=("cat",))
