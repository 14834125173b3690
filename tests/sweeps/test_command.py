import argparse
import json
import shlex
from pathlib import Path

import pytest

from onestep.sweeps.command import Sweep
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.trial import experiment_of


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    Sweep().configure(parser)
    return parser.parse_args(words)


def test_a_dry_run_prints_the_sweep_and_a_line_that_trains_one_trial(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    words = ("data=moons", "net=mlp", "sweep.trials=3")
    assert Sweep().run(arguments("--dry-run", *words)) == 0
    shown, _, line = capsys.readouterr().out.partition("\none trial:\n")
    settings = SweepSettings.from_dict(json.loads(shown))
    assert settings.trials == 3
    program, command, *overrides = shlex.split(line)
    assert (program, command) == ("onestep", "train")
    experiment = experiment_of(tuple(overrides))
    assert experiment.method["times"]["diagonal"]["end"] == 0.25
    assert experiment.training.threads == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resume", "x", "--dry-run"], "drop --dry-run"),
        (["--resume", "x", "data=moons"], "keeps its settings but sweep.trials and .*data=moons"),
        (["--resume", "x", "sweep.trials=many"], "got 'sweep.trials=many'"),
        (["--resume", "x"], "there is no sweep 'x'"),
    ],
)
def test_a_bad_resume_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=said):
        Sweep().run(arguments(*words))
    assert not any(tmp_path.iterdir())
