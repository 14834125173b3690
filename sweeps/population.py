"""Populations: which trial is to be begun next, by nothing but the trials that there are.

A member is trained in generations, each of which is a trial: it goes on from the state of the one
before, or from that of a better member with other numbers. A generation begins when the one before
it has ended whole, so that its trials do not depend on who came first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..platform.change import GROUPS, difference
from ..platform.configuration import compose
from ..platform.training import checkpoint as checkpoints
from ..platform.training.errors import CheckpointAltered
from ..platform.training.worker import CHECKPOINTS
from .condition import Scalar
from .evolution import Point, drawn, explored, sources
from .lineage import LINEAGE, Beginning, Lineage
from .ranking import Values
from .record import UNTRIED, TrialRecord, folder_of_trial
from .settings import SweepSettings
from .space import Space, override
from .stopping import StoppingKind

_CANDIDATES: Final = 256
_CHANGES: Final = "changes"


@final
@dataclass(frozen=True, kw_only=True)
class Child:
    """A trial that is to be begun.

    Attributes:
        point: The numbers that it trains with.
        lineage: Where it belongs.
    """

    point: dict[str, Scalar]
    lineage: Lineage

    def keep(self, study: Study, space: Space) -> None:
        """Write it into a study as a running trial, at once or not at all."""
        laws = {key: space.dimensions[key].distribution for key in self.point}
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=self.point,
                distributions=laws,
                user_attrs={LINEAGE: self.lineage.to_dict()},
            )
        )


@final
class Population:
    """Begets the trials of all generations but the first, whose points the sampler suggests.

    Args:
        settings: The sweep.
        base: Overrides of every trial.
        budgets: Samples at which each generation ends.
        folder: Folder of the sweep.
    """

    def __init__(
        self,
        settings: SweepSettings,
        *,
        base: tuple[str, ...],
        budgets: tuple[int, ...],
        folder: Path,
    ) -> None:
        self._settings, self._base, self._budgets = settings, base, budgets
        self._folder = folder

    def founder(self, number: int, trials: Sequence[FrozenTrial], own: tuple[str, ...]) -> Lineage:
        """The lineage of a trial of the first generation.

        Args:
            number: The trial.
            trials: All that there are.
            own: Its own overrides.
        """
        member = sum(UNTRIED not in one.user_attrs for one in trials[:number])
        return Lineage(member=member, generation=0, own=own)

    def samples(self, lineage: Lineage) -> tuple[int, int]:
        """The samples from which to which a trial trains."""
        ends = (0, *self._budgets)
        return ends[lineage.generation], ends[lineage.generation + 1]

    def next(self, trials: Sequence[FrozenTrial]) -> Child | None:
        """The trial that is to be begun next.

        Args:
            trials: All that there are.

        Returns:
            It; None where a generation has to end first, or none is left.

        Raises:
            CheckpointAltered: If the checkpoint is gone from which it goes on.
        """
        tried = [one for one in trials if LINEAGE in one.user_attrs]
        members = self._settings.population
        if len(tried) < members or len(tried) >= members * len(self._budgets):
            return None
        member, before = len(tried) % members, len(tried) // members - 1
        parents = self._generation(tried, before)
        if any(one.state == TrialState.RUNNING for one in parents):
            return None
        seeds = {k: self._seed(before + 1, k) for k in range(members)}
        rngs = {k: np.random.default_rng(seed) for k, seed in seeds.items()}
        results = {k: self._values(one) for k, one in enumerate(parents)}
        source = sources(results, self._settings.scheduler.quantile, rngs)
        if not source:
            return None
        parent = parents[source[member]]
        point: Point = parent.params
        if source[member] != member:
            begun = self._generation(tried, before + 1)
            point = self._moved(point, tried, begun, rngs[member], generation=before + 1)
        return self._child(member, parent, point, trials, was_replaced=source[member] != member)

    def is_extinct(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether all trials of a generation have failed, so that there will be no other."""
        tried = [one for one in trials if LINEAGE in one.user_attrs]
        members = self._settings.population
        generation = self._generation(tried, len(tried) // members - 1)
        lost = (TrialState.FAIL, TrialState.PRUNED)
        return len(tried) >= members and all(one.state in lost for one in generation)

    def _generation(self, tried: Sequence[FrozenTrial], generation: int) -> list[FrozenTrial]:
        """Its trials, by member."""
        found = [(_lineage(one), one) for one in tried]
        own = [(it.member, one) for it, one in found if it.generation == generation]
        return [one for _, one in sorted(own, key=lambda pair: pair[0])]

    def _seed(self, *places: int) -> np.random.SeedSequence:
        return np.random.SeedSequence((self._settings.seed, *places))

    def _values(self, trial: FrozenTrial) -> Values:
        if trial.state != TrialState.COMPLETE:
            return (inf,) * len(self._settings.objectives.all)
        return self._settings.objectives.smaller_is_better(TrialRecord.of(trial).results)

    def _moved(
        self,
        point: Point,
        tried: Sequence[FrozenTrial],
        begun: Sequence[FrozenTrial],
        rng: np.random.Generator,
        *,
        generation: int,
    ) -> Point:
        """The numbers of a copy, in place of those of the one that it copies."""
        from .bandit import Step, chosen  # scikit-learn is slow to import

        space, scheduler = self._settings.space, self._settings.scheduler
        if scheduler.kind is StoppingKind.PBT:
            return explored(space, point, scheduler, rng)
        by_number = {one.number: one for one in tried}
        steps = [
            Step(
                generation=lineage.generation,
                point=one.params,
                before=self._values(by_number[lineage.parent]),
                after=self._values(one),
            )
            for one in tried
            if (lineage := _lineage(one)).parent is not None and lineage.generation < generation
        ]
        seed = int(rng.integers(2**31))
        return chosen(
            space,
            steps,
            drawn(space, count=_CANDIDATES, seed=seed) or [point],
            generation=generation,
            pending=[one.params for one in begun],
            seed=seed,
        )

    def _child(
        self,
        member: int,
        parent: FrozenTrial,
        point: Point,
        trials: Sequence[FrozenTrial],
        *,
        was_replaced: bool,
    ) -> Child:
        before = _lineage(parent)
        since = self._budgets[before.generation]
        changes = before.changes
        if dict(point) != parent.params:
            values = difference(self._nodes(parent.params), self._nodes(point))
            changes = (*changes, *([{"samples": since, "values": values}] if values else []))
        return Child(
            point=dict(point),
            lineage=Lineage(
                member=member,
                generation=before.generation + 1,
                own=(*self._first(parent, trials), *_override(changes)),
                changes=changes,
                parent=parent.number,
                beginning=self._beginning(parent.number),
                was_replaced=was_replaced,
            ),
        )

    def _first(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> tuple[str, ...]:
        """The overrides of the first ancestor."""
        lineage = _lineage(trial)
        while lineage.parent is not None:
            lineage = _lineage(trials[lineage.parent])
        return lineage.own

    def _nodes(self, point: Point) -> Mapping[str, Any]:
        composed = compose("train", (*self._base, *self._settings.space.overrides(point)))
        return {name: composed[name] for name in GROUPS}

    def _beginning(self, number: int) -> Beginning:
        own = folder_of_trial(self._folder, number, rung=None) / CHECKPOINTS
        last = checkpoints.latest(own)
        if last is None:
            # A sweep keeps those of its newest generations, but somebody may have deleted them.
            raise CheckpointAltered(
                f"there is no checkpoint of trial {number} any more, from which its population "
                f"goes on: put it back into {own}, or begin a new sweep"
            )
        where = last.relative_to(self._folder)
        return Beginning(checkpoint=str(where), sha256=checkpoints.digest_of(last))


def _lineage(trial: FrozenTrial) -> Lineage:
    return Lineage.from_dict(trial.user_attrs[LINEAGE])


def _override(changes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The override that makes changes, if there are any."""
    return (f"{_CHANGES}={_text(list(changes))}",) if changes else ()


def _text(value: Any) -> str:
    """A plain value in Hydra's grammar."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    return override("", value).removeprefix("=")
