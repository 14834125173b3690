"""A disk that fills up under a run: one sentence, and nothing that a later run would trust."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onestep.platform.cli import USER_ERROR, main
from onestep.platform.home import Home
from onestep.platform.registry.store import Registry

TRAIN = [
    "train",
    "run=mine",
    "data=eight_gaussians",
    "data.samples=128",
    "data.held_out=64",
    "net=mlp",
    "net.width=256",
    "training.samples=128",
    "training.batch_size=32",
    "evaluation.samples=64",
    "evaluation.nfes=[1]",
]
LIMITED = """
import resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from onestep.platform.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def home(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "home"
    root.mkdir()
    shutil.copy(empty_database, root / "mlflow.db")
    for name in ("MLFLOW_TRACKING_URI", "ONESTEP_ARTIFACTS", "ONESTEP_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ONESTEP_HOME", str(root))
    return root


def refusal(limit_bytes: int) -> str:
    """What a training says in a process that no file may grow above a limit in."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit_bytes), *TRAIN],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == USER_ERROR, done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("onestep train: ")
    return said


def parts(home: Path) -> list[Path]:
    """Files that were not finished."""
    return [*home.rglob("*.part"), *(home / "runs").rglob(".step-*")]


@pytest.mark.slow
def test_a_checkpoint_without_room_is_refused_and_the_run_can_be_repeated(home: Path) -> None:
    # The database stays below two megabytes, the checkpoint has ten.
    said = refusal(2_000_000)
    assert "File too large" in said
    assert "state.pt" in said
    assert "Traceback" not in said
    assert list((home / "runs" / "mine").rglob("step-*")) == []
    assert parts(home) == []
    assert Registry.at(Home.here()).list() == ()

    assert main(TRAIN) == 0
    (entry,) = Registry.at(Home.here()).list()
    assert str(entry.reference) == "eight_gaussians/1"


@pytest.mark.slow
def test_a_store_without_room_is_refused_before_a_step(home: Path) -> None:
    said = refusal((home / "mlflow.db").stat().st_size + 1024)
    assert f"the MLflow store at sqlite:///{home / 'mlflow.db'} does not answer" in said
    assert not (home / "runs" / "mine" / "run.json").exists()
    assert not (home / "runs" / "mine" / "checkpoints").exists()
    assert parts(home) == []
