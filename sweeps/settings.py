"""The settings of a sweep, and how they and its trials' overrides come from a command line."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, final

from ..platform.configuration import SEARCH, compose, folders_named, search_in
from ..platform.settings import settings, typed_value
from .cost import Budget
from .dimension import Kind
from .objective import Objectives
from .posthoc import PostHoc, Timing
from .sampler import LEARNS_NOT, OF_ONE, SamplerKind
from .space import Space
from .stopping import Stopping, StoppingKind
from .warm_start import WarmStart

_MODULE: Final = "onestep.sweeps.conf"
_LEAST_OF_CMAES: Final = 5
_LARGEST_SEED: Final = 2**32 - 1
"""Of NumPy's older generators, which some samplers use."""
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,60}", re.ASCII)
_OF_FOUNDERS: Final = (SamplerKind.RANDOM, SamplerKind.QMC)
_STARTS: Final = (SamplerKind.TPE, SamplerKind.GP, SamplerKind.CMAES)
_BREEDS: Final = (SamplerKind.NSGA2, SamplerKind.NSGA3, SamplerKind.CMAES)
_DECIDE: Final = {
    "startup": {"trials", "sampler"},
    "population": {"sampler", "scheduler", "scheduler.kind"},
}
"""The settings that decide whether one has an effect."""
_OWN: Final = ("sweep=", "sweep.", "+sweep.", "++sweep.", "~sweep.")


