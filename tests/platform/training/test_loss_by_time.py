"""The loss of each tenth of time, from its rows to what a run reports."""

import math
from pathlib import Path

import pytest
import torch

from onestep.methods.core.record import Loss
from onestep.platform.training.loss_by_time import by_time, curve
from onestep.platform.training.place import Place
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.worker import work
from onestep.tests.platform.training.recipe import FLOW_MATCHING, recipe


def loss(times: list[float], values: list[float]) -> Loss:
    half = 0.5 * torch.tensor(values)
    return Loss(terms={"one": half, "other": half}, times=torch.tensor(times))


def test_each_tenth_has_the_mean_of_its_rows() -> None:
    shares = by_time(loss([0.0, 0.02, 0.55, 1.0], [1.0, 3.0, 5.0, 7.0]))
    assert shares is not None
    assert curve(shares) == pytest.approx(
        {"loss_at/0.05": 2.0, "loss_at/0.55": 5.0, "loss_at/0.95": 7.0}
    )


def test_means_over_steps_weigh_rows_alike() -> None:
    first = by_time(loss([0.1, 0.1, 0.1, 0.9], [1.0, 1.0, 1.0, 0.0]))
    second = by_time(loss([0.1, 0.9, 0.9, 0.9], [5.0, 0.0, 0.0, 0.0]))
    assert first is not None
    assert second is not None
    assert curve((first + second) / 2)["loss_at/0.15"] == pytest.approx(2.0)


def test_a_loss_without_times_has_no_curve() -> None:
    assert by_time(Loss(terms={"one": torch.ones(3)})) is None


def test_a_run_reports_the_loss_where_its_times_lie(tmp_path: Path) -> None:
    law = {
        "_target_": "onestep.methods.core.time_law.LogitNormal",
        "mean": math.log(0.35 / 0.65),
        "std": 1e-3,
    }
    times = {"_target_": "onestep.methods.core.times.DiagonalTimes", "law": law}
    values = recipe({**FLOW_MATCHING, "times": times}, steps=2, training={"accumulate": 2})
    reporter = MemoryReporter()
    work(values, place=Place(), reporter=reporter, folder=tmp_path)
    row = max(reporter.rows, key=len)
    found = {name: value for name, value in row.items() if name.startswith("loss_at/")}
    assert found == pytest.approx({"loss_at/0.35": row["loss/online"]}, rel=1e-5)
