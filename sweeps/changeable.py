"""Changeable spaces: whether the points of a population's space can become each other."""

from collections.abc import Sequence
from dataclasses import replace

from ..platform.change import Change, check_path, difference
from ..platform.training.assembly import Assembly, assemble
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
