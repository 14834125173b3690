"""Sequences: stages that build on each other, such as a teacher and the student of its pairs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, final

from ...methods.core.method import View
from ...methods.nets.condition_embedding import scale_weights
from ..configuration import compose
from ..experiment import Experiment
from ..registry.model import fill
from .assembly import Assembly, assemble
from .ended import model_of_ended
from .footprint import META
from .launch import launch
from .parent import (
    require_data,
    require_fit,
    require_lost_labels,
    require_same_data,
    require_scale,
)
from .perception import with_perception
from .place import check_place
from .registration import Trained
from .watcher import Watcher

_STAGES: Final = "stages"
_RUN: Final = "run"
_STAGE: Final = re.compile(r"\{(\w+)\}")
"""A stage's name in braces; Hydra's dictionaries have a colon or nothing in theirs."""


@final
@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of a sequence.

    Attributes:
        name: What later stages call its model.
        overrides: What composes its experiment; ``{name}`` stands for the model of an earlier
            stage.
    """

    name: str
    overrides: tuple[str, ...]

    def experiment(self, models: Mapping[str, str]) -> Experiment:
        """The experiment of this stage.

        Args:
            models: Reference of the model of each earlier stage.

        Returns:
            The experiment.

        Raises:
            ValueError: If it names a stage that does not come before it, or is refused.
        """

        def model(found: re.Match[str]) -> str:
            if found[1] not in models:
                earlier = ", ".join(models) or "none"
                raise ValueError(
                    f"stage {self.name} names the stage {found[1]!r}, earlier stages are {earlier}"
                )
            return models[found[1]]

        filled = tuple(_STAGE.sub(model, line) for line in self.overrides)
        return with_perception(Experiment.from_dict(compose("train", filled), filled))


@final
@dataclass(frozen=True, kw_only=True)
class StageSequence:
    """Stages in their order. One stage is the common case, and needs no sequence.

    Attributes:
        stages: The stages.
    """

    stages: tuple[Stage, ...]

    @classmethod
    def of(cls, plan: Mapping[str, Sequence[str]], common: Sequence[str] = ()) -> Self:
        """The sequence of a plan: overrides by the name of the stage.

        Args:
            plan: Overrides of each stage.
            common: Overrides that go after those of every stage.

        Returns:
            The sequence.
        """
        return cls(
            stages=tuple(
                Stage(name=name, overrides=(*overrides, *common))
                for name, overrides in plan.items()
            )
        )

    @classmethod
    def from_overrides(cls, overrides: Sequence[str]) -> Self:
        """The sequence that a command line asks for.

        Args:
            overrides: ``stages=...`` and overrides of every stage, or those of one experiment. With
                ``run=first`` the folder of a stage ``teacher`` is called first-teacher.

        Returns:
            The sequence.

        Raises:
            ValueError: If there are no such stages.
        """
        chosen = [line for line in overrides if line.partition("=")[0] == _STAGES]
        named = [line for line in overrides if line.partition("=")[0].lstrip("+") == _RUN]
        plan = compose("train", [*chosen, *named]).get(_STAGES)
        if not plan:
            return cls.of({"model": [line for line in overrides if line not in chosen]})
        run = named[-1].partition("=")[2].strip("'\"") if named else ""
        if run:  # as it was written: 0 is a name
            plan = {name: [*lines, f"{_RUN}={run}-{name}"] for name, lines in plan.items()}
        return cls.of(plan, [line for line in overrides if line not in (*chosen, *named)])

    def check(self) -> tuple[Experiment, ...]:
        """Assemble every stage, before the first one starts.

        Returns:
            The experiments, with the names of stages for models that do not exist yet.

        Raises:
            ValueError: If a stage is refused.
        """
        assemblies: dict[str, Assembly] = {}
        for stage in self.stages:
            assembly = assemble(stage.experiment({name: name for name in assemblies}))
            check_place(assembly.experiment)
            _check_parents(assembly, assemblies)
            assemblies[stage.name] = assembly
        return tuple(assembly.experiment for assembly in assemblies.values())

    def run(self, watcher: Watcher) -> dict[str, Trained]:
        """Run all stages; those that have ended under their names are not trained again.

        Args:
            watcher: Told what happens.

        Returns:
            What each stage that was trained left behind, the last one among them.

        Raises:
            ValueError: If a stage is refused, or all have ended.
        """
        self.check()
        done, models = dict[str, Trained](), dict[str, str]()
        for stage in self.stages:
            experiment = stage.experiment(models)
            is_last = stage is self.stages[-1]
            model = None if is_last else model_of_ended(experiment)
            if model is None:
                if len(self.stages) > 1:
                    watcher.say(f"stage {stage.name}")
                done[stage.name] = launch(experiment, watcher)
                model = str(done[stage.name].reference)
            else:
                watcher.say(f"stage {stage.name} has ended and registered {model}")
            models[stage.name] = model
        return done


def _check_parents(assembly: Assembly, earlier: Mapping[str, Assembly]) -> None:
    """Refuse the models of earlier stages as they would be refused once they are registered."""
    learner, parents = assembly.learner, assembly.experiment.parents
    for role, reading in learner.needs.frozen.items():
        reference = parents.frozen[role]
        if reference in earlier:
            data, parent = earlier[reference].source, earlier[reference].learner
            require_data(role, shape=data.shape, classes=data.told_classes, source=assembly.source)
            require_fit(role, reference, parent.domain, reading=reading, student=learner.domain)
            if reading.view is View.GUIDED:
                require_lost_labels("guidance", reference, parent)
            with META:
                require_scale(
                    role,
                    reference,
                    earlier[reference].net(),
                    learner.needs,
                    drawn=earlier[reference].learner.needs.scales,
                )
    teacher = parents.teacher
    if learner.needs.pairs and not parents.pairs and teacher and teacher in earlier:
        require_same_data(teacher, _known(earlier[teacher]), _known(assembly))
        if assembly.experiment.pairs.guidance != 1.0:
            require_lost_labels("pairs.guidance", teacher, earlier[teacher].learner)
    initial = parents.initial
    if initial and initial in earlier:
        with META:
            net = assembly.net()
            weights = earlier[initial].net().state_dict()
            fill(net, weights, model=initial, new=scale_weights(net))


def _known(assembly: Assembly) -> dict[str, object]:
    """What is known of the data before they are read."""
    return {"shape": assembly.source.shape, "classes": assembly.source.told_classes}
