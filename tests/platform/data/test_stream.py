import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import ray.train
import torch
from PIL import Image
from ray.train.torch import TorchTrainer

from onestep.platform.data.hugging_face import HuggingFace
from onestep.platform.data.image_folder import ImageFolder
from onestep.platform.data.stream import (
    StreamedBatch,
    batches,
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
def instance() -> Iterator[None]:
    before = dict(os.environ)
    with ray_instance(num_cpus=3):  # two workers, and one that reads for them
        yield
    os.environ.clear()
    os.environ.update(before)


def read(config: dict[str, str]) -> None:
    """Keep two epochs of the shard that Ray Train has handed to this worker."""
    rank = ray.train.get_context().get_world_rank()
    shard = ray.train.get_dataset_shard("train")
    epochs = [list(batches(shard, 4, shuffle_buffer=8, seed=10 * epoch + rank)) for epoch in (0, 1)]
    torch.save(epochs, f"{config['folder']}/{rank}.pt")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("instance")
def test_two_workers_share_the_training_examples_and_see_no_held_out_one(
    source: ImageFolder, tmp_path: Path
) -> None:
    memory = source.load()
    expected = {x.numpy().tobytes() for x in memory.train.everything()[0]}
    kept = tmp_path / ".kept"
    kept.mkdir()
    TorchTrainer(
        read,
        train_loop_config={"folder": str(kept)},
        datasets={"train": stream_train(source)},
        scaling_config=ray.train.ScalingConfig(num_workers=2),
        run_config=ray.train.RunConfig(name="read", storage_path=str(tmp_path / ".ray")),
    ).fit()
    workers: list[list[list[StreamedBatch]]] = [torch.load(kept / f"{k}.pt") for k in (0, 1)]
    for epoch in zip(*workers, strict=True):
        rows = [batch for worker in epoch for batch in worker]
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
@pytest.mark.skipif(find_spec("datasets") is None, reason="needs the extra hub")
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("instance")
@pytest.mark.slow
def test_a_hub_set_streams_the_examples_that_it_loads(
    source: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
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
