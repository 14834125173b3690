"""Errands: what a run computes beside its training, on a worker's GPU where there is none here."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from ..experiment import Experiment
from ..ray_instance import ray_instance
from .assembly import home_of
from .errors import WorkersFailed
from .nodes import marked, refusal_here
from .place import is_elsewhere
from .ray_train import mailbox_here

_POLL_S: Final = 0.5
_Result = TypeVar("_Result")
Progress = Callable[[int, int], None]
"""Told how many things are done, and of how many."""


def ignored(done: int, total: int) -> None:
    """Progress that nobody watches."""
    del done, total


def run_errand(
    errand: Callable[[Progress], _Result],
    experiment: Experiment,
    *,
    folder: Path,
    progress: Progress = ignored,
) -> _Result:
    """Compute something where the workers of an experiment compute.

    Args:
        errand: What is computed; it and its result can be sent to another process.
        experiment: The run that it belongs to.
        folder: Folder of the run.
        progress: Told how much is done, in this process.

    Returns:
        Its result. Where the workers have GPUs and this process has none, it is a task of Ray with
        the resources of one worker.

    Raises:
        ValueError: If the worker does not see the folder.
        WorkersFailed: If its node cannot compute on the GPU, or it dies more often than the
            experiment allows.
    """
    if is_elsewhere(experiment):
        return at_worker(errand, experiment, folder=folder, progress=progress)
    return errand(progress)


def at_worker(
    errand: Callable[[Progress], _Result],
    experiment: Experiment,
    *,
    folder: Path,
    progress: Progress = ignored,
) -> _Result:
    """Compute something as a task of Ray with the resources of one worker.

    Args:
        errand: What is computed; it and its result can be sent to another process.
        experiment: The run that it belongs to.
        folder: Folder of the run.
        progress: Told how much is done, in this process.

    Returns:
        Its result.

    Raises:
        ValueError: If the worker does not see the folder.
        WorkersFailed: If its node cannot compute on the GPU, or it dies more often than the
            experiment allows.
    """
    workers = experiment.workers
    home = home_of(experiment)
    with ray_instance(address=workers.address), marked(folder) as mark:
        mailbox = mailbox_here()
        as_worker: Any = ray.remote(
            num_cpus=workers.cpus_per_worker,
            num_gpus=workers.gpus_per_worker,
            max_retries=workers.max_failures,
        )
        has_gpu, environment = workers.gpus_per_worker > 0, home.variables(os.environ)
        answer = as_worker(_run).remote(errand, environment, mark, mailbox, has_gpu=has_gpu)
        try:
            is_done = False
            while not is_done:
                is_done = bool(ray.wait([answer], timeout=_POLL_S)[0])
                for row, done in ray.get(mailbox.take.remote()):
                    progress(done, round(row["total"]))
            result: _Result = ray.get(answer)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, RayError):
                raise WorkersFailed(f"Ray gave up a task beside the training: {cause}") from error
            raise cause from error  # the text of the other is the traceback of another process
        finally:
            # Or it would write on beside the run that is repeated. Ray itself may be gone, too.
            with suppress(RayError):
                ray.cancel(answer, force=True)
        return result


def _run(
    errand: Callable[[Progress], _Result],
    environment: dict[str, str],
    mark: tuple[Path, str],
    mailbox: Any,
    *,
    has_gpu: bool,
) -> _Result:
    os.environ.update(environment)
    refusal = refusal_here(mark)
    if refusal is not None:
        raise ValueError(refusal)
    if has_gpu and not torch.cuda.is_available():
        raise WorkersFailed(
            f"node {socket.gethostname()} gives workers.gpus_per_worker GPUs, but torch has none "
            "there: install a torch that knows them"
        )
    return errand(lambda done, total: ray.get(mailbox.put.remote({"total": float(total)}, done)))
