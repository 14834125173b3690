"""Several workers: the same loop under Ray Train, with checkpoints and restarts by Ray."""

import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, final

import ray
import ray.train
import torch
from ray.exceptions import RayActorError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ...methods.core.rng import Purpose, mix
from ..build import build
from ..data.source import AbstractSource, Dataset
from ..data.stream import STREAMABLE, batches, in_order, stream_train
from ..experiment import Experiment
from ..ray_instance import ray_instance, whole_cpus
from ..registry.errors import RegistryUnreachable
from .assembly import Models, home_of
from .errors import (
    CheckpointAltered,
    CheckpointMismatch,
    FolderNotSeen,
    MetricsLost,
    TrainingDiverged,
    WorkersFailed,
)
from .feed import BatchStream
from .nodes import marked, refusal_here
from .place import Place
from .ray_checkpoints import STORAGE, furthest, latest, path_of
from .reporter import Reporter
from .worker import has_ended, work

_LOGGER: Final = logging.getLogger(__name__)
_POLL_S: Final = 0.5
WORKER_S: Final = "time/worker_s"
"""Seconds of processor time of the leading worker since its start."""
WORKER_BEGUN: Final = "time/worker_begun"
"""When that was, in seconds of the Unix clock."""
_TRAIN: Final = "train"
_LOST: Final = (
    "metrics were lost because the process that held them was killed; the checkpoints are whole: "
    "repeat the run to go on from the last one"
)
_SHUFFLED_BATCHES: Final = 16
"""Batches among whose rows a worker picks the next one at random."""


@final
class Mailbox:
    """Rows of metrics on their way from the leading worker to the process that launched the run.

    Ray Train keeps the metrics of retained checkpoints only, so a curve needs a way of its own.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[dict[str, float], int]] = []
        self._refusal: ValueError | None = None
        self._outage: Exception | None = None

    def put(self, metrics: dict[str, float], step: int) -> None:
        """Take a row."""
        self._rows.append((metrics, step))

    def take(self) -> list[tuple[dict[str, float], int]]:
        """All rows since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def refuse(self, error: ValueError) -> None:
        """Take what ends the run by the user's doing."""
        self._refusal = error

    def refusal(self) -> ValueError | None:
        """What ended the run, or None."""
        return self._refusal

    def meet(self, error: Exception) -> None:
        """Take the outage of a store that a worker has failed by."""
        self._outage = error

    def outage(self) -> Exception | None:
        """The last outage of a store that a worker has failed by, or None."""
        return self._outage


@final
@dataclass(frozen=True)
class Loaded:
    """What has been loaded, in Ray's memory, from which any number of groups take it.

    Attributes:
        dataset: Reference of the data; of None where workers load them.
        models: Reference of the registered models by their own references; workers load others.
    """

    dataset: Any
    models: Any

    @classmethod
    def put(cls, dataset: Dataset | None = None, models: Models | None = None) -> Self:
        """Put it there; Ray is up, and keeps it for as long as this process has the references.

        Args:
            dataset: The data; None where workers are to load them.
            models: The registered models, by reference.
        """
        return cls(dataset=ray.put(dataset), models=ray.put(models))


def mailbox_here() -> Any:
    """An actor with a mailbox on the node of this process; any other may leave the cluster."""
    here = ray.get_runtime_context().get_node_id()
    place = NodeAffinitySchedulingStrategy(here, soft=False)
    return ray.remote(num_cpus=0)(Mailbox).options(scheduling_strategy=place).remote()


