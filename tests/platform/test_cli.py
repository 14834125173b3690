"""What a user can get wrong is refused before the first step: one sentence, exit code 2."""

import gzip
import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from onestep.platform.cli import USER_ERROR, main

Refused = Callable[..., str]

TINY = [
    "data=eight_gaussians",
    "data.samples=128",
    "data.held_out=64",
    "net=mlp",
    "net.width=16",
    "training.samples=128",
    "training.batch_size=32",
    "evaluation.samples=64",
    "evaluation.nfes=[1]",
]


@pytest.fixture(autouse=True)
def home(home_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ONESTEP_DATA", "ONESTEP_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    return home_folder


def runs_in(home: Path) -> list[tuple[str, ...]]:
    """What MLflow's database of a home says of experiments and runs."""
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        experiments = database.execute("select name, lifecycle_stage from experiments")
        runs = database.execute("select run_uuid, status from runs")
        return [*experiments.fetchall(), *runs.fetchall()]


@pytest.fixture
def refused(home: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must be refused and leave nothing, and gives its one sentence."""

    def run(*words: str) -> str:
        before, stored = sorted(home.rglob("*")), runs_in(home)
        assert main(words) == USER_ERROR
        told = capsys.readouterr()
        assert told.err.startswith(f"onestep {words[0]}: ")
        assert told.err.count("\n") == 1
        assert "Traceback" not in told.err
        assert sorted(home.rglob("*")) == before, "nothing is left half-written"
        assert runs_in(home) == stored
        return told.err

    return run


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        # A key that does not exist: what is there instead.
        ("trainin.samples=1", "no key trainin.samples, allowed: changes, data, evaluation,"),
        ("training.sampels=1", "no key training.sampels, allowed in training: accumulate, batch_"),
        ("method.tangent.valu=1", "no key method.tangent.valu, allowed in method.tangent: value"),
        (
            "method.path={_target_:onestep.methods.core.path.PolynomialPath,power:3}",
            "no key method.path with all of these fields: to take its place write '~method.path'",
        ),
        ("+training.speed=1", "training has no setting speed, allowed: samples, batch_size"),
        ("+net.wdith=3", "has no field 'wdith', allowed: "),
        # A value that does not exist, or is of another kind.
        ("method=mean_flo", "there is no method/mean_flo: did you mean method=mean_flow? If"),
        ("experiment=digits_reflow", "digits_reflow: did you mean stages=digits_reflow? If not, a"),
        ("stages=eight_gaussians_mean_flow", "did you mean experiment=eight_gaussians_mean_flow?"),
        ("experiment=mean_flow", "experiment/mean_flow: did you mean method=mean_flow? If not, a"),
        ("training.samples=many", "training.samples must be a whole number, got 'many'"),
        ("training.precision=float16", "must be one of float32, bfloat16, float64, got 'float16'"),
        ("workers.ray=maybe", "workers.ray must be true or false, got 'maybe'"),
        ("method.tangent.value=two", "Constant.value must be a number, got 'two'"),
        ("optimizer.lr=fast", "optimizer.lr must be a number of at least 0, got 'fast'"),
        ("optimizer.lr=-1", "optimizer.lr must be a number of at least 0, got -1"),
        (
            "optimizer.betas=[a,b]",
            "optimizer torch.optim.Adam takes numbers for its own settings (params, lr, ",
        ),
        ("optimizer.eps=-1", "optimizer refuses its settings, got {'lr': 0.001, 'betas': "),
        ("optimizer._target_=torch.optim.Eve", "cannot import torch.optim.Eve"),
        ("digits/1", "an override is KEY=VALUE, got 'digits/1'"),
        ("training.samples=[1", "no viable alternative at input '[1'"),
        # No number to compute with.
        ("training.clip_norm=nan", "training.clip_norm must be a finite number, got nan"),
        ("method.times.law.mean=inf", "LogitNormal.mean must be a finite number, got inf"),
        ("optimizer.lr=nan", "Adam.lr must be a finite number, got nan"),
        # Out of range.
        ("method.tangent.value=2", "method.tangent must stay in [0, 1], got 2"),
        ("training.batch_size=30", "batch_size must be a multiple of training.shards, got 30 and"),
        ("workers.num_workers=3", "num_workers must divide training.shards, got 3 and 4"),
        ("training.accumulate=3", "accumulate must divide the 4 shards of each worker, got 3"),
        ("training.ema_served=2", "training.ema_served must be below 2, got 2"),
        ("seed=-1", "seed must be at least 0, got -1"),
        ("evaluation.seed=-1", "evaluation.seed must be at least 0, got -1"),
        ("evaluation.nfes=[0]", "evaluation.nfes must be one or more whole numbers of at least 1"),
        ("pairs.seed=-1", "pairs.seed must be at least 0, got -1"),
        ("workers.max_failures=-1", "workers.max_failures must be at least 0, got -1"),
        ("run=../elsewhere", "run must be the name of a folder"),
        # Parents that the method needs, and that it does not.
        ("method=reflow", "name a registered model by parents.teacher=..., or a folder of pairs"),
        ("method=reflow", " (stages=digits_reflow trains all that it needs)"),
        (
            "method=consistency_distillation",
            "needs a teacher: name a registered model by parents.teacher=...",
        ),
        ("parents.teacher=digits/1", "has no use for parents.teacher, got digits/1"),
        ("parents.initial=digits/9", "there is no registered model 'digits'"),
        # Inputs of the network that nothing supplies.
        ("+net.guided=true", "takes guidance by its field guided, which method mean_flow does not"),
        ("+net.vocabulary=9", "takes tokens by its field vocabulary, which method mean_flow does"),
        # Networks and data that do not fit.
        ("data=moons", "UNet takes images of shape (channels, height, width), got data of shape"),
        ("net.multipliers=[1,2,2,2,2]", "sides are multiples of 16, got 8 x 8"),
        ("training.batch_size=4096", "batch_size must be in [1, "),
    ],
)
def test_a_wrong_override_is_refused_in_one_sentence(
    override: str, sentence: str, refused: Refused
) -> None:
    assert sentence in refused("train", "net=unet_digits", "training.samples=8192", override)


def test_stages_that_train_a_teacher_too_are_those_of_the_data(refused: Refused) -> None:
    sentence = " (stages=eight_gaussians_reflow trains all that it needs)"
    assert sentence in refused("train", "experiment=eight_gaussians_reflow")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        # Schedules outside their range.
        (
            ["learning_rate=constant", "learning_rate.value=-1"],
            "learning_rate must stay in [0, inf",
        ),
        (
            [
                "diagonal@method.times.diagonal=velocity_first",
                "method.times.diagonal.boundaries=[1.5]",
            ],
            "piecewise schedule on the clock progress needs boundaries between 0 and 1, got (1.5,)",
        ),
        # Inputs of the network that the method would supply if it were told to.
        (
            ["method=improved_mean_flow", "+net.guided=true"],
            "set method.guidance.highest above 1, or leave the field out",
        ),
        (
            ["method=align_your_flow", "parents.teacher=x/1", "+net.guided=true"],
            "set teacher_guidance@method.guidance=labels, or leave the field out",
        ),
        # Evaluations that would fail once the training is done.
        (["method=shortcut", "evaluation.nfes=[3]"], "1, 2, 4, 8, 16 up to 16, got 3"),
        (["method=shortcut", "evaluation.nfes=[1,3]"], "map of method shortcut has a sampler"),
        (["evaluation.samples=4"], "evaluation.samples must be 0, for 2000, or at least 8, got 4"),
        (["data=moons", "data.held_out=6"], "held-out and training data, got 64, 6 and 128"),
        # What the data turn out to lack.
        (["method.guidance.omega=2"], "guidance needs labelled data, got data without labels"),
        (
            ["coupling@method.coupling=minibatch_ot", "method.coupling.by_label=true"],
            "coupling by label needs labelled data, got a batch without labels",
        ),
        (["method=reflow", "parents.pairs=/absent"], "there is no set of pairs in /absent"),
    ],
)
def test_overrides_that_are_wrong_together_are_refused(
    overrides: list[str], sentence: str, refused: Refused
) -> None:
    assert sentence in refused("train", *TINY, *overrides)


@pytest.mark.parametrize(
    "words",
    [
        ("train", "storage.tracking_uri=redis://ada:secret@host/0"),
        ("train", "storage.tracking_uri=mysql://ada:secret@host,other/db"),
        ("train", "storage.tracking_uri=mysql://ada:#secret@host/db"),
        ("train", "+storage.tracking_uri=mysql://ada@server:secret@host/db"),
        ("train", "storage.url=mysql://ada:secret@host/db"),
        ("sweep", "--resume", "one", "sweep.storage=mysql://ada:secret@host/db"),
        ("serve", "serve.traces=http://ada:secret@host:4318"),
        ("sweep", "sweep.storage=[mysql://ada:secret@host/db]"),
        ("sweep", "--dry-run", "sweep.storage={mysql://ada:secret@host/db: 1}"),
    ],
)
def test_a_refusal_does_not_show_a_password(words: tuple[str, ...], refused: Refused) -> None:
    assert "secret" not in refused(*words)


def test_a_word_too_many_does_not_show_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["registry", "list", "digits", "--store=mysql://ada:secret@host/db"])
    assert "unrecognized arguments: --store=mysql://ada:***@" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sample", "digits/1", "--nfe", "1.5"], "--nfe: must be a whole number, got '1.5'"),
        (["sample", "digits/1", "--guidance", "two"], "--guidance: must be a number, got 'two'"),
        (["registry", "promote", "digits/1", "best", "--at-most", "x"], "must be a number, got"),
        (["train", "--samples", "3"], "unrecognized arguments: --samples"),
    ],
)
def test_a_wrong_option_is_refused_with_the_usage_of_its_command(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    told = capsys.readouterr().err
    assert told.startswith(f"usage: onestep {words[0]} ")
    assert sentence in told.splitlines()[-1]


def test_the_network_of_points_is_named_where_points_get_the_one_of_images(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "data=moons", "--dry-run"]) == 0
    assert "net=mlp is made for points" in capsys.readouterr().err
    for words in (["data=moons", "net=mlp"], ["experiment=eight_gaussians_mean_flow"], []):
        assert main(["train", *words, "--dry-run"]) == 0
        assert "net=mlp" not in capsys.readouterr().err


def test_a_method_without_its_teacher_is_refused_in_a_dry_run_too(refused: Refused) -> None:
    assert "parents.teacher=" in refused("train", "method=reflow", "--dry-run")


def test_missing_data_are_refused(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "absent"
    said = refused("train", "data=image_folder", f"data.folder={folder}", "net=unet_digits")
    assert str(folder) in said


def test_altered_data_are_refused(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_DATA", str(tmp_path))
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        for place in (tmp_path, tmp_path / "mnist"):
            place.mkdir(exist_ok=True)
            (place / f"{name}-ubyte.gz").write_bytes(gzip.compress(b"no digits"))
    said = refused("train", "data=mnist", "net=unet_mnist")
    assert "sha256" in said


def test_a_store_that_does_not_answer_is_refused(refused: Refused) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    said = refused("train", *TINY, f"storage.tracking_uri={uri}")
    assert f"the MLflow store at {uri} does not answer" in said


def test_a_run_is_trained_and_a_checkpoint_of_another_network_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *TINY, "run=mine"]) == 0
    out = capsys.readouterr().out
    assert "eight_gaussians/1" in out
    assert "| *training data, fresh (floor)* |" in out
    # As after a kill: the checkpoint is there, the note of a registered model is not.
    (home / "runs" / "mine" / "run.json").unlink()
    kept, stored = sorted(home.rglob("*")), runs_in(home)
    for workers in ("workers.num_workers=1", "workers.num_workers=2"):
        assert main(["train", *TINY, "run=mine", "net.width=24", workers]) == USER_ERROR
        told = capsys.readouterr()
        said = told.err.splitlines()
        assert said[-1].startswith("onestep train: ")
        assert "belongs to another network, method or data set" in said[-1]
        assert "Traceback" not in told.err
        assert sorted(home.rglob("*")) == kept
        assert runs_in(home) == stored


def test_a_dry_run_prints_the_experiment_and_writes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(home.rglob("*"))
    assert main(["train", *TINY, "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["net"]["width"] == 16
    assert shown["summary"]["steps"] == 4
    memory = shown["summary"]["memory"]
    assert memory["held_in_all"] == sum(memory["held"].values()) > 0
    assert memory["activations_estimated"] > 0
    compute = shown["summary"]["compute"]
    assert compute["flops_in_all"] == 128 * compute["flops_per_sample"] > 0
    time = shown["summary"]["time"]
    assert time["device"] == "cpu"
    hours = compute["flops_in_all"] / time["flops_per_s"] / 3600.0
    assert time["hours_at_least"] == pytest.approx(hours)
    assert "hours" not in time
    assert shown["overrides"] == TINY
    assert sorted(home.rglob("*")) == before


def test_a_dry_run_times_a_step_only_where_asked_to(
    home: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *TINY, "--dry-run", "--measure"]) == 0
    time = json.loads(capsys.readouterr().out)["summary"]["time"]
    assert time["device"] == "cpu"
    assert time["hours"] == pytest.approx(128 * time["seconds_per_sample"] / 3600.0)
    assert time["hours"] > time["hours_at_least"] > 0.0
    assert "--measure belongs to a dry run" in refused("train", *TINY, "--measure")


def test_without_a_command_the_help_names_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == USER_ERROR
    shown = capsys.readouterr().out
    for command in ("train", "evaluate", "sample", "sweep", "compare", "registry", "serve"):
        assert f"    {command} " in shown


@pytest.mark.parametrize("command", ["train", "evaluate", "sample", "compare", "registry"])
def test_help_explains_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"  onestep {command} " in capsys.readouterr().out


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == USER_ERROR
    assert "invalid choice: 'trian'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("sample", "digits/1"), ("evaluate", "champion")])
def test_a_model_that_is_not_registered_is_refused(
    words: tuple[str, ...], refused: Refused
) -> None:
    said = refused(*words)
    assert words[1].partition("/")[0] in said
    assert "no models are registered yet" in said


def test_the_shell_sees_one_line_and_the_exit_code(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onestep.platform.cli", "train", "training.sampels=1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == USER_ERROR
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("onestep train: there is no key training.sampels, allowed in")
