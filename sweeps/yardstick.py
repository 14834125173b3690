"""What the numbers of a trial are to be compared with: data themselves, and trivial generators."""

from pathlib import Path

from ..platform.evaluation.report import Measurement, Provenance, Report
from .objective import Objectives
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
    file = report_file(folder, trial.number, rung=trial.rung)
    if not file.exists():
        return []
    report = Report.from_json(file.read_text())
    wanted = {(one.name, one.nfe) for one in objectives.all}
    found = {
        (one.name, one.nfe): one
        for one in reversed(report.measurements)  # the first way of sampling comes last
        if (one.name, one.nfe) in wanted
    }
    known = (found.get((one.name, one.nfe)) for one in objectives.all)
    return [said for one in known if one is not None and (said := _said(one, report.provenance))]


def _said(measured: Measurement, provenance: Provenance) -> str:
    named = {
        "training data against held-out data": measured.floor,
        f"a {provenance.gaussian}": measured.baselines.get("gaussian"),
    }
    parts = [f"{name} {value:.4g}" for name, value in named.items() if value is not None]
    return f"For comparison, {measured.name} of {', of '.join(parts)}." if parts else ""
