"""The experiment: everything that decides what a run trains, as frozen records."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Self, final

from ..methods.core.precision import Precision
from .change import GROUPS, Change
from .guardian import Guardian
from .settings import settings, typed_value

Node = Mapping[str, Any]
LEAST_SAMPLES: Final = 8
"""Fewer samples of a draw, or held-out data, can tell no model from another."""
ALL_SAMPLES: Final = 2000
"""Samples of a draw where nobody names a number; sets hold out fewer, or enough. Reports compare
only at equal numbers, so that all commands take this one."""


@final
@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and how a network is trained.

    Attributes:
        samples: Samples seen in the whole run, rounded down to whole batches.
        batch_size: Samples of one optimizer step, over all workers.
        shards: Equal parts of a batch that draw random numbers of their own. The number of
            workers divides it; the result does not depend on the number of workers.
        accumulate: Forward and backward passes into which each worker cuts its part of a batch.
        precision: ``float32``, ``bfloat16`` (network under autocast) or ``float64``.
        clip_norm: Largest norm of the gradient; 0 for none.
        compile: Whether the network is compiled by torch.compile.
        stream: Whether workers read the data as a stream of Ray Data, not from memory; the order
            then depends on the number of workers.
        ema_half_lives: Half-life, in samples, of each moving average that is kept.
        ema_ramp: Share of the samples seen so far above which no half-life goes, so that early
            averages forget the start.
        ema_served: Which of the averages is evaluated and registered, from 0.
        ema_snapshots: How often in a run two more averages are written down, from which
            ``onestep average`` makes one of any width; 0 for never.
        log_every: Samples between two rows of metrics.
        checkpoint_every: Samples between two checkpoints; 0 for one at the end.
        keep_checkpoints: Latest checkpoints that stay on disk.
        threads: Threads of torch for each worker; 0 for all cores in this process, and for one
            thread in each process that Ray starts.

    Raises:
        ValueError: If a count is out of range or the parts of a batch do not come out even.
    """

    samples: int
    batch_size: int
    shards: int = 4
    accumulate: int = 1
    precision: Precision = Precision.FLOAT32
    clip_norm: float = 1.0
    compile: bool = False
    stream: bool = False
    ema_half_lives: tuple[float, ...] = (50_000.0,)
    ema_ramp: float = 0.05
    ema_served: int = 0
    ema_snapshots: int = 0
    log_every: int = 10_000
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    threads: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", _choice("training.precision", self.precision))
        object.__setattr__(self, "ema_half_lives", tuple(self.ema_half_lives))
        for name in ("batch_size", "shards", "accumulate", "log_every", "keep_checkpoints"):
            _require_least(f"training.{name}", getattr(self, name), 1)
        if self.samples < self.batch_size:
            raise ValueError(
                f"training.samples must be at least one batch of {self.batch_size}, "
                f"got {self.samples}"
            )
        if self.batch_size % self.shards:
            raise ValueError(
                f"training.batch_size must be a multiple of training.shards, "
                f"got {self.batch_size} and {self.shards}"
            )
        for name in ("clip_norm", "checkpoint_every", "threads"):
            _require_least(f"training.{name}", getattr(self, name), 0)
        if not self.ema_half_lives or min(self.ema_half_lives) <= 0:
            raise ValueError(
                "training.ema_half_lives must be one or more positive numbers of samples, "
                f"got {list(self.ema_half_lives)}"
            )
        if self.ema_ramp <= 0:
            raise ValueError(f"training.ema_ramp must be positive, got {self.ema_ramp}")
        if not 0 <= self.ema_snapshots <= self.steps:
            raise ValueError(
                f"training.ema_snapshots must be in [0, {self.steps}], the steps of the run, "
                f"got {self.ema_snapshots}"
            )
        if not 0 <= self.ema_served < len(self.ema_half_lives):
            raise ValueError(
                f"training.ema_served must be below {len(self.ema_half_lives)}, "
                f"got {self.ema_served}"
            )

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return self.samples // self.batch_size

    def every(self, samples: int) -> int:
        """A number of samples as a number of steps, at least 1."""
        return max(1, samples // self.batch_size)


def _require_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _choice(name: str, value: str) -> Precision:
    try:
        return Precision(value)
    except ValueError:
        allowed = ", ".join(Precision)
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}") from None


