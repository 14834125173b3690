"""A model with a guidance scale is measured, sampled and served at the one of its training."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import torch

from onestep.methods.core.condition import Condition
from onestep.platform.api import Model, load, train
from onestep.platform.cli import main
from onestep.platform.training.assembly import assemble
from onestep.platform.training.sequence import StageSequence
from onestep.serving.errors import RequestRefused
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
    with pytest.raises(RequestRefused, match=r"guidance must be in 1\.\.4, got 4\.5"):
        engine.accept("7", seed=2, guidance=4.5)


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
        (
            [model.reference, "--guidance", "0.5"],
            "must be finite and at least 1, got 0.5",
        ),
        ([model.reference, "--guidance", "4.5"], "was trained with, 1..4, got 4.5"),
    ):
        assert main([command, *asked, "--dry-run"]) == 2
        assert words in capsys.readouterr().err


def test_an_evaluation_at_a_scale_needs_a_network_that_takes_one() -> None:
    for overrides, words in (
        (["evaluation.guidance=2"], "evaluation.guidance needs a method that draws guidance scal"),
        (["evaluation.guidance=0.5"], "evaluation.guidance must be finite and at least 1, got 0.5"),
        ([*GUIDED, "evaluation.guidance=5"], "draws, which are 1 to 4, got 5"),
        (GUIDED[:2], r"draws guidance scales, which the network has to take .* \+net.guided=true"),
    ):
        with pytest.raises(ValueError, match=words):
            StageSequence.from_overrides([*COMMON, *overrides]).check()


def test_a_wider_average_is_measured_at_the_scale_at_which_it_is_sampled(
    model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the evaluation of what was kept gives the same number again."""
    again = train(
        *COMMON,
        *GUIDED,
        "evaluation.guidance=3",
        "training.ema_snapshots=2",
        "run=wide",
        progress=False,
    )
    asked = ["average", "wide", "--width", "0.1", "--keep", "--nfe", "1"]
    assert main([*asked, "--samples", "64"]) == 0
    capsys.readouterr()
    kept = load(f"digits/{int(again.reference.split('/')[1]) + 1}")
    found = kept.evaluate(nfes=(1,), samples=64).metrics()["eval/sliced_w2/nfe_1"]
    assert kept.record.metrics["eval/sliced_w2/nfe_1"] == found
    at_one = load(kept.reference, guidance=1.0).evaluate(nfes=(1,), samples=64).metrics()
    assert at_one["eval/sliced_w2/nfe_1"] != found


def test_numbers_at_another_scale_are_not_kept(
    model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["evaluate", model.reference, "--samples", "64", "--keep", "--guidance"]
    assert main([*asked, "2"]) == 2
    assert "at the model's own guidance scale, 3, got --guidance 2" in capsys.readouterr().err
    assert main([*asked, "3", "--dry-run"]) == 0


def test_the_stages_of_guided_digits_fit_together() -> None:
    teacher, student = StageSequence.from_overrides(
        ["stages=guided_digits_align_your_flow"]
    ).check()
    assert teacher.evaluation.guidance == 1.0
    assert student.evaluation.guidance == 2.0


STUDENT: Final = (
    "method=dmd2",
    "teacher_guidance@method.guidance=labels",
    "+net.guided=true",
)


def test_a_student_of_scales_starts_as_its_teacher_at_every_scale(plain: Model) -> None:
    parents = [f"parents.teacher={plain.reference}", f"parents.initial={plain.reference}"]
    sequence = StageSequence.from_overrides([*COMMON, *STUDENT, *parents])
    (experiment,) = sequence.check()
    net = assemble(experiment).initial_net().eval()
    x, zero = torch.randn(4, 1, 8, 8), torch.zeros(4)
    label = torch.arange(4)
    want = plain.flow_map(x, zero, zero, Condition(label=label))
    for scale in (1.0, 3.0):
        told = Condition(label=label, guidance=torch.full((4,), scale))
        torch.testing.assert_close(net(x, zero, zero, told), want)


def test_a_model_that_takes_a_scale_teaches_those_who_tell_it_one(
    model: Model, plain: Model
) -> None:
    """`told` by a teacher that takes none, none by a teacher that takes one, and pairs."""
    told = ["method=flow_map_matching", "teacher_guidance@method.guidance=input", *STUDENT[2:]]
    for overrides, words in (
        (["method=flow_map_matching", f"parents.teacher={model.reference}"], "take teacher_guid"),
        ([*told, f"parents.teacher={plain.reference}"], "does not take as an input"),
        (
            ["method=reflow", f"parents.teacher={model.reference}", "pairs.guidance=2"],
            "takes a guidance scale itself, and makes pairs at its own, 3",
        ),
        (
            [*told, "method.guidance.highest=5", f"parents.teacher={model.reference}"],
            r"scales of 1\.\.5, and .* was trained with 1\.\.4",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            train(*COMMON, *overrides, "pairs.count=64", progress=False)
    with pytest.raises(ValueError, match="take teacher_guidance input"):
        StageSequence.of(
            {
                "first": [*COMMON, *GUIDED],
                "second": [*COMMON, "method=flow_map_matching", "parents.teacher={first}"],
            }
        ).check()
    with pytest.raises(ValueError, match=r"scales of 1\.\.5, and .* was trained with 1\.\.4"):
        StageSequence.of(
            {
                "first": [*COMMON, *GUIDED],
                "second": [
                    *(*COMMON, *told),
                    *("method.guidance.highest=5", "parents.teacher={first}"),
                ],
            }
        ).check()
