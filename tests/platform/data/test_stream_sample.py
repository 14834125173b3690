from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onestep.platform.data import stream_sample
from onestep.platform.data.errors import DataNotFound
from onestep.platform.data.hugging_face import HuggingFace
from onestep.platform.data.image_folder import ImageFolder
from onestep.platform.data.source import Examples
from onestep.platform.data.stream_sample import check_fills, load


@pytest.fixture
def source(tmp_path: Path) -> ImageFolder:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(30):
            pixels = rng.integers(256, size=(8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return ImageFolder(folder=str(tmp_path), side=8, channels=1, held_out_fraction=0.2)


def content(examples: Examples) -> list[tuple[bytes, int]]:
    assert examples.label is not None
    return sorted(
        (x.numpy().tobytes(), int(y)) for x, y in zip(examples.x, examples.label, strict=True)
    )


def test_a_small_folder_is_kept_whole(source: ImageFolder) -> None:
    kept, memory = load(source, stream=True), source.load()
    assert content(kept.train) == content(memory.train)
    assert content(kept.held_out) == content(memory.held_out)
    assert (kept.shape, kept.label_names) == (memory.shape, memory.label_names)


def test_no_more_is_decoded_than_is_kept(
    source: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is no image, and whose digest comes last, is never looked into."""
    monkeypatch.setattr(stream_sample, "SAMPLED", 5)
    before = load(source, stream=True)
    assert (len(before.train), len(before.held_out)) == (5, 5)
    # This text is among the last: its sha256 begins with ff.
    late = next(
        t for k in range(10_000) if stream_sample.hashlib.sha256(t := b"%d" % k).digest()[0] == 255
    )
    (Path(source.folder) / "cat" / "late.png").write_bytes(late)
    after = load(source, stream=True)
    assert torch.equal(after.train.x, before.train.x)
    assert after.digest != before.digest, "the digest is of all files"


def test_names_and_order_change_nothing_and_a_label_does(source: ImageFolder) -> None:
    before = load(source, stream=True)
    cat = Path(source.folder) / "cat"
    (cat / "0.png").rename(cat / "zz.png")
    renamed = load(source, stream=True)
    assert renamed.digest == before.digest
    assert torch.equal(renamed.train.x, before.train.x)
    (cat / "zz.png").rename(cat.parent / "dog" / "zz.png")
    assert load(source, stream=True).digest != before.digest


def test_a_hub_set_is_kept_as_it_is_streamed(
    source: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets", reason="needs the extra hub")
    monkeypatch.setenv("HF_HOME", str(Path(source.folder) / ".cache"))
    hub = HuggingFace(
        path=source.folder,
        side=8,
        channels=1,
        held_out_fraction=0.2,
        label_column="label",
        label_names=("cat", "dog"),
    )
    kept, memory = load(hub, stream=True), hub.load()
    assert content(kept.train) == content(memory.train)
    assert content(kept.held_out) == content(memory.held_out)


def test_images_on_one_side_of_the_split_are_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "0.png")
    with pytest.raises(DataNotFound, match="1 images, of which all lie on one side"):
        load(ImageFolder(folder=str(tmp_path), side=8, channels=1), stream=True)


def test_a_stream_that_never_fills_a_batch_is_refused(source: ImageFolder) -> None:
    kept = load(source, stream=True)
    n = len(kept.train)
    check_fills(source, kept, n)
    with pytest.raises(ValueError, match=rf"batch_size must be in \[1, {n}\].*, got {n + 1}"):
        check_fills(source, kept, n + 1)


def test_a_batch_larger_than_the_sample_is_held_against_the_whole_set(
    source: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_sample, "SAMPLED", 5)
    kept, n = load(source, stream=True), len(source.load().train)
    assert len(kept.train) == 5
    check_fills(source, kept, n)
    with pytest.raises(ValueError, match=rf"batch_size must be in \[1, {n}\].*, got {n + 1}"):
        check_fills(source, kept, n + 1)
