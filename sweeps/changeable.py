"""Changeable spaces: whether the points of a population's space can become each other."""

from collections.abc import Sequence
from dataclasses import replace

from ..platform.change import Change, check_path, difference
from ..platform.training.assembly import Assembly, assemble
from .objective import TRAINING_S
from .settings import SweepSettings


def check_changeable(
    settings: SweepSettings, first: Assembly, others: Sequence[Assembly], *, samples: int
) -> None:
    """Refuse a population whose keys cannot become others in the middle of a run.

    Args:
        settings: The sweep.
        first: One point of its space, built.
        others: Its outermost points.
        samples: Samples of the first generation.

    Raises:
        ValueError: If a key decides what a checkpoint has to fit; the message names it.
    """
    training = first.experiment.training
    if training.ema_snapshots:
        raise ValueError(
            "training.ema_snapshots are those of one run from its start, which a trial of a "
            f"population is not: leave them at 0, got {training.ema_snapshots}"
        )
    if first.experiment.guardian.retries:
        raise ValueError(
            "guardian.retries takes a run back to its start, which no trial of a population "
            f"has: leave it at 0, got {first.experiment.guardian.retries}"
        )
    if first.experiment.changes:
        raise ValueError(
            "a population changes runs on their way, and changes of its own would be lost: leave "
            f"changes out, got {len(first.experiment.changes)}"
        )
    if TRAINING_S in (one.name for one in settings.objectives.all):
        raise ValueError(
            f"{TRAINING_S} is that of a part of a run in a population, whose members all train as "
            "long: take it out of sweep.objectives"
        )
    try:
        for key in settings.space.parts:
            check_path(key)
        for one in others:
            for before, after in ((first, one), (one, first)):
                values = difference(before.experiment.nodes, after.experiment.nodes)
                changes = (Change(samples=samples, values=values),) if values else ()
                assemble(replace(before.experiment, changes=changes))
    except ValueError as error:
        kind = settings.scheduler.kind
        raise ValueError(
            f"sweep.scheduler.kind={kind} changes runs on their way: {error}"
        ) from error
