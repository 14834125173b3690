"""The bar of a training: samples, loss and error, whatever a window of metrics holds."""

import pytest

from onestep.platform.experiment import Experiment
from onestep.platform.training.watcher import Console
from onestep.tests.platform.training.recipe import BATCH, TAUGHT_GAME, recipe


def test_the_bar_goes_on_while_the_network_of_a_game_rests(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)  # elsewhere there is no bar
    run = Experiment.from_dict(recipe(TAUGHT_GAME, steps=3, parents={"teacher": "points/1"}))
    with Console("it: ").training(run) as bar:
        bar.report({"loss/fake": 1.0, "progress/samples": 1.0 * BATCH}, step=1)
        bar.report({"loss/online": 2.5, "log/error": 0.5, "progress/samples": 2.0 * BATCH}, step=2)
        bar.report({}, step=2)  # a checkpoint
        bar.report({"loss/fake": 1.0, "progress/samples": 3.0 * BATCH}, step=3)
        bar.close()
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith("it: training: 100%")
    assert "96.0/96.0" in last
    assert "loss=2.5, error=0.5" in last, "what was known last stays"


def test_lines_bear_the_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    Console("it: ").say("done")
    assert capsys.readouterr().out == "it: done\n"