@final
@dataclass(frozen=True, kw_only=True)
class Workers:
    """On what a run is trained.

    Attributes:
        num_workers: Processes that share each batch; 1 trains in the calling process unless
            ``ray`` is set.
        gpus_per_worker: GPUs of each worker, 0 for CPU; 0 or 1 in the calling process.
        cpus_per_worker: CPUs that Ray reserves for each worker.
        ray: Whether a single worker is started by Ray Train too.
        max_failures: How often Ray Train restarts the group from its last checkpoint.
        address: A running Ray cluster, ``auto``, or empty for RAY_ADDRESS and else an instance of
            its own.

    Raises:
        ValueError: If a count is out of range.
    """

    num_workers: int = 1
    gpus_per_worker: float = 0.0
    cpus_per_worker: float = 1.0
    ray: bool = False
    max_failures: int = 2
    address: str = ""

    def __post_init__(self) -> None:
        _require_least("workers.num_workers", self.num_workers, 1)
        for name in ("gpus_per_worker", "cpus_per_worker", "max_failures"):
            _require_least(f"workers.{name}", getattr(self, name), 0)

    @property
    def uses_ray(self) -> bool:
        """Whether Ray Train starts the workers."""
        return self.ray or self.num_workers > 1


@final
@dataclass(frozen=True, kw_only=True)
class Parents:
    """Registered models and stored pairs that a run starts from.

    Attributes:
        initial: Reference of the model whose weights the network starts with, or None.
        teacher: Reference of the frozen teacher, or None.
        weak: Reference of a frozen weaker model for autoguidance, or None.
        pairs: Folder of a stored set of pairs, or None.
    """

    initial: str | None = None
    teacher: str | None = None
    weak: str | None = None
    pairs: str | None = None

    @property
    def frozen(self) -> Mapping[str, str]:
        """References of the frozen models, by role."""
        roles = {"teacher": self.teacher, "weak": self.weak}
        return {role: reference for role, reference in roles.items() if reference}


@final
@dataclass(frozen=True, kw_only=True)
class PairGeneration:
    """How pairs of noise and data are made by a teacher, where a method asks for stored pairs.

    Attributes:
        count: Pairs from fresh noise.
        steps: Heun steps of each pair; fixed, so that the result does not depend on the batch.
        guidance: Scale of classifier-free guidance of the teacher, at least 0; 1 for none. Others
            need a teacher whose method drops labels; weights trained elsewhere are not asked.
        real: Whether the training data are paired with the noise that the teacher's flow takes
            back from them.
        batch_size: Pairs made at once.
        seed: Seed of the noise.

    Raises:
        ValueError: If a count is out of range.
    """

    count: int = 10_000
    steps: int = 25
    guidance: float = 1.0
    real: bool = True
    batch_size: int = 500
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("count", "steps", "batch_size"):
            _require_least(f"pairs.{name}", getattr(self, name), 1)
        for name in ("seed", "guidance"):
            _require_least(f"pairs.{name}", getattr(self, name), 0)

    def lineage(self, teacher: str, *, weights: str, data_digest: str) -> dict[str, Any]:
        """Where pairs made so come from: all that decides them.

        Args:
            teacher: Version of the teacher.
            weights: Digest of its weights; another registry may hold another model of its name.
            data_digest: Digest of the data.

        Returns:
            Plain values.
        """
        return {
            "teacher": teacher,
            "teacher_weights": weights,
            "data_digest": data_digest,
            "solver": "Heun, uniform steps",
            "steps": self.steps,
            "seed": self.seed,
            "count": self.count,
            "real": self.real,
            # Sets from before there was guidance are sets without.
            **({} if self.guidance == 1.0 else {"guidance": self.guidance}),
        }


