"""The worker: builds everything once, then walks the moments of a run."""

import math
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor

from ...methods.core.flow_map import FlowMap
from ..build import build
from ..data.pairs import PairSet, read_pairs
from ..data.source import Dataset
from ..experiment import Experiment, Training
from ..threads import threads
from . import checkpoint as checkpoints
from .assembly import Assembly, Models, assemble
from .checkpoint import Checkpoint
from .errors import TrainingDiverged
from .feed import FIRST, AbstractFeed, BatchStream, DataFeed, PairFeed, StreamFeed
from .guard import Guard
from .learning import Learning, OptimizerFactory
from .loss_by_time import BY_TIME, curve
from .place import Place
from .reporter import Reporter
from .snapshot import write_snapshot

CHECKPOINTS: Final = "checkpoints"
SHOWN: Final = "shown"
"""Folder of a state that is shown and not kept, as long as it is."""
_STREAM: Final = "stream"
_ADVICE: Final = "lower optimizer.lr, or clip gradients by training.clip_norm"


def work(
    experiment: Mapping[str, Any],
    *,
    place: Place,
    reporter: Reporter,
    folder: Path,
    kept: Path | None = None,
    resume: Path | None = None,
    until: int | None = None,
    shown: Sequence[int] = (),
    stream: BatchStream | None = None,
    dataset: Dataset | None = None,
    models: Models | None = None,
) -> Path | None:
    """Train one experiment, from the start or from a checkpoint.

    Args:
        experiment: The experiment as plain values; everything is built from them here.
        place: Where this worker stands; its process group is up if there are several.
        reporter: Told metrics by the leading worker, and by every worker when a checkpoint is
            due, with its folder at the leading one.
        folder: Where checkpoints are written.
        kept: Where snapshots of averages are written; None for the same folder.
        resume: Checkpoint to go on from, or None.
        until: Steps after which to stop, with a checkpoint; None for those of the whole run, whose
            clock does not depend on this.
        shown: Steps of which the reporter sees a checkpoint also where none is due, or where the
            guard doubts it; then it is gone when the reporter has seen it, and nothing goes on from
            it.
        stream: Batches of this worker, where the data are streamed.
        dataset: The data where they have been loaded; None to load them here.
        models: Registered models that have been loaded, by reference; others are loaded here.

    Returns:
        The last checkpoint, at the leading worker.

    Raises:
        ValueError: If a part of the experiment is refused, or the checkpoint does not fit.
        TrainingDiverged: If a loss, a gradient or a weight is no longer a finite number, or probes
            find the run lost, and it may not go back.
    """
    assembly = replace(assemble(Experiment.from_dict(experiment)), models=models or {})
    # On a GPU, convolutions would round to ten bits, and a difference along a path divides by h.
    torch.backends.cudnn.allow_tf32 = False
    with threads(_threads(assembly.experiment.training, place)):
        run = _Run(
            assembly=assembly,
            place=place,
            reporter=reporter,
            folder=folder,
            kept=kept or folder,
            stream=stream,
            dataset=dataset,
            guard=Guard(assembly.experiment, place),
            last=resume,
            until=assembly.experiment.training.steps if until is None else until,
            shown=frozenset(shown),
        )
        lost = run.go()
        while lost is not None:
            lost = run.go_back(lost)
    return run.last


@final
@dataclass(frozen=True, kw_only=True)
class _Lost:
    """Why a run is lost, and after how many steps."""

    why: TrainingDiverged
    step: int


