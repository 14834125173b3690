"""Training from a stream of Ray Data."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from onestep.methods.core.record import Moment
from onestep.methods.core.rng import Rng
from onestep.platform.configuration import compose
from onestep.platform.data.stream import StreamedBatch
from onestep.platform.experiment import Experiment
from onestep.platform.home import Home
from onestep.platform.registry.model import dataset_of
from onestep.platform.registry.store import Registry
from onestep.platform.training.assembly import assemble
from onestep.platform.training.feed import StreamFeed
from onestep.platform.training.launch import launch
from onestep.platform.training.watcher import Silence


def experiment(*overrides: str) -> Experiment:
    return Experiment.from_dict(compose("train", ["net=mlp", "training.samples=512", *overrides]))


def test_a_stream_of_data_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="needs data of ImageFolder or HuggingFace, got Digits"):
        assemble(experiment("data=digits", "training.stream=true", "workers.ray=true"))


def test_a_stream_without_ray_train_is_refused(tmp_path: Path) -> None:
    chosen = ("data=image_folder", f"data.folder={tmp_path}", "data.side=8")
    write_images(tmp_path)
    with pytest.raises(ValueError, match=r"needs Ray Train: set workers\.ray=true"):
        assemble(experiment(*chosen, "training.stream=true"))


def test_epochs_follow_each_other() -> None:
    def epochs(epoch: int) -> Iterator[StreamedBatch]:
        for k in range(2):
            index = torch.tensor([2 * k, 2 * k + 1])
            label = torch.full((2,), epoch)
            yield StreamedBatch(x=torch.zeros(2, 1, 2, 2), label=label, index=index)

    feed = StreamFeed(epochs, shape=(1, 2, 2), labelled=True, flip=None)
    now = Moment(step=0, total=3, rng=Rng.seeded(0))
    batches = [feed.rows(now, (0,), of=1) for _ in range(3)]
    assert [b.index.tolist() for b in batches] == [[0, 1], [2, 3], [0, 1]]
    labels = [b.condition.label.tolist() for b in batches if b.condition is not None]
    assert labels == [[0, 0], [0, 0], [1, 1]]


def write_images(folder: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    for label in ("a", "b"):
        (folder / label).mkdir()
        for k in range(96):
            levels = torch.randint(256, (8, 8), generator=rng, dtype=torch.uint8)
            Image.fromarray(levels.numpy()).save(folder / label / f"{k}.png")


@pytest.mark.slow
@pytest.mark.ray
def test_a_folder_is_streamed_to_ray_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images")
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path / "home"))
    trained = launch(
        experiment(
            "data=image_folder",
            f"data.folder={tmp_path / 'images'}",
            "data.side=8",
            "data.channels=1",
            "training.batch_size=32",
            "training.stream=true",
            "workers.ray=true",
            "evaluation.nfes=[1]",
            "evaluation.samples=16",
        ),
        Silence(),
    )
    assert trained.reference.version == 1
    record = Registry.at(Home.here()).entry(trained.reference).record
    assert dataset_of(record, model="it").digest == record.data_digest
    assert trained.report.find("eval/sliced_w2", nfe=1).value > 0.0
