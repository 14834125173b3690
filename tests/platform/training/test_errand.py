"""What is computed beside the training is the same by a task of Ray, and on no other device."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from onestep.platform.data.pairs import read_pairs
from onestep.platform.evaluation.report import Report
from onestep.platform.experiment import Experiment
from onestep.platform.ray_instance import set_ray_environment
from onestep.platform.registry.model import load_flow_map
from onestep.platform.training.assembly import assemble, registry_of
from onestep.platform.training.errand import Progress, at_worker, ignored
from onestep.platform.training.errors import WorkersFailed
from onestep.platform.training.launch import launch
from onestep.platform.training.measurement import (
    measured,
    measured_at_workers,
    prepare_benchmark,
)
from onestep.platform.training.pairing import Pairing
from onestep.platform.training.watcher import Silence
from onestep.tests.platform.training.recipe import FLOW_MATCHING, REFLOW, recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU"),
    # Ray's own: sockets and log files that its client leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TEACHER = "eight_gaussians/1"


@pytest.fixture(scope="module", autouse=True)
def a_gpu_in_name() -> Iterator[None]:
    """Ray that has been told of a GPU on a machine without one."""
    before = dict(os.environ)
    set_ray_environment()
    place = tempfile.mkdtemp(prefix="os-")  # Ray's sockets need a short path
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=place,
    )
    yield
    ray.shutdown()
    shutil.rmtree(place, ignore_errors=True)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def teacher(home_folder: Path) -> None:
    """A home with a teacher, of which Ray has not been told."""
    del home_folder
    launch(experiment(FLOW_MATCHING, run="teacher"), Silence())


def experiment(method: dict[str, Any], **settings: Any) -> Experiment:
    evaluation = {"nfes": [1], "samples": 64}
    return Experiment.from_dict(recipe(method, steps=1, evaluation=evaluation, **settings))


def student(*, gpus: int) -> Experiment:
    return experiment(
        REFLOW,
        parents={"teacher": TEACHER},
        pairs={"count": 48, "steps": 3, "batch_size": 40},
        workers={"ray": True, "gpus_per_worker": gpus},
    )


def pairing(run: Experiment, folder: Path) -> Pairing:
    folder.mkdir()
    dataset = assemble(student(gpus=0)).source.load()
    return Pairing.of(run, dataset, registry=registry_of(run), folder=folder)


def test_pairs_and_a_report_by_a_task_of_ray_are_those_of_this_process(tmp_path: Path) -> None:
    run, there, seen = student(gpus=0), tmp_path / "there", list[tuple[int, int]]()
    pairing(run, tmp_path / "here").make(ignored)
    make = pairing(run, there).make
    at_worker(make, run, folder=there, progress=lambda *counts: seen.append(counts))
    made, ours = (read_pairs(folder / "pairs") for folder in (there, tmp_path / "here"))
    assert made.digest == ours.digest
    assert seen[-1] == (48 + 128, 48 + 128)

    flow_map, _ = load_flow_map(registry_of(run), TEACHER)
    dataset = assemble(run).source.load()

    def measure(progress: Progress) -> Report:
        del progress
        return measured(run, flow_map, prepare_benchmark(run, dataset))

    assert at_worker(measure, run, folder=there) == measure(ignored)


def test_no_cpu_takes_the_place_of_a_gpu_that_workers_ask_for(tmp_path: Path) -> None:
    run, said = student(gpus=1), r"gives workers\.gpus_per_worker GPUs, but torch has none"
    made = pairing(run, tmp_path / "run")
    with pytest.raises(WorkersFailed, match=said):
        made.pairs(Silence())
    assert not (tmp_path / "run" / "pairs").exists()
    flow_map, _ = load_flow_map(registry_of(run), TEACHER)
    with pytest.raises(WorkersFailed, match=said):
        measured_at_workers(run, flow_map, made.dataset, folder=tmp_path / "run")
