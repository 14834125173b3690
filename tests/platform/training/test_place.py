"""A run trains where it was asked to, or is refused."""

from pathlib import Path

import pytest
import torch

from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import assemble
from onestep.platform.training.launch import launch, train
from onestep.platform.training.place import is_elsewhere, place_of
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.sequence import StageSequence
from onestep.platform.training.watcher import Silence

SMALL = ("data=eight_gaussians", "net=mlp", "training.samples=2048")
GROUP = ("workers.num_workers=4", "workers.gpus_per_worker=1")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, on a machine without a GPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    return tmp_path


def experiment(*overrides: str) -> Experiment:
    lines = (*SMALL, *overrides)
    return Experiment.from_dict(compose("train", lines), lines)


def test_a_process_without_a_gpu_does_not_train_for_one_that_was_asked_for(home: Path) -> None:
    with pytest.raises(ValueError, match=r"has no GPU, got 1; .* take workers\.ray=true"):
        train(experiment("workers.gpus_per_worker=1"), folder=home, reporter=MemoryReporter())


def test_beside_the_workers_of_ray_a_cpu_will_do() -> None:
    assert place_of(experiment(*GROUP)).device == torch.device("cpu")


@pytest.mark.parametrize(
    ("overrides", "here", "elsewhere"),
    [
        (GROUP, False, True),
        (("workers.ray=true", "workers.gpus_per_worker=0.5"), False, True),
        (GROUP, True, False),
        (("workers.num_workers=4",), False, False),
        (("workers.gpus_per_worker=1",), False, False),
    ],
)
def test_gpus_are_elsewhere_if_ray_has_them_and_this_process_has_none(
    overrides: tuple[str, ...], here: bool, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: here)
    assert is_elsewhere(experiment(*overrides)) == elsewhere


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("workers.gpus_per_worker=1", "has no GPU, got 1"),
        ("workers.gpus_per_worker=0.5", "gpus_per_worker must be 0 or 1 without Ray: .* got 0.5"),
        ("workers.cpus_per_worker=2", "cpus_per_worker has no effect without Ray: .* got 2"),
        ("workers.max_failures=5", "max_failures has no effect without Ray Train: .* at 2, got 5"),
        ("workers.address=auto", "address has no effect without Ray Train: .* at '', got 'auto'"),
    ],
)
def test_workers_that_this_process_is_not_are_refused(override: str, said: str, home: Path) -> None:
    with pytest.raises(ValueError, match=said):
        launch(experiment(override), Silence())
    with pytest.raises(ValueError, match=said):
        StageSequence.from_overrides((*SMALL, override)).check()
    assert not any(home.iterdir())
    assert StageSequence.from_overrides((*SMALL, override, *GROUP, "workers.address=auto")).check()


def test_gpus_of_a_group_are_here_or_in_a_cluster_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"neither workers\.address nor RAY_ADDRESS names a clust"):
        assemble(experiment(*GROUP))
    assemble(experiment(*GROUP, "workers.address=auto"))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # as Ray does in every job
    assemble(experiment(*GROUP))
