"""Groups of worker processes over gloo, without Ray: real processes that can really be killed."""

import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, final

import torch
import torch._dynamo  # optimizers import it at their first step, which takes seconds
import torch.distributed as dist

from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import assemble
from onestep.platform.training.learning import Learning
from onestep.platform.training.place import Place
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.worker import start, work

Task = Callable[..., Any]
_LONGEST_S: Final = 240.0


@final
class Died(RuntimeError):
    """A worker ended without a result."""


def run_group(task: Task, world: int, *args: object) -> list[Any]:
    """What a task gives at each of several workers, each a process of its own.

    Args:
        task: Called with the worker's place and the arguments; importable by its name.
        world: Number of workers.
        args: Further arguments.

    Raises:
        Died: If a worker fails or is killed; the others are ended.
    """
    # Imports are paid for once, in the server that the workers are forked from.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["onestep.tests.platform.training.group"])
    with tempfile.TemporaryDirectory() as name:
        workers = [
            context.Process(target=_worker, args=(task, rank, world, Path(name), args))
            for rank in range(world)
        ]
        for worker in workers:
            worker.start()
        try:
            _wait_for(workers, Path(name))
        finally:
            for worker in workers:
                worker.kill()
                worker.join()
        return [torch.load(Path(name) / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _wait_for(workers: Sequence[BaseProcess], folder: Path) -> None:
    give_up_at = time.monotonic() + _LONGEST_S
    while any(worker.is_alive() for worker in workers):
        codes = [worker.exitcode for worker in workers]
        if any(codes) or time.monotonic() > give_up_at:
            break
        time.sleep(0.02)
    if any(worker.exitcode != 0 for worker in workers):
        codes = [worker.exitcode for worker in workers]
        reasons = "\n".join(path.read_text() for path in sorted(folder.glob("*.txt")))
        raise Died(f"workers ended with {codes}\n{reasons}")


def _worker(task: Task, rank: int, world: int, folder: Path, args: Sequence[object]) -> None:
    torch.set_num_threads(1)
    try:
        if world > 1:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
            dist.init_process_group(
                "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world
            )
        torch.save(task(Place(rank=rank, world=world), *args), folder / f"{rank}.pt")
    except BaseException:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@final
class DyingReporter:
    """Keeps rows, and kills its own process at a step as the system kills a process.

    Args:
        at: The step, or 0 for never.
    """

    def __init__(self, at: int) -> None:
        self._at = at
        self.rows: list[dict[str, float]] = []

    def report(
        self, metrics: Mapping[str, float], *, step: int, checkpoint: Path | None = None
    ) -> None:
        if metrics:
            self.rows.append({"step": step, **metrics})
        if self._at and step >= self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        """Nothing is held back."""


def train(
    place: Place,
    experiment: Mapping[str, Any],
    folder: Path,
    resume: Path | None = None,
    dies_at: int = 0,
) -> list[dict[str, float]]:
    """Train, and give the rows of metrics; a task."""
    reporter = DyingReporter(dies_at)
    work(experiment, place=place, reporter=reporter, folder=folder, resume=resume)
    return reporter.rows


def train_many(
    place: Place, experiments: Mapping[str, Mapping[str, Any]], folder: Path
) -> dict[str, list[dict[str, float]]]:
    """Train several experiments one after the other; a task."""
    return {name: train(place, each, folder / name) for name, each in experiments.items()}


def learning_of(experiment: Mapping[str, Any], place: Place | None = None) -> Learning:
    """The state of an experiment before its first step."""
    return start(assemble(Experiment.from_dict(experiment)), place or Place())[0]


def gradients(place: Place, experiment: Mapping[str, Any], steps: int) -> dict[str, torch.Tensor]:
    """Gradients of the online network at the last of some steps; a task."""
    learning = learning_of(experiment, place)
    for _ in range(steps):
        learning.advance()
    return {
        name: parameter.grad.clone()
        for name, parameter in learning.nets.online.named_parameters()
        if parameter.grad is not None
    }


def train_here(
    experiment: Mapping[str, Any], folder: Path, resume: Path | None = None
) -> tuple[dict[str, Any], MemoryReporter]:
    """Train in this process, and give the state of the last checkpoint and the reports."""
    reporter = MemoryReporter()
    last = work(experiment, place=Place(), reporter=reporter, folder=folder, resume=resume)
    assert last is not None
    return state_at(last), reporter


def state_at(checkpoint: Path) -> dict[str, Any]:
    """The state in a checkpoint."""
    content = torch.load(checkpoint / "state.pt", weights_only=True)
    state: dict[str, Any] = content["state"]
    return state


def leaves(state: object, name: str = "") -> dict[str, object]:
    """The tensors and numbers of a state by their place in it."""
    if isinstance(state, Mapping):
        parts = state.items()
    elif isinstance(state, list | tuple):
        parts = dict(enumerate(state)).items()
    else:
        return {name: state}
    return {k: v for key, part in parts for k, v in leaves(part, f"{name}/{key}").items()}


def assert_equal(ours: object, theirs: object) -> None:
    """Refuse states that differ in a bit."""
    a, b = leaves(ours), leaves(theirs)
    assert a.keys() == b.keys()
    differing = [name for name, value in a.items() if not _is_same(value, b[name])]
    assert not differing


def _is_same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return a == b


def distance(ours: object, theirs: object) -> float:
    """Largest difference of two states of the same form."""
    a, b = leaves(ours), leaves(theirs)
    assert a.keys() == b.keys()
    return max(
        float((value - other).abs().max())
        for name, value in a.items()
        if isinstance(value, torch.Tensor)
        and isinstance(other := b[name], torch.Tensor)
        and value.numel()
    )
