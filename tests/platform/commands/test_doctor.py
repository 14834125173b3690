import json
from pathlib import Path

import pytest

from onestep.platform.cli import main
from onestep.platform.configuration import compose
from onestep.platform.training import synchronisation
from onestep.platform.training.synchronisation import Synchronisation

SMALL = ("data=moons", "net=mlp", "net.width=16")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def found(difference: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two processes find; they take seconds to start."""
    result = Synchronisation(workers=2, difference=difference)
    monkeypatch.setattr(synchronisation, "check_synchronised", lambda experiment: result)


@pytest.mark.slow
def test_the_whole_check_of_a_method_needs_neither_its_teacher_nor_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", *SMALL, "method=consistency_distillation"]) == 0
    out = capsys.readouterr().out
    for name in ("whole batch, with graph", "forward mode", "central diff", "forward diff"):
        (row,) = (line for line in out.splitlines() if line.startswith(name))
        assert row.count("x ") == 2
    assert "best: " in out
    assert "method.derivative" not in out
    assert "gradients of consistency_distillation in 2 processes are those of one" in out


@pytest.mark.parametrize(
    "said",
    [pytest.param((), marks=pytest.mark.slow), ("derivative@method.derivative=auto",)],
    ids=str,
)
def test_the_advice_is_for_a_method_that_takes_it(
    said: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found(1e-16, monkeypatch)
    asked = [*SMALL, "method=mean_flow", *said]
    assert main(["doctor", *asked]) == 0
    (advice,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("use: "))
    overrides = advice.removeprefix("use: ").strip("'").split("' '")
    chosen = compose("train", [*asked, *overrides])["method"]["derivative"]
    assert not chosen["_target_"].endswith("FastestDerivative")


def test_a_dry_run_prints_the_experiment_and_looks_at_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = "storage.tracking_uri=mysql://ada:secret@127.0.0.1:9/db"
    assert main(["doctor", *SMALL, "method=shortcut", store, "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["method"]["_target_"].endswith(".Shortcut")
    assert told["storage"]["tracking_uri"] == "mysql://ada:***@127.0.0.1:9/db"
    assert not any(tmp_path.iterdir())


def test_gradients_that_are_not_shared_are_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found(0.5, monkeypatch)
    assert main(["doctor", *SMALL, "method=flow_matching"]) == 1
    assert "in 2 processes are NOT those of one: largest difference 5.0e-01" in (
        capsys.readouterr().out
    )
