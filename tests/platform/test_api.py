"""The Python API does what the command line does."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.sampler import Jumps, Renoise
from onestep.platform.api import Model, load, train
from onestep.platform.cli import main

SHORT = ("training.samples=2048", "training.batch_size=256", "training.threads=1")


@pytest.fixture(scope="module", autouse=True)
def home(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONESTEP_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def model() -> Model:
    return train("data=digits", "evaluation.samples=100", *SHORT, progress=False)


def test_training_registers_and_an_alias_loads_the_same_model(model: Model) -> None:
    assert main(["registry", "promote", model.reference, "champion", "--why", "the only one"]) == 0
    loaded = load("champion")
    assert loaded.reference == model.reference == "digits/1"
    assert torch.equal(loaded.sample(4, seed=3), model.sample(4, seed=3))


def test_a_sample_depends_on_its_seed_number_and_label_alone(model: Model) -> None:
    many = model.sample(12, nfe=2, seed=1)
    assert many.shape == (12, 1, 8, 8)
    two = model.sample(2, nfe=2, labels=[0, 1], seed=1)
    torch.testing.assert_close(many[:2], two, atol=1e-5, rtol=0.0)  # rounding knows the batch
    assert not torch.equal(many[:2], model.sample(2, nfe=2, labels=5, seed=1))
    assert not torch.equal(many, model.sample(12, nfe=2, seed=2))
    assert float(many.abs().max()) <= 1.0


def test_a_sampler_can_be_given(model: Model) -> None:
    two = Jumps(grid=UniformGrid(steps=2))
    assert torch.equal(model.sample(4, sampler=two), model.sample(4, nfe=2))
    assert not torch.equal(model.sample(4, sampler=Renoise()), model.sample(4, nfe=2))


def test_a_report_has_the_numbers_of_the_training(model: Model) -> None:
    report = model.evaluate(nfes=(1,), samples=100)
    found = report.metrics()["eval/1nn_accuracy/nfe_1"]
    assert found == model.record.metrics["eval/1nn_accuracy/nfe_1"]


@pytest.mark.parametrize(
    ("n", "asked", "sentence"),
    [
        (0, {}, "samples need n >= 1 and seed >= 0, got 0 and 0"),
        (1, {"seed": -1}, "samples need n >= 1 and seed >= 0, got 1 and -1"),
        (2, {"labels": 10}, r"labels must be one class or 2 of them in 0\.\.9, got 10"),
        (2, {"labels": [1]}, r"labels must be one class or 2 of them in 0\.\.9, got \[1\]"),
        (1, {"caption": "a seven"}, "digits/1 takes no captions, got 'a seven'"),
        (1, {"nfe": 0}, "numbers of evaluations must be at least 1"),
        (1, {"nfe": 2, "sampler": Jumps()}, "either nfe or a sampler with its own steps, got both"),
    ],
)
def test_senseless_requests_are_refused(
    model: Model, n: int, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        model.sample(n, **asked)


def test_a_measurement_with_a_negative_seed_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="seed of an evaluation must be at least 0, got -1"):
        model.evaluate(seed=-1)


def test_stages_give_the_last_model_and_data_without_classes_take_no_labels() -> None:
    small = ("data.samples=512", "data.held_out=128", "pairs.count=256", "pairs.steps=2")
    stages = ("stages=eight_gaussians_reflow", "evaluation.samples=64", "evaluation.nfes=[1]")
    model = train(*stages, *small, *SHORT, progress=False)
    assert model.record.parents["teacher"] == "eight_gaussians/1"
    assert model.reference == "eight_gaussians/2"
    assert model.sample(3).shape == (3, 2)
    with pytest.raises(ValueError, match="has no classes, got labels 1"):
        model.sample(3, labels=1)
