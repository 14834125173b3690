"""A run leaves the process as it was, for the next run in it, and keeps no broken weights."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

import pytest
import torch

from onestep.platform.threads import threads
from onestep.platform.training.errors import TrainingDiverged
from onestep.platform.training.place import Place
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.worker import work
from onestep.tests.platform.training.group import assert_equal, state_at
from onestep.tests.platform.training.recipe import BATCH, FLOW_MATCHING, STEEP, recipe


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    with threads(2):
        yield


@final
class ThreadCount:
    """Notes with how many threads training computes."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        del metrics, step, checkpoint
        self.seen.add(torch.get_num_threads())

    def close(self) -> None:
        """Nothing is held back."""


def test_a_run_of_one_thread_leaves_the_threads_of_the_next(tmp_path: Path) -> None:
    for number, (asked, found) in enumerate([(1, 1), (0, 2), (3, 3), (0, 2)]):
        reporter = ThreadCount()
        values = recipe(FLOW_MATCHING, steps=1, training={"threads": asked})
        work(values, place=Place(), reporter=reporter, folder=tmp_path / str(number))
        assert reporter.seen == {found}
        assert torch.get_num_threads() == 2


def test_a_run_that_fails_leaves_the_threads_too(tmp_path: Path) -> None:
    values = recipe(FLOW_MATCHING, steps=9, lr=1e300, training={"threads": 1})
    with pytest.raises(TrainingDiverged):
        work(values, place=Place(), reporter=ThreadCount(), folder=tmp_path)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("clip_norm", "said"),
    [(1.0, "gradient/online is (nan|inf) at step 3"), (0.0, "weights are not all finite")],
)
def test_weights_that_a_finite_loss_has_broken_are_not_kept(
    clip_norm: float, said: str, tmp_path: Path
) -> None:
    training = {"clip_norm": clip_norm, "checkpoint_every": BATCH, "keep_checkpoints": 1}
    values = recipe({**STEEP, "at": 2}, steps=4, training=training)
    reporter = MemoryReporter()
    with pytest.raises(TrainingDiverged, match=f"{said}.*; lower optimizer.lr"):
        work(values, place=Place(), reporter=reporter, folder=tmp_path)
    (kept,) = (tmp_path / "checkpoints").glob("step-*")
    assert kept.name == "step-0000000002"


@pytest.mark.parametrize("checkpoint_every", [0, 4 * BATCH])
def test_a_checkpoint_that_is_to_be_seen_is_made_and_changes_nothing(
    checkpoint_every: int, tmp_path: Path
) -> None:
    training = {"checkpoint_every": checkpoint_every, "keep_checkpoints": 9}
    values = recipe(FLOW_MATCHING, steps=6, training=training)
    ends, seen = list[Path](), list[list[str]]()
    for name, shown in (("plain", ()), ("shown", (3, 5))):
        reporter = MemoryReporter()
        end = work(values, place=Place(), reporter=reporter, folder=tmp_path / name, shown=shown)
        assert end is not None
        ends.append(end)
        seen.append([path.name[-1] for path in reporter.checkpoints])
    between = ["4"] * bool(checkpoint_every)
    assert seen == [[*between, "6"], ["3", *between, "5", "6"]]
    assert_equal(state_at(ends[1]), state_at(ends[0]))
