"""The plan of a sweep: its keys and bounds, parents and data are tried here, before Ray starts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self, final

import torch

from ..methods.core.flow_map import Domain
from ..methods.core.schedule import Schedule
from ..platform.build import class_at
from ..platform.configuration import compose
from ..platform.data.source import Dataset
from ..platform.evaluation.benchmark import Benchmark, metric_names
from ..platform.evaluation.latency import LATENCY
from ..platform.evaluation.remaining import remaining
from ..platform.evaluation.sampling import samplers_at
from ..platform.evaluation.trajectory import is_measured
from ..platform.experiment import ALL_SAMPLES, Experiment, Training, Workers
from ..platform.ray_instance import names_cluster, whole_cpus
from ..platform.registry.store import Registry
from ..platform.threads import usable_cores
from ..platform.training.assembly import Assembly, assemble
from ..platform.training.measurement import check_evaluation, prepare_benchmark
from ..platform.training.parent import ROLES, with_versions
from ..platform.training.preparation import Preparation
from ..platform.training.trial import check_trial
from .changeable import check_changeable
from .condition import Scalar
from .dimension import Dimension, Kind
from .evolution import drawn
from .fairness import require_fair
from .objective import COSTS, OF_THE_MAP
from .posthoc_check import check_posthoc
from .settings import SweepSettings
from .space import Space, override
from .stopping import StoppingKind
from .trial import experiment_of

_CHECKPOINTS: Final = "training.checkpoint_every"
_SAMPLES: Final = "training.samples"
_BATCH: Final = "training.batch_size"
_DRAWS: Final = 2000
_LEAST_FOUND: Final = 10
"""Points that must satisfy the constraints, of so many at random."""
_POINTS: Final = 8
"""Points at random beside the outermost ones, in which schedules are compared."""
_FIXED: Final = ("data", "evaluation", "storage", "workers", "run", "name", "experiment", "changes")


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep whose every key and bound has been tried on the experiment.

    Attributes:
        settings: The sweep; its objectives are named.
        base: Overrides of every trial, with those that the sweep itself adds.
        assembly: The first point of the space, built.
        budgets: Samples at which trials are measured, the whole trial last.
    """

    settings: SweepSettings
    base: tuple[str, ...]
    assembly: Assembly
    budgets: tuple[int, ...]

    @classmethod
    def of(cls, settings: SweepSettings) -> Self:
        """Check a sweep.

        Args:
            settings: The sweep.

        Returns:
            The plan.

        Raises:
            ValueError: If an override, a swept key, a bound or a count is refused.
        """
        space = settings.space
        for key in space.parts:
            _check_key(key, settings.base, is_schedule=key in space.schedules)
        _check_constraints(space)
        base, budgets = _completed(settings)
        for key in space.schedules:
            _check_schedule(key, space, base)
        assembly = assemble(experiment_of((*base, *space.overrides(space.first))))
        outermost = _try_edges(space, base)
        settings = replace(settings, objectives=settings.objectives.on(assembly.source.shape))
        plan = cls(settings=settings, base=base, assembly=assembly, budgets=budgets)
        plan._check_workers()
        if settings.scheduler.is_population:
            check_changeable(settings, assembly, outermost, samples=budgets[0])
        else:
            plan._check_fair(outermost)
        plan._check_objectives()
        check_posthoc(settings, outermost)
        samples = settings.scheduler.samples_of_a_trial(budgets)
        settings.budget.check(samples_of_a_trial=samples)
        if settings.scheduler.is_population:
            plan._check_budget_of_population(samples)
        workers = plan.experiment.workers
        settings.budget.check_trials(
            workers=workers.num_workers,
            gpus_per_worker=workers.gpus_per_worker,
            concurrency=settings.concurrency,
        )
        return plan

    @property
    def experiment(self) -> Experiment:
        """The experiment at the first point of the space."""
        return self.assembly.experiment

    @property
    def example(self) -> tuple[str, ...]:
        """The overrides of the first point of the space."""
        return (*self.base, *self.settings.space.overrides(self.settings.space.first))

    @property
    def outermost(self) -> tuple[Experiment, Experiment]:
        """The experiments with all keys at their first and at their last values.

        As far as the constraints allow: a point that they forbid gives way to the other one.
        """
        space, last = self.settings.space, dict[str, Scalar]()
        for key, one in space.dimensions.items():
            if space.point(last | {key: one.extremes[-1]}) is not None:
                last[key] = one.extremes[-1]
        point = space.point(last)
        assert point is not None
        return self.experiment, self.experiment_of(point)

    def experiment_of(self, values: Mapping[str, Scalar], *more: str) -> Experiment:
        """The experiment at a point of the space, with overrides of its own."""
        return experiment_of((*self.base, *self.settings.space.overrides(values), *more))

    @property
    def on_the_way(self) -> tuple[int, ...]:
        """Samples at which trials are measured before their end.

        None where rungs are runs of their own, or generations trials: what a run that is planned
        on more has come to is not what a run of its own comes to.
        """
        rule = self.settings.scheduler
        return () if rule.replan or rule.is_population else self.budgets[:-1]

    @property
    def samples(self) -> int:
        """Samples of a whole trial."""
        return self.budgets[-1]

    @property
    def cpus(self) -> float:
        """CPUs of all trials that run at once."""
        workers = self.experiment.workers
        reader = workers.uses_ray and self.experiment.training.stream
        each = workers.num_workers * workers.cpus_per_worker + reader
        return self.settings.concurrency * each

    @property
    def has_parents(self) -> bool:
        """Whether registered models are named as parents, for all trials or for some."""
        named, swept = self.experiment.parents, self.settings.space.parts
        return any(f"parents.{role}" in swept or getattr(named, role) for role in ROLES)

    def with_versions(self, registry: Registry) -> Self:
        """The same plan with parents as versions, so that a promotion does not part its trials.

        Args:
            registry: Where the parents are registered.

        Returns:
            The plan; its settings name the versions, too.

        Raises:
            ValueError: If a parent is not registered.
        """
        settings, space = self.settings, self.settings.space
        for key in [f"parents.{role}" for role in ROLES if f"parents.{role}" in space.parts]:
            space = space.with_values(key, _versions(space.dimensions[key], registry))
        base = with_versions(experiment_of(settings.base), registry).overrides
        pinned = replace(settings, base=base, space=space)
        return self if pinned == settings else type(self).of(pinned)

    def prepare(self, folder: Path) -> Preparation:
        """Try the first point of the space, which writes nothing.

        Args:
            folder: Folder of the sweep.

        Returns:
            What was found and made.

        Raises:
            ValueError: If parents or data are refused, the loss refuses them, or they cannot be
                measured.
        """
        # GPUs are the trials' own, and may be those of other machines.
        experiment = replace(self.experiment, workers=Workers())
        found = Preparation.of(replace(self.assembly, experiment=experiment), folder)
        self.check_measurable(found.dataset)
        return found

    def benchmark(self, dataset: Dataset) -> Benchmark:
        """The yardstick of all trials.

        Args:
            dataset: Their data.

        Returns:
            The yardstick.
        """
        return prepare_benchmark(self.experiment, dataset)

    def tuning_benchmark(self, dataset: Dataset) -> Benchmark | None:
        """The yardstick that post-hoc settings are chosen by: other held-out data, other noise.

        Args:
            dataset: The data of the trials.

        Returns:
            The yardstick; None where no settings are tried.
        """
        if self.settings.posthoc is None:
            return None
        asked = self.experiment.evaluation
        other = replace(self.experiment, evaluation=replace(asked, seed=asked.seed + 1))
        return prepare_benchmark(other, self._remaining(dataset))

    def check_measurable(self, dataset: Dataset) -> None:
        """Refuse what cannot be measured on a data set.

        Args:
            dataset: The data of the trials.

        Raises:
            ValueError: If no yardstick knows an objective, or there are too few held-out data.
        """
        known = (*metric_names(dataset), *OF_THE_MAP, LATENCY, *COSTS)
        for label, one in self.settings.objectives.by_label.items():
            if one.name not in known:
                raise ValueError(
                    f"sweep.objectives.{label}.name must be one of {', '.join(known)}, "
                    f"got {one.name!r}"
                )
        check_evaluation(self.experiment, dataset)
        if self.settings.posthoc is not None:
            self._remaining(dataset)

    def _remaining(self, dataset: Dataset) -> Dataset:
        asked = self.experiment.evaluation
        return remaining(dataset, samples=asked.samples or ALL_SAMPLES, seed=asked.seed)

    def _check_workers(self) -> None:
        check_trial(self.experiment)
        needs, parents = self.assembly.learner.needs, self.experiment.parents
        if needs.pairs is not None and parents.pairs is None:
            raise ValueError(
                f"method {self.assembly.name} trains on pairs, which a sweep does not make: name a "
                "folder of them by parents.pairs=..."
            )
        if names_cluster(self.settings.address):
            return
        self._check_gpus()
        workers, cores = self.experiment.workers, usable_cores()
        if whole_cpus(self.cpus) > cores:
            raise ValueError(
                "sweep.concurrency x workers.num_workers x workers.cpus_per_worker must be at most "
                f"the {cores} CPUs of this machine, got {self.settings.concurrency} x "
                f"{workers.num_workers} x {workers.cpus_per_worker:g}"
            )

    def _check_gpus(self) -> None:
        workers = self.experiment.workers
        if not (each := workers.gpus_per_worker):
            return
        if not torch.cuda.is_available():
            raise ValueError(
                f"workers.gpus_per_worker is {each:g}, but this machine has no GPU and neither "
                "sweep.address nor RAY_ADDRESS names a cluster"
            )
        # A trial of one process waits for the others' end, but Ray Train gives up a group that
        # does not begin. A worker takes its part of one GPU, as Ray counts: to four decimals.
        gpus, at_once = torch.cuda.device_count(), self.settings.concurrency
        if workers.uses_ray and at_once * workers.num_workers > gpus * int(round(1.0 / each, 4)):
            raise ValueError(
                "sweep.concurrency x workers.num_workers workers must find room on the "
                f"GPUs of this machine, {gpus}, got {at_once} x {workers.num_workers} that take "
                f"{each:g} of one each"
            )

    def _check_budget_of_population(self, part: int) -> None:
        """Refuse a budget with which no member comes to the end of its run.

        Args:
            part: The most samples of a trial.
        """
        # The first member that is whole needs all of them up to the last generation.
        least = self.settings.population * self.budgets[-2] + part
        if 0 < (samples := self.settings.budget.samples) < least:
            raise ValueError(
                f"sweep.budget.samples must be 0 or at least the {least} after which a member of "
                f"the population is whole, got {samples}"
            )

    def _check_fair(self, outermost: Sequence[Assembly]) -> None:
        stopping, space = self.settings.scheduler, self.settings.space
        if stopping.kind is not StoppingKind.NONE:
            points = drawn(space, count=_POINTS, seed=0)
            inner = [assemble(self.experiment_of(point)) for point in points]
            require_fair(stopping, [*outermost, *inner], self.budgets)

    def _check_objectives(self) -> None:
        domain: Domain = self.assembly.learner.domain
        allowed = [nfe for nfe, _ in samplers_at(domain, self.experiment.evaluation.nfes)]
        for label, one in self.settings.objectives.by_label.items():
            if one.nfe is not None and one.nfe not in allowed:
                raise ValueError(
                    f"sweep.objectives.{label}.nfe must be one of evaluation.nfes, {allowed}, "
                    f"got {one.nfe}"
                )
            if not is_measured(one.name, domain):
                raise ValueError(
                    f"sweep.objectives.{label}.name must be a number of the method's map: one of "
                    f"method {self.assembly.name} is trained on {domain.kind} jumps and has no "
                    f"{one.name}"
                )


