"""Every division of a batch and every interruption gives the recorded losses."""

from pathlib import Path

import pytest

from onestep.tests.platform.training import golden
from onestep.tests.platform.training.group import run_group, train_here, train_many

methods = pytest.mark.parametrize("name", golden.METHODS)


def assert_recorded(found: dict[int, float], name: str) -> None:
    assert found == pytest.approx(golden.read(name), rel=1e-10)


@methods
def test_the_recorded_losses_fall(name: str) -> None:
    """Otherwise a file of constants would do."""
    recorded = golden.read(name)
    assert list(recorded) == list(range(1, golden.STEPS + 1))
    assert len(set(recorded.values())) == golden.STEPS
    first, last = (sum(recorded[k] for k in steps) for steps in ((1, 2, 3), (18, 19, 20)))
    assert last < first


@methods
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_one_worker_gives_the_recorded_losses_in_any_parts(
    parts: int, name: str, tmp_path: Path
) -> None:
    _, reporter = train_here(golden.experiment(name, tmp_path, accumulate=parts), tmp_path)
    assert_recorded(golden.losses(reporter.rows), name)


@methods
def test_an_interrupted_run_gives_the_recorded_losses(name: str, tmp_path: Path) -> None:
    experiment = golden.experiment(name, tmp_path)
    _, before = train_here(experiment, tmp_path)
    start = tmp_path / "checkpoints" / "step-0000000007"
    _, after = train_here(experiment, tmp_path / "again", start)
    resumed = golden.losses(after.rows)
    assert min(resumed) == 8
    first = {step: loss for step, loss in golden.losses(before.rows).items() if step < 8}
    assert_recorded(first | resumed, name)


@pytest.mark.slow
def test_two_workers_give_the_recorded_losses(tmp_path: Path) -> None:
    experiments = {
        name: golden.experiment(name, tmp_path / f"{name} data") for name in golden.METHODS
    }
    rows = run_group(train_many, 2, experiments, tmp_path)[0]
    for name in golden.METHODS:
        assert_recorded(golden.losses(rows[name]), name)
