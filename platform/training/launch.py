"""Launch: one experiment from its configuration to a registered model with its report."""

import datetime
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from mlflow.exceptions import MlflowException

from ..data.source import Dataset
from ..experiment import Experiment
from ..home import Home
from ..lock import alone
from ..registry.connection import check_tracking
from ..registry.errors import RegistryError
from ..registry.revision import code_revision
from ..registry.run import Run, RunFacts
from ..registry.store import Registry
from . import checkpoint as checkpoints
from .assembly import Assembly, assemble, home_of, registry_of
from .errors import TrainingDiverged
from .guard import returns_in
from .measurement import measured_at_workers, served_map
from .mlflow_reporter import MlflowReporter
from .nodes import check_nodes
from .perception import perceptions
from .place import check_place, place_of
from .preparation import Preparation
from .ray_checkpoints import latest
from .ray_train import train_with_ray
from .registration import Trained, register
from .reporter import ManyReporters, Reporter, WandbReporter, check_wandb
from .room import check_room
from .run_note import RunNote
from .watcher import Watcher
from .worker import work

_LOGGER: Final = logging.getLogger(__name__)


def launch(experiment: Experiment, watcher: Watcher) -> Trained:
    """Train an experiment, evaluate it and register the model.

    Everything that can be wrong with the experiment is found before the first step. A run whose
    folder already has a checkpoint goes on from it, with any number of workers.

    Args:
        experiment: What to train.
        watcher: Told what happens.

    Returns:
        The registered model and its report.

    Raises:
        ValueError: If the experiment is refused, a store does not answer, or the run has ended or
            is running already.
    """
    revision = code_revision()  # of the code as it was loaded; a training gives time to change it
    home = home_of(experiment)
    if experiment.storage.tracking_uri:  # as it is for processes in other folders
        storage = replace(experiment.storage, tracking_uri=home.tracking_uri)
        experiment = replace(experiment, storage=storage)
    assembly = assemble(experiment)
    check_place(experiment)
    check_tracking(home.tracking_uri, artifacts=home.artifacts)
    if experiment.storage.wandb:
        check_wandb()
    folder = home.runs / (experiment.run or _fresh(experiment.name))
    ready = Preparation.of(assembly, folder)
    num_data = 0 if experiment.training.stream else len(ready.dataset.train)
    check_room(ready.assembly, folder, num_data=num_data)
    with alone(folder, what="run"):
        trained = _carry_out(ready, folder, home=home, watcher=watcher, revision=revision)
    watcher.say(f"registered {trained.reference}")
    return trained


def _carry_out(
    ready: Preparation, folder: Path, *, home: Home, watcher: Watcher, revision: str
) -> Trained:
    """Train what has been prepared, evaluate it and register the model."""
    assembly, dataset, choice = ready.assembly, ready.dataset, ready.choice
    experiment = assembly.experiment
    registry = registry_of(experiment)
    _check_goes_on(folder, dataset, registry)
    check_nodes(experiment, folder)
    rows = "streamed" if experiment.training.stream else f"{len(dataset.train)} rows"
    watcher.say(f"run {folder.name}: {assembly.name} on {dataset.name}, {rows}")
    pairs = None if ready.pairing is None else ready.pairing.pairs(watcher)
    data = dataset if pairs is None else pairs
    _check_checkpoint(folder, assembly, data.digest)
    if choice is not None:
        choice.keep(folder)
        watcher.say(f"derivative: {choice}")
    for line in perceptions(experiment):
        watcher.say(line)
    facts = _facts(experiment, dataset, folder, revision=revision)
    with _run(registry, facts, folder) as run:
        if choice is not None:
            run.log_json(asdict(choice), "derivative.json")
        with _reporting(experiment, run, folder, home, watcher) as reporter:
            last = _trained(experiment, run, folder=folder, reporter=reporter)
        _note_returns(run, last, recipe=assembly.recipe(data.digest), watcher=watcher)
        flow_map = served_map(assembly, last, data)
        watcher.say("evaluating")
        report = measured_at_workers(experiment, flow_map, dataset, folder=folder)
        return register(
            ready, flow_map, report, run, folder, pairs=pairs, registry=registry, revision=revision
        )