@final
@dataclass(kw_only=True)
class _Run:
    """A run on its way, which may go back to its last checkpoint."""

    assembly: Assembly
    place: Place
    reporter: Reporter
    folder: Path
    kept: Path
    stream: BatchStream | None
    dataset: Dataset | None
    guard: Guard
    last: Path | None
    until: int
    shown: frozenset[int]
    _data: tuple[AbstractFeed, str] = field(init=False)

    def __post_init__(self) -> None:
        self._data = _feed_of(self.assembly, self.stream, self.dataset)

    def go(self) -> _Lost | None:
        """Walk to the end, or until the run is lost and may go back."""
        return self._go_on(self._read())

    def go_back(self, lost: _Lost) -> _Lost | None:
        """Walk again from the last checkpoint, or from the start, as the guard has it."""
        # The leading worker alone knows the checkpoint, which may lie on its node.
        found = self.place.told(self._read())
        to = 0 if found is None else found.step
        self.guard.turn_back(lost.why, step=lost.step, to=to, reporter=self.reporter)
        return self._go_on(found)

    def _read(self) -> Checkpoint | None:
        if self.last is None:
            return None
        recipe = self._recipe(checkpoints.step_of(self.last))
        return checkpoints.load(self.last, recipe=recipe)

    def _recipe(self, step: int) -> str:
        return self.assembly.recipe(self._data[1], after=step)

    def _go_on(self, found: Checkpoint | None) -> _Lost | None:
        learning = self._learning(0 if found is None else found.step)
        if found is None:
            learning.solve_coupling()
        else:
            learning.load(found.step, found.state)
            if self.stream is not None:
                # Earlier versions kept no position, and began with the first epoch.
                self.stream.go_to(found.state.get(_STREAM, FIRST))
        self.guard.attend(learning, {} if found is None else found.state)
        meter = _Meter(training=self.assembly.experiment.training, seen=learning.step)
        try:
            for turn in (*self.assembly.experiment.turns, self.until):
                if learning.step < turn <= self.until:
                    self._walk(learning, meter, to=turn)
                    learning = learning if turn == self.until else self._turned(learning)
        except TrainingDiverged as error:
            self.guard.check_return(error)
            # Its traceback would keep the whole state in memory beside the next one.
            return _Lost(why=error.with_traceback(None), step=learning.step)
        return None

    def _learning(self, step: int) -> Learning:
        """The state before the first step, with the settings of another."""
        return learning_on(self.assembly.at(step), self._data[0], self.place)

    def _turned(self, learning: Learning) -> Learning:
        """The same state with the settings that hold from its next step on."""
        made = self._learning(learning.step)
        made.load(learning.step, learning.state())
        made.slowed = learning.slowed
        return made

    def _walk(self, learning: Learning, meter: "_Meter", *, to: int) -> None:
        training, place, guard = self.assembly.experiment.training, self.place, self.guard
        keep_at = training.every(training.checkpoint_every) if training.checkpoint_every else 0
        while learning.step < to:
            logs = learning.advance()
            meter.add(logs)
            guard.note(logs, learning)
            if learning.power_averages and place.leads and _is_snapshot(learning.step, training):
                write_snapshot(self.kept, learning.power_averages, step=learning.step)
            is_end = learning.step == self.until
            is_shown = learning.step in self.shown
            # A state that is shown alone is not gone back to, so that who looks changes no run.
            is_kept = is_end or (keep_at > 0 and learning.step % keep_at == 0)
            is_due = is_kept or is_shown
            # A reading refuses losses that are no numbers: such a state must not be kept.
            if is_due or learning.step % training.every(training.log_every) == 0:
                row = meter.read(learning.step, place)
                if place.leads:
                    self.reporter.report(row, step=learning.step)
            if is_due:
                _check_weights(learning)
            if guard.is_on and (is_kept or guard.is_due(learning.step)):
                guard.look(learning, self.reporter)
            if is_end or (is_kept and not guard.is_unsure):
                self._keep(learning)
            elif is_shown:
                self._show(learning)

    def _keep(self, learning: Learning) -> None:
        """Write a checkpoint at the leading worker and tell all reporters that it is due."""
        path = None
        content = self._content(learning, self.guard.state())
        if self.place.leads:
            path = checkpoints.save(self.folder / CHECKPOINTS, content)
            keep = self.assembly.experiment.training.keep_checkpoints
            checkpoints.prune(self.folder / CHECKPOINTS, keep=keep)
        self.reporter.report({}, step=learning.step, checkpoint=path)
        self.last = path

    def _show(self, learning: Learning) -> None:
        """Do the same with a state that is not kept, away from those that a run goes on from."""
        folder, content = self.folder / SHOWN, self._content(learning, {})
        path = checkpoints.save(folder, content) if self.place.leads else None
        try:
            self.reporter.report({}, step=learning.step, checkpoint=path)
        finally:
            if self.place.leads:
                shutil.rmtree(folder)

    def _content(self, learning: Learning, guard: dict[str, Any]) -> Checkpoint:
        # All workers take their batches in step: the position of one is that of all.
        where = {} if self.stream is None else {_STREAM: dict(self.stream.position)}
        state = learning.state() | where | guard
        recipe = self._recipe(learning.step)
        return Checkpoint(step=learning.step, recipe=recipe, state=state)


def _is_snapshot(step: int, training: Training) -> bool:
    """Whether one of the evenly spaced moments of the snapshots has just been passed."""
    n, steps = training.ema_snapshots, training.steps
    return step * n // steps > (step - 1) * n // steps


def _threads(training: Training, place: Place) -> int:
    """A worker's share of the cores; threads that spin cost more than they do."""
    return training.threads or (torch.get_num_threads() if place.world == 1 else 1)


def start(
    assembly: Assembly,
    place: Place,
    *,
    stream: BatchStream | None = None,
    dataset: Dataset | None = None,
) -> tuple[Learning, str]:
    """The state before the first step, and the digest that its checkpoints carry.

    Args:
        assembly: The things of the experiment.
        place: Where this worker stands.
        stream: Batches of this worker, where the data are streamed.
        dataset: The data where they have been loaded; None to load them here.

    Returns:
        The state, and the recipe's digest.

    Raises:
        ValueError: If data, parents or pairs are missing or do not fit.
    """
    feed, digest = _feed_of(assembly, stream, dataset)
    return learning_on(assembly.at(0), feed, place), assembly.recipe(digest)


def _feed_of(
    assembly: Assembly, stream: BatchStream | None, dataset: Dataset | None
) -> tuple[AbstractFeed, str]:
    """Where rows come from, and the digest of the data, which a stream does not tell."""
    if stream is not None:
        return _streamed(assembly, stream), ""
    data = _data(assembly, dataset)
    return feed_on(assembly, data), data.digest


