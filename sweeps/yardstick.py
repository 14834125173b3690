"""What the numbers of a trial are to be compared with: data themselves, and trivial generators."""

from pathlib import Path

from ..platform.evaluation.benchmark import GAUSSIAN
from ..platform.evaluation.report import Measurement, Provenance, Report
from .objective import Objective, Objectives
from .record import TrialRecord, report_file


def yardsticks(trial: TrialRecord, objectives: Objectives, folder: Path) -> list[str]:
    """What each objective of a trial would be for data and for trivial generators.

    Args:
        trial: The trial.
        objectives: The objectives of its sweep.
        folder: Folder of the sweep.

    Returns:
        A sentence for each objective that has such numbers; none for a trial that was not measured
        whole.
    """
    report = Report.read(report_file(folder, trial.number, rung=trial.rung))
    if report is None:
        return []
    found = []
    for one in objectives.all:
        measured = _measured(report, one)
        if measured is not None and (said := _said(measured, report.provenance)):
            found.append(f"{said}{_behind(trial, one, measured)}")
    return found


def _measured(report: Report, objective: Objective) -> Measurement | None:
    """An objective by the first way of sampling; None of one that is not of the evaluation."""
    wanted = (objective.name, objective.nfe)
    return next((one for one in report.measurements if (one.name, one.nfe) == wanted), None)


def _behind(trial: TrialRecord, objective: Objective, measured: Measurement) -> str:
    gaussian = measured.baselines.get(GAUSSIAN)
    if gaussian is None or objective.sign * measured.value < objective.sign * gaussian:
        return ""
    return f" Trial {trial.number} is behind that Gaussian: look at its samples before a promotion."


def _said(measured: Measurement, provenance: Provenance) -> str:
    named = {
        "training data against held-out data": measured.floor,
        f"a {provenance.gaussian}": measured.baselines.get(GAUSSIAN),
    }
    parts = [f"{name} {value:.4g}" for name, value in named.items() if value is not None]
    return f"For comparison, {measured.name} of {', of '.join(parts)}." if parts else ""