def _check_key(key: str, base: tuple[str, ...], *, is_schedule: bool) -> None:
    group = key.lstrip("+~").split(".")[0].split("@")[0]
    if key[:1] in "+~" or group in _FIXED:
        raise ValueError(
            f"sweep.space cannot hold {key}: trials differ in what is trained and how, not in "
            f"{', '.join(_FIXED)}, and a key that is added belongs in sweep.base first"
        )
    for one in base:
        written = one.partition("=")[0]
        given = written.lstrip("+~")
        is_within = is_schedule and f"{given}.".startswith(f"{key}.")
        if given == key or is_within:
            raise ValueError(
                f"{written} stands both in sweep.space and among the overrides of all trials"
            )


def _check_constraints(space: Space) -> None:
    """Refuse constraints that hardly a point satisfies, for samplers draw point after point."""
    found = len(drawn(space, count=_DRAWS, seed=0)) if space.constraints else _DRAWS
    if found < _LEAST_FOUND:
        raise ValueError(
            f"sweep.space.constraints must leave at least {_LEAST_FOUND / _DRAWS:.1%} of the "
            f"points of sweep.space, got {found} of {_DRAWS} that were drawn: narrow the bounds "
            "to them"
        )


def _check_schedule(key: str, space: Space, base: tuple[str, ...]) -> None:
    """Refuse a schedule that would take the place of something else."""
    own = space.schedules[key].dimensions(key)
    point = space.point({name: own[name].extremes[0] for name in list(own)[:1]})
    assert point is not None
    others = [text for text in space.overrides(point) if text.lstrip("~+").partition("=")[0] != key]
    node: object = compose("train", (*base, *others))
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if node is None:
        compose("train", (*base, *others, f"{key}=null"))  # says which keys there are instead
    if target is None or not issubclass(class_at(str(target)), Schedule):
        found = str(target).rpartition(".")[-1] if target else repr(node)
        raise ValueError(
            f"sweep.space[{key}] draws schedules, but the experiment has no schedule there, "
            f"it has {found}"
        )