def has_ended(
    experiment: Experiment,
    checkpoint: Path,
    *,
    until: int | None = None,
    dataset: Dataset | None = None,
) -> bool:
    """Whether nothing is left to do after a checkpoint, without a network or a worker.

    Args:
        experiment: What is trained.
        checkpoint: The furthest checkpoint that its run has kept.
        until: Steps after which it ends; None for the whole run.
        dataset: The data where they have been loaded; None to load them here.

    Returns:
        Whether it is of the last step.

    Raises:
        ValueError: If it is altered, or belongs to another network, method or data set.
    """
    assembly = assemble(experiment)
    digest = "" if experiment.training.stream else _data(assembly, dataset).digest
    recipe = assembly.recipe(digest, after=checkpoints.step_of(checkpoint))
    found = checkpoints.load(checkpoint, recipe=recipe)
    return found.step >= (experiment.training.steps if until is None else until)


def learning_on(
    assembly: Assembly,
    feed: AbstractFeed,
    place: Place,
    *,
    net: FlowMap | None = None,
    frozen: Mapping[str, FlowMap] | None = None,
    training: Training | None = None,
) -> Learning:
    """The state of an experiment before its first step.

    Args:
        assembly: The things of the experiment.
        feed: Where rows come from.
        place: Where this worker stands.
        net: The network, in place of the one that the experiment begins with.
        frozen: Frozen networks by role, in place of those that it names.
        training: Settings in place of its own.

    Returns:
        The state.
    """
    experiment = assembly.experiment
    optimizer: OptimizerFactory = build(experiment.optimizer, object)  # type: ignore[assignment]
    return Learning(
        assembly.learner,
        (assembly.initial_net() if net is None else net).to(place.device),
        assembly.frozen() if frozen is None else frozen,
        optimizer=optimizer,
        learning_rate=assembly.learning_rate,
        feed=feed,
        training=experiment.training if training is None else training,
        seed=experiment.seed,
        place=place,
    )


def feed_on(assembly: Assembly, data: Dataset | PairSet) -> AbstractFeed:
    """The feed of an experiment on its data.

    Args:
        assembly: The things of the experiment.
        data: The set, or the pairs where the method trains on pairs.

    Returns:
        The feed.

    Raises:
        ValueError: If the data do not fill a batch, or lack a kind of pairs.
    """
    seed, batch_size = assembly.experiment.seed, assembly.experiment.training.batch_size
    if isinstance(data, Dataset):
        return DataFeed(data, seed=seed, batch_size=batch_size)
    mixed = assembly.learner.needs.pairs
    assert mixed is not None, "only such methods train on pairs"
    return PairFeed(data, mixed, seed=seed, batch_size=batch_size)


def _streamed(assembly: Assembly, stream: BatchStream) -> AbstractFeed:
    source, seed = assembly.source, assembly.experiment.seed
    is_flipped = bool(assembly.experiment.data.get("horizontal_flip", False))
    return StreamFeed(
        stream,
        shape=source.shape,
        labelled=source.classes > 0,
        flip=seed if is_flipped else None,
    )


def _data(assembly: Assembly, dataset: Dataset | None = None) -> Dataset | PairSet:
    if assembly.learner.needs.pairs is None:
        return assembly.source.load() if dataset is None else dataset
    folder = assembly.experiment.parents.pairs
    if folder is None:
        raise ValueError("pairs are generated before the workers start, got none")
    return read_pairs(Path(folder))


def _check_weights(learning: Learning) -> None:
    """Refuse weights that are no numbers: the loss that led to them may have been one."""
    groups = (group for each in learning.optimizers.values() for group in each.param_groups)
    finite = [weight.isfinite().all() for group in groups for weight in group["params"]]
    if not torch.stack(finite).all():
        raise TrainingDiverged(f"weights are not all finite after step {learning.step}; {_ADVICE}")


@final
@dataclass(kw_only=True)
class _Meter:
    """Sums what steps measure, without waiting for the device, until it is read."""

    training: Training
    seen: int
    _sums: dict[str, Tensor] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _since: float = field(default_factory=time.perf_counter)

    def add(self, logs: Mapping[str, Tensor]) -> None:
        for name, value in logs.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] += 1  # a player of a game may rest at some steps

    def read(self, step: int, place: Place) -> dict[str, float]:
        """Means since the last reading, over all workers."""
        steps, now = step - self.seen, time.perf_counter()
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        shares = means.pop(f"log/{BY_TIME}", None)
        row = dict(zip(means, place.mean(torch.stack([*means.values()])).tolist(), strict=True))
        for name, value in row.items():
            if name.startswith(("loss/", "gradient/")) and not math.isfinite(value):
                raise TrainingDiverged(f"{name} is {value} at step {step}; {_ADVICE}")
        if shares is not None:
            row |= curve(place.mean(shares))
        row["time/step_s"] = (now - self._since) / steps
        row["time/samples_per_s"] = self.training.batch_size / row["time/step_s"]
        row["progress/samples"] = float(step * self.training.batch_size)
        self.seen, self._since, self._sums = step, now, {}
        self._counts.clear()
        return row
