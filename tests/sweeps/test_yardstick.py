from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from onestep.platform.evaluation.report import Measurement, Provenance, Report
from onestep.sweeps.cost import NOTHING
from onestep.sweeps.objective import Objective, Objectives
from onestep.sweeps.record import Outcome, TrialRecord, report_file
from onestep.sweeps.yardstick import yardsticks

_OBJECTIVES: Final = Objectives(
    by_label={
        "quality": Objective(name="eval/frechet_features", nfe=1),
        "cost": Objective(name="cost/training_s"),
    }
)
_TRIAL: Final = TrialRecord(
    number=3,
    overrides=(),
    values={},
    outcome=Outcome.FINISHED,
    results=(),
    samples=100,
    cost=NOTHING,
    reason="",
)
_PROVENANCE: Final = Provenance(
    model="trial",
    data="digits",
    data_digest=64 * "0",
    features="coordinates",
    classifier_accuracy=None,
    classes=10,
    count=100,
    draws=4,
    seed=0,
)
_MEASURED: Final = Measurement(
    name="eval/frechet_features",
    value=5.8,
    interval=(5.5, 6.1),
    count=100,
    draws=4,
    space="features",
    nfe=1,
    sampler="jumps",
    floor=0.7661,
    baselines={"gaussian": 1.929, "training_data": 0.5},
)


def written(folder: Path, *measurements: Measurement) -> Path:
    file = report_file(folder, 3, rung=None)
    file.parent.mkdir(parents=True)
    file.write_text(Report(provenance=_PROVENANCE, measurements=measurements).to_json())
    return folder


def test_an_objective_is_told_beside_data_and_a_gaussian_at_its_own_evaluations(
    tmp_path: Path,
) -> None:
    other = replace(_MEASURED, nfe=2, floor=0.1)
    folder = written(tmp_path, _MEASURED, replace(_MEASURED, sampler="other", floor=0.2), other)
    assert yardsticks(_TRIAL, _OBJECTIVES, folder) == [
        "For comparison, eval/frechet_features of training data against held-out data 0.7661, "
        "of a Gaussian per class 1.929. Trial 3 is behind that Gaussian: look at its samples "
        "before a promotion."
    ]
    ahead = written(tmp_path / "ahead", replace(_MEASURED, value=1.9))
    assert yardsticks(_TRIAL, _OBJECTIVES, ahead)[0].endswith("of a Gaussian per class 1.929.")


@pytest.mark.parametrize("has_report", [False, True])
def test_nothing_is_told_where_nothing_was_measured(tmp_path: Path, has_report: bool) -> None:
    folder = written(tmp_path, replace(_MEASURED, nfe=2)) if has_report else tmp_path
    assert yardsticks(_TRIAL, _OBJECTIVES, folder) == []