@final
class RayReporter:
    """Metrics go to the mailbox, checkpoints to Ray Train, where all workers wait for each other.

    Args:
        mailbox: Handle of the mailbox actor.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._since, self._begun = time.process_time(), time.time()

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        """Send a row; without metrics it is a checkpoint that is due at every worker."""
        if metrics:
            spent = {WORKER_S: time.process_time() - self._since, WORKER_BEGUN: self._begun}
            row = {**metrics, **spent}
            self._mailbox.put.remote(row, step)
            return
        if checkpoint is None:
            ray.train.report({"step": step})
            return
        ray.train.report(
            {"step": step},
            checkpoint=ray.train.Checkpoint.from_directory(str(checkpoint)),
            checkpoint_dir_name=checkpoint.name,  # by which all checkpoints of a run are ordered
        )

    def close(self) -> None:
        """Nothing is held back."""


def _loop(config: Mapping[str, Any]) -> None:
    os.environ.update(ray.get(config["environment"]))
    refusal = refusal_here(config["mark"])
    if refusal is not None:
        # Ray would find it out at the first checkpoint, and cut its message to pieces.
        ray.get(config["mailbox"].refuse.remote(FolderNotSeen(refusal)))
        raise FolderNotSeen(refusal)
    context = ray.train.get_context()
    place = Place(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=ray.train.torch.get_device(),
    )
    if place.device.type == "cpu":
        torch.set_num_threads(1)
    try:
        _work_at(place, config)
    except (CheckpointAltered, CheckpointMismatch, TrainingDiverged) as error:
        # Every worker meets the same at the same step, and to start again would not help.
        ray.get(config["mailbox"].refuse.remote(error))
    except (RegistryUnreachable, OSError) as error:
        # Ray starts the workers again, and tells the last one's message alone if it gives up.
        ray.get(config["mailbox"].meet.remote(error))
        raise


def _work_at(place: Place, config: Mapping[str, Any]) -> None:
    # What the run began from; workers that are started again go on from what Ray has kept since.
    begin: Path | None = config["begin"]
    experiment, loaded = ray.get(config["experiment"]), config["loaded"]
    with tempfile.TemporaryDirectory() as folder:
        work(
            experiment,
            place=place,
            reporter=RayReporter(config["mailbox"]),
            folder=Path(folder),
            kept=config["run"],
            resume=furthest([begin, path_of(ray.train.get_checkpoint())]),
            until=config["until"],
            stream=_stream(place, Experiment.from_dict(experiment)),
            dataset=ray.get(loaded.dataset),
            models=ray.get(loaded.models),
        )


def _stream(place: Place, experiment: Experiment) -> BatchStream | None:
    training = experiment.training
    if not training.stream:
        return None
    shard = ray.train.get_dataset_shard(_TRAIN)
    rows = training.batch_size // place.world
    return BatchStream(
        lambda epoch: batches(
            shard,
            rows,
            shuffle_buffer=_SHUFFLED_BATCHES * rows,
            seed=mix(Purpose.STREAM, experiment.seed, epoch, place.rank),
        )
    )


def _datasets(experiment: Experiment) -> dict[str, Any]:
    if not experiment.training.stream:
        return {}
    source = build(experiment.data, AbstractSource)
    assert isinstance(source, STREAMABLE), "checked when the experiment was assembled"
    return {_TRAIN: stream_train(source)}


def train_with_ray(
    experiment: Experiment,
    *,
    folder: Path,
    reporter: Reporter,
    begin: Path | None = None,
    until: int | None = None,
    dataset: Dataset | None = None,
    models: Models | None = None,
    loaded: Loaded | None = None,
) -> Path:
    """Train with Ray Train; a run of the same folder goes on from its last checkpoint.

    Args:
        experiment: What to train.
        folder: Folder of the run; Ray keeps its checkpoints in a folder of its own in there.
        reporter: Told the metrics, in this process, by a thread of its own.
        begin: Checkpoint of another run that it goes on from where it has none of its own that is
            further; None for the start.
        until: Steps after which it ends, with a checkpoint; None for the whole run.
        dataset: The data where they have been loaded; None for workers to load them.
        models: Registered models that have been loaded, by reference; workers load others.
        loaded: The same in Ray's memory; None to put them there for this run.

    Returns:
        The last checkpoint.

    Raises:
        ValueError: If the checkpoint is refused or the training diverges.
        WorkersFailed: If a worker fails more often than the experiment allows.
        MetricsLost: If the mailbox has died.
    """
    workers = experiment.workers
    home = home_of(experiment)
    cpus = whole_cpus(workers.num_workers * workers.cpus_per_worker)
    cpus += experiment.training.stream  # somebody has to read for the workers
    begin = furthest([begin, latest(folder)])
    if begin is not None and has_ended(experiment, begin, until=until, dataset=dataset):
        return begin
    with ray_instance(address=workers.address, num_cpus=max(2, cpus)), marked(folder) as mark:
        mailbox = mailbox_here()
        has_gpu = workers.gpus_per_worker > 0
        resources = {"CPU": workers.cpus_per_worker}
        if has_gpu:
            resources["GPU"] = workers.gpus_per_worker
        trainer = TorchTrainer(
            _loop,
            train_loop_config={
                # Not as they are: the dashboard shows this mapping, and a URI may hold a password.
                "experiment": ray.put(experiment.to_dict()),
                "loaded": loaded or Loaded.put(dataset, models),
                "mailbox": mailbox,
                "environment": ray.put(home.variables(os.environ)),
                "begin": begin,
                "until": until,
                "mark": mark,
                "run": folder,
            },
            datasets=_datasets(experiment),
            dataset_config=in_order() if experiment.training.stream else None,
            torch_config=TorchConfig(backend="nccl" if has_gpu else "gloo", timeout_s=300),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers.num_workers,
                use_gpu=has_gpu,
                resources_per_worker=resources,
            ),
            run_config=ray.train.RunConfig(
                name=folder.name,
                storage_path=str(folder / STORAGE),
                checkpoint_config=ray.train.CheckpointConfig(
                    num_to_keep=experiment.training.keep_checkpoints
                ),
                failure_config=ray.train.FailureConfig(
                    max_failures=workers.max_failures,
                    controller_failure_limit=3,  # type: ignore[call-arg]
                ),
            ),
        )
        with forwarding(mailbox, reporter):
            result = _fit(trainer, mailbox)
        refusal: ValueError | None = ray.get(mailbox.refusal.remote())
        if refusal is not None:
            raise refusal
        last = furthest([begin, path_of(result.checkpoint)])
        if last is None:
            raise WorkersFailed(f"Ray Train ended without a checkpoint: {result.error}")
        return last


def _fit(trainer: TorchTrainer, mailbox: Any) -> ray.train.Result:
    try:
        return trainer.fit()
    except ray.train.TrainingFailedError as error:
        refusal, outage = _reasons(mailbox)
        failed = WorkersFailed(f"Ray Train gave up: {error}")
        raise refusal or failed from (error if outage is None else outage)


def _reasons(mailbox: Any) -> tuple[ValueError | None, Exception | None]:
    """What a training that failed was refused for, and what outage it met, if anybody can tell."""
    try:
        refusal, outage = ray.get([mailbox.refusal.remote(), mailbox.outage.remote()])
    except RayActorError:
        return None, None
    return refusal, outage


@contextmanager
def forwarding(mailbox: Any, reporter: Reporter) -> Iterator[None]:
    """Hand on what comes into the mailbox while something else runs.

    A reporter that fails ends neither the training nor the reports after it: every row is handed
    on once, and the first failure is raised when all is over. The death of the mailbox is such a
    failure.

    Args:
        mailbox: Handle of the mailbox actor.
        reporter: Told the rows, by a thread of its own.

    Yields:
        Nothing.

    Raises:
        MetricsLost: If the mailbox has died.
    """
    done, failures = threading.Event(), list[Exception]()

    def empty() -> bool:
        try:
            rows = ray.get(mailbox.take.remote())
        except RayActorError as error:
            _LOGGER.warning("metrics are reported no longer: %s", error)
            failures.append(MetricsLost(_LOST))
            return False
        for metrics, step in rows:
            try:
                reporter.report(metrics, step=step)
            except Exception as error:
                _LOGGER.warning("the metrics of step %d were not reported: %s", step, error)
                failures.append(error)
        return True

    def watch() -> None:
        while not done.wait(_POLL_S):
            if not empty():
                return
        empty()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if failures:
        raise failures[0]
