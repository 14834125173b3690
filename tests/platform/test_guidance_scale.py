"""A model with a guidance scale is measured, sampled and served at the one of its training."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from onestep.platform.api import Model, load, train
from onestep.platform.cli import main
from onestep.platform.training.sequence import StageSequence
from onestep.serving.loading import load_engine
from onestep.serving.settings import AppSettings

COMMON = (
    "data=digits",
    "net=mlp_digits",
    "training.samples=5120",
    "training.threads=1",
    "evaluation.samples=64",
    "evaluation.nfes=[1]",
)
GUIDED = ("method=improved_mean_flow", "method.guidance.highest=4", "+net.guided=true")


@pytest.fixture(scope="module", autouse=True)
def home(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONESTEP_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def model() -> Model:
    return train(*COMMON, *GUIDED, "evaluation.guidance=3", progress=False)


@pytest.fixture(scope="module")
def plain() -> Model:
    return train(*COMMON, "training.samples=512", progress=False)


def test_the_scale_of_the_training_is_that_of_the_model(model: Model) -> None:
    again = model.evaluate(nfes=(1,), samples=64)
    assert again.provenance.guidance == 3.0
    value = again.metrics()["eval/sliced_w2/nfe_1"]
    assert value == model.record.metrics["eval/sliced_w2/nfe_1"]
    other = load(model.reference, guidance=1.0)
    assert other.evaluate(nfes=(1,), samples=64).metrics()["eval/sliced_w2/nfe_1"] != value


def test_samples_follow_the_scale(model: Model) -> None:
    own = model.sample(8, seed=2)
    assert torch.equal(own, load(model.reference, guidance=3.0).sample(8, seed=2))
    assert not torch.equal(own, load(model.reference, guidance=1.0).sample(8, seed=2))


def test_it_is_served_at_that_scale(model: Model) -> None:
    engine, _ = load_engine(AppSettings(model=model.reference, bucket=4))
    (served,) = engine.sample([engine.accept("7", seed=2, n=4)])
    torch.testing.assert_close(
        served.clamp(-1.0, 1.0), model.sample(4, labels=7, seed=2), atol=1e-5, rtol=0.0
    )


def test_the_command_line_takes_a_scale(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", model.reference, "--guidance", "2", "--samples", "64"]) == 0
    assert f"| {model.reference}, guidance 2 | 1 |" in capsys.readouterr().out
    one, other = tmp_path / "one.png", tmp_path / "other.png"
    for path, scale in ((one, "1"), (other, "4")):
        asked = ["sample", model.reference, "--n", "10", "--guidance", scale, "--out", str(path)]
        assert main(asked) == 0
    assert one.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_scale_that_means_nothing_is_refused_before_anything_is_loaded(
    model: Model, plain: Model, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for asked, words in (
        ([plain.reference, "--guidance", "2"], "takes no guidance scale as an input, got guid"),
        ([model.reference, "--guidance", "0.5"], "a guidance scale must be at least 1, got 0.5"),
    ):
        assert main([command, *asked, "--dry-run"]) == 2
        assert words in capsys.readouterr().err


def test_an_evaluation_at_a_scale_needs_a_network_that_takes_one() -> None:
    for overrides, words in (
        (["evaluation.guidance=2"], "evaluation.guidance needs a network that takes a guidance"),
        (["evaluation.guidance=0.5"], "evaluation.guidance must be at least 1, got 0.5"),
    ):
        with pytest.raises(ValueError, match=words):
            StageSequence.from_overrides([*COMMON, *overrides]).check()
