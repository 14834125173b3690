from pathlib import Path

import pytest

from onestep.platform.cli import main
from onestep.platform.configuration import compose

SMALL = ("data=moons", "net=mlp", "net.width=16")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_advice_is_for_a_method_that_takes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *SMALL, "method=mean_flow"]) == 0
    (advice,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("use: "))
    overrides = advice.removeprefix("use: ").strip("'").split("' '")
    assert compose("train", [*SMALL, "method=mean_flow", *overrides])["method"]["derivative"]

    assert main(["doctor", *SMALL, "method=flow_matching"]) == 0
    out = capsys.readouterr().out
    assert "best: " in out
    assert "method.derivative" not in out