@final
@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """What a sweep tries.

    Attributes:
        name: What the sweep is called; a run of it adds the time.
        base: Overrides of every trial.
        space: Keys that differ between trials, with their values.
        objectives: The numbers to improve.
        posthoc: What is tried on the weights of each trial, without training; None for nothing.
        latency: How the latency of trials is measured.
        trials: How many trials end in all.
        concurrency: How many run at once.
        retries: How often a trial goes on from its last checkpoint after its process or node died.
        sampler: Who suggests the points.
        startup: Random trials before the sampler learns from the others.
        population: Trials of a generation, for genetic search, CMA-ES and populations of the
            scheduler.
        seed: Seed of the suggestions. They are the same again for a sampler that learns nothing,
            and for all others at one trial at a time.
        scheduler: Who may end a trial early.
        budget: What all trials may spend together.
        warm_start: Where the first points come from, which are tried before any other.
        storage: URL of Optuna's database; empty for SQLite in the home.
        address: A running Ray cluster, or empty for RAY_ADDRESS and else an instance of its own.
        wandb: Whether each trial is a run of Weights & Biases, in a group of the sweep's name.

    Raises:
        ValueError: If a setting is out of range.
    """

    name: str
    base: tuple[str, ...]
    space: Space
    objectives: Objectives
    posthoc: PostHoc | None = None
    latency: Timing = Timing()
    trials: int = 16
    concurrency: int = 2
    retries: int = 3
    sampler: SamplerKind = SamplerKind.TPE
    startup: int = 8
    population: int = 20
    seed: int = 0
    scheduler: Stopping = Stopping()
    budget: Budget = Budget()
    warm_start: WarmStart = WarmStart()
    storage: str = ""
    address: str = ""
    wandb: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", tuple(self.base))
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                "sweep.name must be letters, digits, '_', '.' or '-', at most 61 and not a sign "
                f"first, got {self.name!r}"
            )
        if self.sampler not in list(SamplerKind):
            raise ValueError(
                f"sweep.sampler must be one of {', '.join(SamplerKind)}, got {self.sampler!r}"
            )
        object.__setattr__(self, "sampler", SamplerKind(self.sampler))
        least_of = {"trials": 1, "concurrency": 1, "retries": 0, "startup": 1}
        least_of |= {"population": 2, "seed": 0}
        for name, least in least_of.items():
            if (value := getattr(self, name)) < least:
                raise ValueError(f"sweep.{name} must be at least {least}, got {value}")
        if self.seed > _LARGEST_SEED:
            raise ValueError(f"sweep.seed must be at most {_LARGEST_SEED}, got {self.seed}")
        self._check_kinds()
        if self.scheduler.kind is not StoppingKind.NONE and "training.samples" in self.space.parts:
            raise ValueError(
                "sweep.space cannot hold training.samples where trials are stopped early: they are "
                f"compared at equal samples, got sweep.scheduler.kind={self.scheduler.kind}"
            )
        stops = not self.scheduler.replan and not self.scheduler.is_population
        if self.posthoc is not None and stops and self.scheduler.kind is not StoppingKind.NONE:
            raise ValueError(
                "sweep.posthoc judges whole trials in their best settings, and rungs on the way "
                "as trained: set sweep.scheduler.replan=true or sweep.scheduler.kind=none, got "
                f"{self.scheduler.kind}"
            )
        if self.scheduler.is_population:
            self._check_population()
        else:
            self._check_stopping()
        if self.sampler in OF_ONE and len(self.objectives.all) > 1:
            raise ValueError(
                f"sweep.sampler {self.sampler} improves one number, got "
                f"{', '.join(self.objectives.labels)}"
            )

    def _check_stopping(self) -> None:
        """Refuse a sampler that learns from whole trials alone where most do not become whole."""
        kind, count = self.scheduler.kind, len(self.objectives.all)
        learns = self.sampler is SamplerKind.TPE and count == 1
        if kind is not StoppingKind.NONE and not learns and self.sampler not in LEARNS_NOT:
            raise ValueError(
                f"sweep.scheduler.kind={kind} takes sweep.sampler {', '.join(LEARNS_NOT)}, or "
                f"{SamplerKind.TPE} with one objective, for others learn nothing from a trial that "
                f"is stopped or waits at a rung; got {self.sampler} and {count} objectives"
            )

    def _check_kinds(self) -> None:
        """Refuse keys that the sampler cannot draw."""
        laws = self.space.dimensions
        endless = [key for key, one in laws.items() if one.kind in (Kind.UNIFORM, Kind.LOG_UNIFORM)]
        if self.sampler is SamplerKind.GRID and endless:
            raise ValueError(
                f"sweep.sampler grid takes keys of the kinds {Kind.CHOICE}, {Kind.INT} and "
                f"{Kind.LOG_INT}, got {laws[endless[0]].kind} for {endless[0]}"
            )
        if self.sampler in OF_ONE and self.population < _LEAST_OF_CMAES:
            raise ValueError(
                f"sweep.population must be at least {_LEAST_OF_CMAES} with sweep.sampler "
                f"{self.sampler}, got {self.population}"
            )
        if self.sampler in OF_ONE and all(one.kind is Kind.CHOICE for one in laws.values()):
            raise ValueError(
                f"sweep.sampler {self.sampler} moves numbers, got choices alone: {', '.join(laws)}"
            )

    def _check_population(self) -> None:
        if self.posthoc is not None:
            raise ValueError(
                "sweep.posthoc tries what a whole training gives, and trials of a population are "
                f"parts of one: take it out, or another sweep.scheduler.kind than "
                f"{self.scheduler.kind}"
            )
        if self.trials % self.population or self.trials < 2 * self.population:
            raise ValueError(
                "sweep.trials must be sweep.population times the generations of the run, at least "
                f"2, got {self.trials} and {self.population}"
            )
        if self.sampler not in _OF_FOUNDERS:
            raise ValueError(
                f"sweep.sampler suggests the first generation alone with sweep.scheduler.kind="
                f"{self.scheduler.kind}: it must be {' or '.join(_OF_FOUNDERS)}, got {self.sampler}"
            )

    @property
    def idle(self) -> dict[str, str]:
        """Settings that have no effect beside the others, each with why in one sentence."""
        found = {}
        if self.sampler not in _STARTS:
            found["startup"] = (
                f"sweep.startup has no effect with sweep.sampler={self.sampler}, which learns "
                f"after random trials with {', '.join(_STARTS)} alone"
            )
        elif self.startup >= self.trials:
            found["startup"] = (
                f"sweep.startup must be below sweep.trials, or {self.sampler} suggests no trial: "
                f"got {self.startup} and {self.trials}"
            )
        if self.sampler not in _BREEDS and not self.scheduler.is_population:
            found["population"] = (
                f"sweep.population has no effect with sweep.sampler={self.sampler} and "
                f"sweep.scheduler.kind={self.scheduler.kind}"
            )
        return found

    @property
    def unlearned(self) -> str:
        """Why a sampler that learns comes to suggest nothing, in words; nothing where it does."""
        first = self.startup if self.sampler in _STARTS else self.population
        if self.sampler in LEARNS_NOT or first < self.trials:
            return ""
        name = "startup" if self.sampler in _STARTS else "population"
        return (
            f"sweep.sampler={self.sampler} learns nothing in {self.trials} trials: the first "
            f"{first} are random ones (sweep.{name})"
        )

    @property
    def founders(self) -> int:
        """Trials that begin from the start, which in a population are its first generation."""
        return self.population if self.scheduler.is_population else self.trials

    @property
    def generations(self) -> int:
        """Parts of a run that are trials of their own; 1 where there is no population."""
        return self.trials // self.population if self.scheduler.is_population else 1

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The settings that plain values describe.

        Args:
            values: As ``to_dict`` gives them, or as Hydra composes them.

        Returns:
            The settings.

        Raises:
            ValueError: If a key is unknown or missing, or a value of another type or out of range.
        """
        parts = dict(values)
        records = {
            "scheduler": Stopping,
            "budget": Budget,
            "latency": Timing,
            "warm_start": WarmStart,
        }
        for name, record in records.items():
            if name in parts:
                parts[name] = settings(record, f"sweep.{name}", parts[name])
        if "objectives" in parts:
            parts["objectives"] = Objectives.from_dict(parts["objectives"])
        if "posthoc" in parts:
            parts["posthoc"] = PostHoc.from_dict(parts["posthoc"])
        if "space" in parts:
            parts["space"] = Space.from_dict(parts["space"])
        return settings(cls, "sweep", parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which ``from_dict`` makes equal settings."""
        values = asdict(self)
        values["base"] = list(self.base)
        values["space"] = self.space.to_dict()
        values["objectives"] = self.objectives.to_dict()
        values["posthoc"] = None if self.posthoc is None else self.posthoc.to_dict()
        values["sampler"] = str(self.sampler)
        values["scheduler"]["kind"] = str(self.scheduler.kind)
        values["warm_start"]["sweeps"] = list(self.warm_start.sweeps)
        return values


