import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onestep.platform.data.hugging_face import HuggingFace
from onestep.platform.data.image_folder import ImageFolder
from onestep.platform.data.stream import (
    StreamedBatch,
    batches,
    shards,
    stream_train,
)
from onestep.platform.ray_instance import ray_instance


@pytest.fixture
def source(tmp_path: Path) -> ImageFolder:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(30):
            pixels = rng.integers(256, size=(8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return ImageFolder(folder=str(tmp_path), side=8, channels=1, held_out_fraction=0.2)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    before = dict(os.environ)
    with ray_instance():
        yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.ray
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("ray")
def test_two_workers_share_the_training_examples_and_see_no_held_out_one(
    source: ImageFolder,
) -> None:
    memory = source.load()
    expected = {x.numpy().tobytes(): None for x in memory.train.everything()[0]}

    def read(shard: object, seed: int) -> list[StreamedBatch]:
        return list(batches(shard, 4, shuffle_buffer=8, seed=seed))  # type: ignore[arg-type]

    with ThreadPoolExecutor(2) as threads:
        seen = list(threads.map(read, shards(stream_train(source), 2), (0, 1)))
    rows = [batch for worker in seen for batch in worker]
    index = torch.cat([batch["index"] for batch in rows]).tolist()
    assert all(batch["x"].shape == (4, 1, 8, 8) for batch in rows)
    assert len(index) == len(set(index)), "an example was seen twice"
    # Each worker drops at most a batch less one, and equal shares at most one row.
    assert len(memory.train) - 7 <= len(index) <= len(memory.train)
    assert all(x.numpy().tobytes() in expected for batch in rows for x in batch["x"])
    # Files are numbered class by class.
    label = torch.cat([batch["label"] for batch in rows])
    assert torch.equal(label, (torch.tensor(index) >= 30).long())


@pytest.mark.ray
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("ray")
def test_a_hub_set_streams_the_examples_that_it_loads(
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
    memory = hub.load()
    part, rows = memory.train, stream_train(hub).take_all()
    assert part.label is not None
    expected = sorted(
        (x.numpy().tobytes(), int(y)) for x, y in zip(part.x, part.label, strict=True)
    )
    assert sorted((row["x"].tobytes(), row["label"]) for row in rows) == expected


def test_a_buffer_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size must be in \[1, 4\], the shuffle_buffer"):
        next(batches(None, 8, shuffle_buffer=4, seed=0))  # type: ignore[arg-type]


def test_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        shards(None, 0)  # type: ignore[arg-type]
