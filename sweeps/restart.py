"""Restarts: from where each trial goes on that was running when its sweep was cut off."""

from pathlib import Path

from optuna.trial import FrozenTrial

from ..platform.training import checkpoint as checkpoints
from ..platform.training.worker import CHECKPOINTS
from .lineage import LINEAGE, Lineage
from .plan import Plan
from .record import RUNG, folder_of_trial


def restart(trial: FrozenTrial, plan: Plan, folder: Path) -> str:
    """From where a trial goes on, in one sentence.

    Args:
        trial: The trial, which has been begun and has not ended.
        plan: The sweep.
        folder: Its folder.
    """
    place = folder_of_trial(folder, trial.number, rung=trial.user_attrs.get(RUNG))
    last = checkpoints.latest(place / CHECKPOINTS)
    if last is not None:
        batch_size = plan.experiment_of(trial.params).training.batch_size
        samples = checkpoints.step_of(last) * batch_size
        return f"trial {trial.number} goes on from {samples:,} samples"
    if LINEAGE in trial.user_attrs:
        parent = Lineage.from_dict(trial.user_attrs[LINEAGE]).parent
        if parent is not None:
            return f"trial {trial.number} begins anew from the end of trial {parent}"
    return f"trial {trial.number} begins anew"