def settings_of(overrides: Sequence[str]) -> SweepSettings:
    """The sweep that a command line asks for.

    Args:
        overrides: Those of ``sweep`` choose and change the sweep; all others join the overrides of
            every trial.

    Returns:
        The settings.

    Raises:
        ValueError: If an override of the sweep is refused.
    """
    own = [one for one in overrides if one.startswith(_OWN)]
    others = [one for one in overrides if not one.startswith((*_OWN, SEARCH))]
    folders = folders_named(overrides)
    # Whole paths: trials need not begin in the folder in which the sweep does.
    search = [search_in(folders)] if folders else []
    node = dict(compose("sweep", [*search, *own], module=_MODULE)["sweep"])
    base = typed_value("sweep.base", node.get("base", ()), tuple[str, ...])
    node["base"] = _last_of_each_key([*search, *base, *others])
    made = SweepSettings.from_dict(node)
    _check_effect(made, [one.lstrip("+~").partition("=")[0] for one in own])
    return made


def _check_effect(made: SweepSettings, written: Sequence[str]) -> None:
    """Refuse a setting that has no effect, unless nobody has asked for more than its default.

    What the file of a sweep says may lose its effect by what a command line changes.
    """
    given = {key.removeprefix("sweep.") for key in written}
    for name, why in made.idle.items():
        is_default = getattr(made, name) == getattr(SweepSettings, name)
        if name in given or not (is_default or given & _DECIDE[name]):
            raise ValueError(why)


def _last_of_each_key(overrides: Sequence[str]) -> list[str]:
    """The same overrides without assignments that a later one of the same key replaces."""
    last = {one.partition("=")[0]: place for place, one in enumerate(overrides)}
    return [one for place, one in enumerate(overrides) if last[one.partition("=")[0]] == place]
