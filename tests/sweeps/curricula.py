"""Trials of alpha flow that differ in their curricula, for tests of who may be compared."""

import functools
from dataclasses import replace
from typing import Any, Final

from onestep.methods.alpha_flow import AlphaFlow
from onestep.methods.core.schedule import Clock, Constant, Linear, Schedule
from onestep.platform.training.assembly import Assembly, parts_of
from onestep.sweeps.trial import experiment_of

ALPHA: Final = "method.alpha"
CONSTANT: Final = Constant(value=0.5)


@functools.cache
def trial(*overrides: str) -> Assembly:
    """A run of 9000 samples in batches of 90."""
    common = ("data=eight_gaussians", "net=mlp", "training.samples=9000", "training.shards=1")
    return parts_of(experiment_of((*common, "training.batch_size=90", *overrides)))


def with_training(assembly: Assembly, **changes: Any) -> Assembly:
    experiment = assembly.experiment
    training = replace(experiment.training, **changes)
    return replace(assembly, experiment=replace(experiment, training=training))


def alpha(schedule: Schedule | None = None, **changes: Any) -> Assembly:
    """Alpha flow with another curriculum, or with parts of its own changed."""
    base = trial("method=alpha_flow")
    assert isinstance(base.learner, AlphaFlow)
    schedule = replace(schedule or base.learner.alpha, **changes)
    return replace(base, learner=replace(base.learner, alpha=schedule))


def rated(rate: Schedule) -> Assembly:
    """The same with another schedule of the learning rate."""
    return replace(alpha(), learning_rate=rate)


def ramp(clock: Clock, until: float) -> Linear:
    return Linear(start=1.0, end=0.0, until=until, clock=clock)
