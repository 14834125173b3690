"""The winner of a sweep: its weights, which are kept while it leads and registered at the end."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from optuna.study import Study

from ..platform.data.pairs import PairSet
from ..platform.evaluation.report import Report
from ..platform.registry.run import Run
from ..platform.training import checkpoint as checkpoints
from ..platform.training.assembly import assemble, registry_of
from ..platform.training.preparation import Preparation
from ..platform.training.registration import register
from ..platform.training.snapshot import SNAPSHOTS
from ..platform.training.worker import CHECKPOINTS, SHOWN
from .bench import Used
from .lineage import ancestors, needed
from .objective import Objectives
from .plan import Plan
from .posthoc_setting import setting_of
from .record import Outcome, TrialRecord, folder_of_trial, report_file
from .report import ranked
from .trial import experiment_of

KEPT: Final = 4
"""Trials whose weights are kept."""
MODELS: Final = "models"
"""Where the study says which trials are registered, and as what."""


def leaders_of(order: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials whose weights are kept to the end, of trials in order."""
    finished = [one for one in order if one.outcome is Outcome.FINISHED]
    # Of a population those of one generation: the weights of earlier ones are gone.
    return [one for one in finished if one.samples == finished[0].samples or not one.lineage][:KEPT]


def keep_leaders(
    folder: Path,
    trials: Sequence[TrialRecord],
    objectives: Objectives,
    *,
    generations: int = 1,
) -> list[TrialRecord]:
    """Delete the weights of all ended trials but the leading ones, and those others go on from.

    Args:
        folder: Folder of the sweep.
        trials: The trials that have ended. Where there is no population, those that led before and
            those that ended since do: the best of all is always among them, and by one objective
            all that lead.
        objectives: The numbers to improve.
        generations: Those of a population; 1 where there is none.

    Returns:
        The trials that lead now.
    """
    leaders = leaders_of(ranked(trials, objectives))
    kept = {folder_of_trial(folder, one.number, rung=one.rung) for one in leaders}
    lineages = {one.number: one.lineage for one in trials if one.lineage is not None}
    going_on = needed(lineages, generations=generations)
    kept |= {folder_of_trial(folder, number, rung=None) for number in going_on}
    for trial in trials:
        place = folder_of_trial(folder, trial.number, rung=None)
        for one in {place, *place.glob("rung-*")} - kept:
            _delete_weights(one)
    return leaders


def forget_rungs(folder: Path, number: int) -> None:
    """Delete the weights of the runs of a trial that have ended at rungs: the next begins anew.

    Args:
        folder: Folder of the sweep.
        number: The trial, which waits at a rung.
    """
    for report in folder_of_trial(folder, number, rung=None).glob("rung-*/report.json"):
        _delete_weights(report.parent)


def _delete_weights(place: Path) -> None:
    for weights in (CHECKPOINTS, SHOWN, SNAPSHOTS):
        shutil.rmtree(place / weights, ignore_errors=True)


def unregistered(best: TrialRecord, samples: int) -> str:
    """Why the model of the best trial is not registered, in one sentence; nothing if it is.

    Args:
        best: The best trial; whole ones come first.
        samples: Samples of a whole run.
    """
    if best.outcome is not Outcome.FINISHED:
        return "nothing is registered: no trial ran whole"
    if best.lineage is not None and best.samples < samples:
        return (
            "nothing is registered: no member of the population is whole, the best has seen "
            f"{best.samples:,} of {samples:,} samples"
        )
    return ""


def revision_of(best: TrialRecord, trials: Sequence[TrialRecord], *, unknown: str) -> str:
    """The code that a trial was trained with, and those that it goes on from; several in turn.

    Args:
        best: The trial.
        trials: All that have ended.
        unknown: What is said of a trial of which nobody knows.
    """
    by_number = {one.number: one for one in trials}
    lineages = {one.number: one.lineage for one in trials if one.lineage is not None}
    line = ancestors(best.number, lineages) if best.lineage is not None else (best.number,)
    found = (by_number[number].revisions or (unknown,) for number in line)
    return ", ".join(dict.fromkeys(one for some in found for one in some))


def weights_of(best: TrialRecord, folder: Path) -> Path:
    """The last checkpoint of the best trial.

    Args:
        best: The trial.
        folder: Folder of the sweep.

    Returns:
        The checkpoint.

    Raises:
        ValueError: If it has been taken away.
    """
    place = folder_of_trial(folder, best.number, rung=best.rung) / CHECKPOINTS
    last = checkpoints.latest(place)
    if last is None:
        raise ValueError(
            f"trial {best.number} is the best, but its checkpoints are no longer in {place}: bring "
            "them back, or train its model again by its line in the table"
        )
    return last


def register_winner(
    best: TrialRecord,
    plan: Plan,
    ready: Preparation,
    run: Run,
    *,
    study: Study,
    folder: Path,
    revision: str,
) -> str | None:
    """Register the model of the best trial, with its own MLflow run as its origin.

    The study remembers it.

    Args:
        best: The best trial.
        plan: The sweep.
        ready: The sweep's data and what makes images of them.
        run: MLflow run of the trial.
        study: The study.
        folder: Folder of the sweep.
        revision: Revision of the code that trained it.

    Returns:
        The registered model, or None where the best trial did not come to its end.

    Raises:
        ValueError: If its checkpoints are gone.
    """
    if unregistered(best, plan.samples):
        return None
    known = registry_of(plan.experiment).made_by(run.run_id)
    if known is None:
        sweep = f"{study.study_name}, trial {best.number}"
        model = _register(best, plan, ready, run, folder=folder, revision=revision, sweep=sweep)
    else:
        model = str(known)
    models = study.user_attrs.get(MODELS, {})
    study.set_user_attr(MODELS, {**models, str(best.number): model})
    return model


def _register(
    best: TrialRecord,
    plan: Plan,
    ready: Preparation,
    run: Run,
    *,
    folder: Path,
    revision: str,
    sweep: str,
) -> str:
    place = folder_of_trial(folder, best.number, rung=best.rung)
    last = weights_of(best, folder)
    setting = setting_of(best, plan.settings.posthoc)
    lineage = best.lineage
    own = plan.settings.space.overrides(best.values) if lineage is None else lineage.own
    assembly = assemble(experiment_of((*plan.base, *own, *setting.train)))
    used = Used.of(assembly, setting, last, folder=place, data=ready.dataset)
    made = register(
        replace(ready, assembly=assembly),
        used.flow_map,
        Report.from_json(report_file(folder, best.number, rung=best.rung).read_text()),
        run,
        place,
        pairs=used.data if isinstance(used.data, PairSet) else None,
        registry=registry_of(plan.experiment),
        revision=revision,
        sampler=setting.node,
        sweep=sweep,
    )
    return str(made.reference)
