"""Training from a stream of Ray Data."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import final

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
from onestep.platform.training.feed import BatchStream, StreamFeed
from onestep.platform.training.launch import launch, train
from onestep.platform.training.reporter import MemoryReporter, Reporter
from onestep.platform.training.watcher import Silence
from onestep.tests.platform.training.group import distance, state_at


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


def epochs(epoch: int) -> Iterator[StreamedBatch]:
    """Two batches of two rows, labelled by their epoch."""
    for k in range(2):
        index = torch.tensor([2 * k, 2 * k + 1])
        label = torch.full((2,), epoch)
        yield StreamedBatch(x=torch.zeros(2, 1, 2, 2), label=label, index=index)


def taken(stream: BatchStream, many: int) -> list[tuple[int, int]]:
    """Epoch and first row of the next batches."""
    batches = (stream.take() for _ in range(many))
    return [(int(batch["label"][0]), int(batch["index"][0])) for batch in batches]


@pytest.mark.parametrize("before", range(6))
def test_a_stream_goes_on_from_its_position(before: int) -> None:
    expected = taken(BatchStream(epochs), 9)
    cut_off = BatchStream(epochs)
    assert taken(cut_off, before) == expected[:before]
    resumed = BatchStream(epochs)
    resumed.go_to(cut_off.position)
    assert taken(resumed, 9 - before) == expected[before:]


def test_a_stream_without_a_batch_is_refused_and_not_waited_for() -> None:
    with pytest.raises(ValueError, match="an epoch of a stream must have a batch for every worker"):
        BatchStream(lambda epoch: iter(())).take()


def test_epochs_follow_each_other() -> None:
    feed = StreamFeed(BatchStream(epochs), shape=(1, 2, 2), labelled=True, flip=None)
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


@final
class BreakingWatcher:
    """Breaks a run off before its first step."""

    def say(self, line: str) -> None:
        """Take one line."""

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        with Silence().counting(what) as count:
            yield count

    def training(self, experiment: Experiment) -> AbstractContextManager[Reporter]:
        raise InterruptedError


def test_a_streamed_run_does_not_go_on_with_other_data(home_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images")
    run = experiment(
        "data=image_folder",
        f"data.folder={tmp_path / 'images'}",
        "data.side=8",
        "data.channels=1",
        "method=flow_matching",
        "training.batch_size=32",
        "training.stream=true",
        "workers.ray=true",
        "run=first",
    )
    for _ in range(2):  # it goes on with the same data
        with pytest.raises(InterruptedError):
            launch(run, BreakingWatcher())
    Image.new("L", (8, 8)).save(tmp_path / "images" / "b" / "0.png")
    before = sorted(home_folder.rglob("*"))
    with pytest.raises(ValueError, match=r"run first was begun on other data: .* of images is now"):
        launch(run, BreakingWatcher())
    assert sorted(home_folder.rglob("*")) == before


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


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_resumed_stream_takes_the_rows_that_it_would_have_taken(
    workers: int, tmp_path: Path
) -> None:
    """Bit by bit, from the middle of the second epoch into the third."""
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images")
    run = experiment(
        "data=image_folder",
        f"data.folder={tmp_path / 'images'}",
        "data.side=8",
        "data.channels=1",
        "net.width=16",
        "training.batch_size=32",
        "training.samples=384",
        "training.checkpoint_every=32",
        "training.keep_checkpoints=20",
        "training.stream=true",
        "workers.ray=true",
        f"workers.num_workers={workers}",
        "workers.cpus_per_worker=0.5",
    )
    whole = train(run, folder=tmp_path / "whole", reporter=MemoryReporter())
    left = whole.parent / "step-0000000007"
    assert state_at(left)["stream"] == {"epoch": 1, "taken": 2}
    shutil.copytree(left, tmp_path / "cut off" / "checkpoints" / left.name)
    reporter = MemoryReporter()
    resumed = train(run, folder=tmp_path / "cut off", reporter=reporter)
    assert [row["step"] for row in reporter.rows][-1] == 12
    assert state_at(resumed)["stream"] == {"epoch": 2, "taken": 2}
    assert distance(state_at(resumed), state_at(whole)) == 0.0