def _try_edges(space: Space, base: tuple[str, ...]) -> list[Assembly]:
    """Experiments that have every outermost value among them.

    Many values are tried at once, and one by one where that fails.
    """
    left, built = space.edges, []
    while left:
        (key, point), rest = left[0], left[1:]
        tried, left = [(key, point)], []
        for other, edge in rest:
            fixed = {name: at[name] for name, at in (*tried, (other, edge))}
            both = space.point(fixed) if len(fixed) > len(tried) else None
            if both is None:
                left.append((other, edge))
            else:
                tried.append((other, edge))
                point = both
        try:
            built.append(_try(space, base, point))
        except ValueError:
            for name, edge in tried:
                try:
                    built.append(_try(space, base, edge))
                except ValueError as error:
                    said = f"{_name(name, space)} reaches {edge[name]!r}"
                    raise ValueError(f"{said}: {error}") from error
    return built


def _try(space: Space, base: tuple[str, ...], point: Mapping[str, Scalar]) -> Assembly:
    return assemble(experiment_of((*base, *space.overrides(point))))


def _name(key: str, space: Space) -> str:
    """A dimension by the key that was written, and by its part of a schedule."""
    written = space.written(key)
    return f"sweep.space[{written}]{key.removeprefix(written)}"


def _completed(settings: SweepSettings) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The overrides of all trials, and the samples at which trials are measured.

    Overrides are added that make a trial the same wherever it is repeated, and those that make it
    keep what is measured.
    """
    base, stopping = settings.base, settings.scheduler
    experiment = experiment_of(base)
    training = experiment.training
    if training.threads == 0:
        cpus = max(1, int(experiment.workers.cpus_per_worker))
        base = (*base, override("training.threads", cpus))
    if stopping.kind is StoppingKind.NONE:
        return base, (_most_samples(settings.space, training),)
    batches = [training.batch_size]
    if (swept := settings.space.dimensions.get(_BATCH)) is not None:
        if swept.kind is not Kind.CHOICE:
            raise ValueError(
                f"sweep.space[{_BATCH}] must be a choice where trials are stopped early, for they "
                f"are measured after whole batches, got {swept.kind}"
            )
        values = [int(str(value)) for value in swept.values]
        batches = [*batches, *values] if swept.when else values
    batch, generations = math.lcm(*batches), settings.generations
    budgets = stopping.budgets(training.samples, batch=batch, generations=generations)
    if not stopping.replan and not stopping.is_population:
        if _CHECKPOINTS in settings.space.dimensions:
            raise ValueError(
                f"sweep.space cannot hold {_CHECKPOINTS} where trials are measured on their way: "
                f"set it for all of them, got sweep.scheduler.kind={stopping.kind}"
            )
        base = _with_checkpoints(base, training.checkpoint_every, at=budgets[0], batches=batches)
    return base, budgets


def _with_checkpoints(
    base: tuple[str, ...], every: int, *, at: int, batches: Sequence[int]
) -> tuple[str, ...]:
    """The overrides of trials that keep a checkpoint wherever they are measured."""
    if not any(one.startswith(f"{_CHECKPOINTS}=") for one in base):
        return (*base, override(_CHECKPOINTS, at))
    # In steps, as trials count: 2.5 batches are 2.
    if every == 0 or any(at // batch % max(1, every // batch) for batch in batches):
        raise ValueError(
            f"{_CHECKPOINTS} must divide the {at} samples at which trials are first measured, so "
            f"that there is a checkpoint of them, got {every}"
        )
    return base


def _most_samples(space: Space, training: Training) -> int:
    """Samples of the longest trial."""
    batch, swept = training.batch_size, space.dimensions.get(_SAMPLES)
    if swept is None:
        return training.steps * batch
    longest = max(int(str(one)) for one in (*swept.extremes, training.samples))
    return longest // batch * batch


def _versions(models: Dimension, registry: Registry) -> dict[Scalar, Scalar]:
    return {one: one and str(registry.entry(str(one)).reference) for one in models.values}