def _check_checkpoint(folder: Path, assembly: Assembly, digest: str) -> None:
    """Refuse a checkpoint that does not fit, before the run that it belongs to is touched."""
    found = latest(folder)
    if found is not None:
        recipe = assembly.recipe(digest, after=checkpoints.step_of(found))
        checkpoints.load(found, recipe=recipe)


def _trained(experiment: Experiment, run: Run, *, folder: Path, reporter: Reporter) -> Path:
    """Train; the run says why where it is lost."""
    try:
        return train(experiment, folder=folder, reporter=reporter)
    except TrainingDiverged as lost:
        try:
            run.set_tags({"onestep.lost": str(lost)})
        except (RegistryError, MlflowException) as away:
            # Why the training ended is told, not that it could not be noted.
            _LOGGER.warning("run %s could not note why it is lost: %s", run.run_id, away)
        raise


def _note_returns(run: Run, last: Path, *, recipe: str, watcher: Watcher) -> None:
    """Write down how often the run went back, from where, and with which learning rate."""
    returns = returns_in(checkpoints.load(last, recipe=recipe).state)
    if not returns:
        return
    run.log_json(returns, "returns.json")
    run.set_tags({"onestep.returns": str(len(returns))})
    for one in returns:
        watcher.say(
            f"went back from step {one['step']} to {one['to']}, learning rate times "
            f"{one['lr_factor']:g}: {one['why']}"
        )


def _facts(experiment: Experiment, dataset: Dataset, folder: Path, *, revision: str) -> RunFacts:
    return RunFacts(
        experiment=dataset.name,
        name=folder.name,
        config=experiment.to_dict(),
        overrides=experiment.overrides,
        seed=experiment.seed,
        data_digest=dataset.digest,
        revision=revision,
    )


def train(experiment: Experiment, *, folder: Path, reporter: Reporter) -> Path:
    """Train in this process, or with Ray Train where several workers or `ray` ask for it.

    Args:
        experiment: What to train.
        folder: Folder of the run; its latest checkpoint is gone on from, whatever number of
            workers wrote it.
        reporter: Told the metrics.

    Returns:
        The last checkpoint.

    Raises:
        ValueError: If a GPU is to train in this process, which has none.
    """
    if experiment.workers.uses_ray:
        return train_with_ray(experiment, folder=folder, reporter=reporter)
    last = work(
        experiment.to_dict(),
        place=place_of(experiment),
        reporter=reporter,
        folder=folder,
        resume=latest(folder),
    )
    assert last is not None, "the leading worker writes a checkpoint at the end"
    return last


def _check_goes_on(folder: Path, dataset: Dataset, registry: Registry) -> None:
    """Refuse a run that has ended, or was begun on other data."""
    note = RunNote.of(folder)
    if note is None:
        return
    model = note.registered(registry)
    if model is not None:
        raise ValueError(
            f"run {folder.name} has ended and registered {model}; choose another name by run=..."
        )
    note.check_data(dataset, run=folder.name)


def _fresh(name: str) -> str:
    now = datetime.datetime.now(datetime.UTC)
    return f"{name}-{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"


@contextmanager
def _run(registry: Registry, facts: RunFacts, folder: Path) -> Iterator[Run]:
    """The MLflow run of a folder: the one it had before, or a new one."""
    note = RunNote.of(folder)
    if note is None:
        run = Run.start(registry.connection, facts)
    else:
        run = Run(registry.connection, note.run_id)
        run.go_on()
    with run:
        if note is None:
            RunNote(run_id=run.run_id, data_digest=facts.data_digest).keep(folder)
        yield run


@contextmanager
def _reporting(
    experiment: Experiment, run: Run, folder: Path, home: Home, watcher: Watcher
) -> Iterator[Reporter]:
    reporters: list[Reporter] = [MlflowReporter(run)]
    if experiment.storage.wandb:
        reporters.append(
            WandbReporter(
                folder=home.wandb,
                project="onestep",
                name=folder.name,
                run_id=run.run_id,
                config=experiment.to_dict(),
            )
        )
    with watcher.training(experiment) as bar:
        everyone = ManyReporters([*reporters, bar])
        try:
            yield everyone
        except BaseException:
            # Why the training ended is told, not that its last metrics are lost on top.
            try:
                everyone.close()
            except Exception as lost:
                _LOGGER.warning("the last metrics were not reported: %s", lost)
            raise
        everyone.close()
