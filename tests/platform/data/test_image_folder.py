from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onestep.platform.data.errors import DataAltered, DataNotFound
from onestep.platform.data.image_folder import ImageFolder


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for number in range(20):
            pixels = rng.integers(256, size=(12, 8, 3), dtype=np.uint8)
            save(tmp_path / "pets" / name / f"{number}.png", pixels)
    return tmp_path / "pets"


def test_subfolders_are_classes(classes: Path) -> None:
    source = ImageFolder(folder=str(classes), side=8, held_out_fraction=0.3)
    data = source.load()
    assert (data.name, data.label_names, data.shape) == ("pets", ("cat", "dog"), (3, 8, 8))
    assert len(data.train) + len(data.held_out) == 40
    assert data.train.x.dtype == torch.uint8
    assert data.train.label is not None
    assert data.train.label.unique().tolist() == [0, 1]


def test_a_flat_folder_has_no_labels(classes: Path) -> None:
    data = ImageFolder(folder=str(classes / "cat"), side=8, held_out_fraction=0.3).load()
    assert data.classes == 0
    assert data.train.label is None


def test_the_split_does_not_depend_on_names(classes: Path) -> None:
    source = ImageFolder(folder=str(classes), side=8, held_out_fraction=0.3)
    before = source.load()
    for path in classes.glob("*/*.png"):
        path.rename(path.with_name(f"{99 - int(path.stem)}.png"))
    after = source.load()
    sides = [{x.numpy().tobytes() for x in data.held_out.x} for data in (before, after)]
    assert sides[0] == sides[1]
    assert before.digest != after.digest


def test_the_central_square_is_kept_at_its_own_size(tmp_path: Path) -> None:
    pixels = np.arange(12 * 8 * 3, dtype=np.uint8).reshape(12, 8, 3)
    for number in range(20):
        save(tmp_path / f"{number}.png", pixels + number)
    data = ImageFolder(folder=str(tmp_path), side=8, held_out_fraction=0.5).load()
    first = min(data.train.x.tolist() + data.held_out.x.tolist(), key=lambda x: x[0][0][0])
    assert np.array_equal(np.array(first), pixels[2:10].transpose(2, 0, 1))


def test_an_even_image_keeps_its_grey_at_any_size(tmp_path: Path) -> None:
    for number in range(20):
        save(tmp_path / f"{number}.png", np.full((30, 50), 10 * number, np.uint8))
    data = ImageFolder(folder=str(tmp_path), side=16, channels=1, held_out_fraction=0.5).load()
    everything = torch.cat([data.train.x, data.held_out.x]).flatten(1)
    assert everything.shape == (20, 256)
    assert torch.equal(everything.amin(1), everything.amax(1))
    assert sorted(everything[:, 0].tolist()) == [10 * number for number in range(20)]


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"none is no folder; set data\.folder"):
        ImageFolder(folder=str(tmp_path / "none")).load()


def test_a_folder_without_images_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataNotFound, match=r"hold no images; allowed are \.bmp, \.gif"):
        ImageFolder(folder=str(tmp_path)).load()


def test_images_both_flat_and_in_folders_are_refused(classes: Path) -> None:
    save(classes / "stray.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="holds images itself and in cat/"):
        ImageFolder(folder=str(classes)).load()


def test_a_truncated_image_is_refused_by_name(classes: Path) -> None:
    path = classes / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataAltered, match=r"cat/3\.png cannot be read as an image"):
        ImageFolder(folder=str(classes)).load()


def test_sixteen_bits_are_refused_and_not_clipped(tmp_path: Path) -> None:
    save(tmp_path / "deep.png", np.full((8, 8), 1000, np.uint16))
    with pytest.raises(DataAltered, match="only images of 8 bits a channel"):
        ImageFolder(folder=str(tmp_path)).load()


def test_a_split_with_an_empty_side_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "single.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(DataNotFound, match=r"holds 1 images, .* both sides need some"):
        ImageFolder(folder=str(tmp_path)).load()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("side", 0, "side must be at least 1 pixel, got 0"),
        ("channels", 4, r"channels must be 1 .* or 3 .*, got 4"),
        ("held_out_fraction", 1.0, r"held_out_fraction must be in \(0, 1\), got 1.0"),
    ],
)
def test_sizes_out_of_range_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolder(**{"folder": ".", field: value})  # type: ignore[arg-type]