@final
@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a trained model is measured.

    Attributes:
        nfes: Numbers of network evaluations of a sample, at each of which the trained map has a
            sampler; the default list stands for those of its numbers that the map allows.
        samples: Samples of a draw at each, at least 8, and no more than there are held-out or
            training data; 0 for 2000.
        seed: Seed of the noise.
        guidance: Guidance scale of a network that takes one as an input, at least 1; the model is
            sampled, measured, compared and served at it; `sample` and `evaluate` take another.

    Raises:
        ValueError: If a number is out of range.
    """

    nfes: tuple[int, ...] = (1, 2, 4, 8)
    samples: int = 0
    seed: int = 7
    guidance: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "nfes", tuple(self.nfes))
        if not 1.0 <= self.guidance < math.inf:
            raise ValueError(
                f"evaluation.guidance must be finite and at least 1, got {self.guidance:g}"
            )
        if not self.nfes or min(self.nfes) < 1:
            raise ValueError(
                "evaluation.nfes must be one or more whole numbers of at least 1, "
                f"got {list(self.nfes)}"
            )
        _require_least("evaluation.seed", self.seed, 0)
        if self.samples < 0 or 0 < self.samples < LEAST_SAMPLES:
            raise ValueError(
                f"evaluation.samples must be 0, for {ALL_SAMPLES}, or at least {LEAST_SAMPLES}, "
                f"got {self.samples}"
            )


@final
@dataclass(frozen=True, kw_only=True)
class Storage:
    """Where a run writes.

    Attributes:
        tracking_uri: MLflow tracking URI; empty for MLFLOW_TRACKING_URI, else SQLite in the home.
        wandb: Whether Weights & Biases receives the metrics too; offline unless WANDB_MODE says
            otherwise.
    """

    tracking_uri: str = ""
    wandb: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training run. Things are nodes that name their class, settings are records.

    Attributes:
        name: What the run is called, with which the name of a fresh folder begins; empty for the
            names of its data and its method.
        run: Name of the run's folder; a run that has a checkpoint goes on from it. Empty for a
            fresh one.
        published: What a paper reports of the settings that a recipe follows, or ``none`` and why
            there is no such figure; empty for a run that follows none.
        seed: Seed of initial weights, order of the data and all random numbers.
        data: Node of the data source.
        net: Node of the network.
        method: Node of the method.
        optimizer: Node of the optimizer, a partial constructor.
        learning_rate: Node of the schedule that multiplies the optimizer's learning rate.
        training: How long and how.
        changes: Numbers and schedules that become others on the way, in their order.
        guardian: Whether it is probed on the way, and what follows where it is lost.
        workers: On what.
        parents: From which models and pairs.
        pairs: How pairs are generated where the method needs them.
        evaluation: How the result is measured.
        storage: Where it is written.
        overrides: The command line that composed all this.

    Raises:
        ValueError: If the seed is negative, a name is no name of a folder, or changes are not in
            their order or change what is not there.
    """

    seed: int
    data: Node
    net: Node
    method: Node
    optimizer: Node
    learning_rate: Node
    training: Training
    name: str = ""
    run: str = ""
    published: str = ""
    changes: tuple[Change, ...] = ()
    guardian: Guardian = Guardian()
    workers: Workers = Workers()
    parents: Parents = Parents()
    pairs: PairGeneration = PairGeneration()
    evaluation: Evaluation = Evaluation()
    storage: Storage = Storage()
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_least("seed", self.seed, 0)
        for key, text in (("run", self.run), ("name", self.name)):
            if text and not re.fullmatch(r"[\w-][\w.-]*", text):
                raise ValueError(
                    f"{key} must be the name of a folder (letters, digits, dot, dash, underscore), "
                    f"got {text!r}"
                )
        if not self.name:
            object.__setattr__(self, "name", name_of(data=self.data, method=self.method))
        self._check_changes()

    def _check_changes(self) -> None:
        steps = [one.samples // self.training.batch_size for one in self.changes]
        if steps and (
            steps != sorted(set(steps)) or not 0 < steps[0] <= steps[-1] < self.training.steps
        ):
            raise ValueError(
                "changes must follow each other by whole batches, within the "
                f"{self.training.samples} samples of the run, got them after "
                f"{', '.join(str(one.samples) for one in self.changes)}"
            )
        _ = self.turns

    @property
    def nodes(self) -> dict[str, Node]:
        """The nodes in which changes are made, by name."""
        return {name: getattr(self, name) for name in GROUPS}

    @property
    def turns(self) -> dict[int, "Experiment"]:
        """The steps before which something becomes different, and the experiment from there on."""
        found = dict[int, Experiment]()
        before: Experiment = replace(self, changes=()) if self.changes else self
        for one in self.changes:
            made = one.applied(before.nodes)
            after = replace(
                before,
                method=made["method"],
                optimizer=made["optimizer"],
                learning_rate=made["learning_rate"],
            )
            if after.nodes != before.nodes:
                found[one.samples // self.training.batch_size] = after
            before = after
        return found

    def at(self, step: int) -> "Experiment":
        """The experiment by whose settings a step is taken.

        Args:
            step: Steps taken before it.

        Returns:
            The experiment, without changes where it has some.
        """
        found: Experiment = replace(self, changes=()) if self.changes else self
        for since, one in self.turns.items():
            if since <= step:
                found = one
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], overrides: tuple[str, ...] = ()) -> Self:
        """The experiment that plain values describe.

        Args:
            values: As ``to_dict`` gives them, or as Hydra composes them.
            overrides: The overrides that composed the values, if they are not among them.

        Returns:
            The experiment.

        Raises:
            ValueError: If a key is unknown or a value out of range.
        """
        records = {
            "training": Training,
            "guardian": Guardian,
            "workers": Workers,
            "parents": Parents,
            "pairs": PairGeneration,
            "evaluation": Evaluation,
            "storage": Storage,
        }
        parts: dict[str, Any] = {"overrides": overrides} | dict(values)
        parts["overrides"] = tuple(parts["overrides"])
        for name, record in records.items():
            if name in parts:
                parts[name] = settings(record, name, parts[name])
        if "changes" in parts:
            parts["changes"] = _changes(parts["changes"])
        unknown = sorted(set(parts) - {f.name for f in fields(cls)})
        if unknown:
            allowed = ", ".join(f.name for f in fields(cls))
            raise ValueError(f"an experiment has no part {', '.join(unknown)}, allowed: {allowed}")
        for name in ("name", "run", "published", "seed"):
            if name in parts:
                parts[name] = typed_value(name, parts[name], int if name == "seed" else str)
        for name in ("data", "net", "method", "optimizer", "learning_rate"):
            if not isinstance(parts.get(name), Mapping):
                raise ValueError(
                    f"{name} must be a node that names its class, got {parts.get(name)!r}"
                )
        if "training" not in parts:
            raise ValueError("an experiment needs the settings training, got none")
        return cls(**parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a worker, a checkpoint or a registry."""
        values = asdict(self)
        values["training"]["precision"] = str(self.training.precision)
        return values


def _changes(values: object) -> tuple[Change, ...]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"changes must be a list, got {values!r}")
    return tuple(settings(Change, f"changes[{place}]", node) for place, node in enumerate(values))


def module_of(node: Node) -> str:
    """The name of the file that a node's class stands in, which is its configuration's name."""
    parts = str(node.get("_target_", "")).split(".")
    if len(parts) < 2:
        raise ValueError(f"_target_ must be a dotted path to a class, got {parts[0]!r}")
    return parts[-2]


def name_of(*, data: Node, method: Node) -> str:
    """What a run of these is called where nobody names it."""
    return f"{module_of(data)}-{module_of(method)}"
