"""`onestep evaluate`, `sample` and `compare` on models that `onestep train` has registered."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import torch
from PIL import Image

from onestep.methods.core.flow_map import Domain
from onestep.methods.nets.mlp import MLP
from onestep.platform.api import load
from onestep.platform.cli import USER_ERROR, main
from onestep.platform.evaluation.comparison import compare, gather
from onestep.platform.evaluation.report import Report
from onestep.platform.home import Home
from onestep.platform.registry.store import Registry

TRAIN: Final = (
    "data=moons",
    "net=mlp",
    "net.width=16",
    "training.samples=512",
    "training.log_every=256",
    "evaluation.samples=64",
    "evaluation.seed=3",
)


@pytest.fixture(scope="module")
def home(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a velocity, moons/1, and a map, moons/2."""
    root = tmp_path_factory.mktemp("measuring")
    shutil.copy(empty_database, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONESTEP_HOME", str(root))
        for method in ("flow_matching", "mean_flow"):
            assert main(["train", f"method={method}", "evaluation.nfes=[1,2]", *TRAIN]) == 0
        yield root


def measured(home: Path, reference: str, *more: str) -> Report:
    file = home / f"{reference.replace('/', '-')}.json"
    words = ["evaluate", reference, "--nfe", "1", "2", "--samples", "64", "--seed", "3", *more]
    assert main([*words, "--json", str(file)]) == 0
    return Report.from_json(file.read_text())


def test_a_model_measured_again_gives_the_numbers_of_its_run(home: Path) -> None:
    registry = Registry.at(Home.here())
    again = measured(home, "moons/2", "--keep")
    entry = registry.entry("moons/2")
    assert again.nfes == (1, 2)
    assert again.metrics() == entry.record.metrics
    assert [kept.metrics for kept in entry.evaluations] == [again.metrics()]


@pytest.fixture(scope="module")
def wide(home: Path) -> None:
    """A run that keeps snapshots; it registers moons/3."""
    words = ["train", "method=mean_flow", "evaluation.nfes=[1]", "run=wide", *TRAIN]
    assert main([*words, "training.ema_snapshots=2"]) == 0


@pytest.mark.usefixtures("wide")
def test_an_average_of_another_width_is_measured_and_kept_with_its_parent(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry.at(Home.here())
    parent = registry.resolve("moons/3")
    yardstick = ["--nfe", "1", "--samples", "64"]
    store = f"storage.tracking_uri=sqlite:///{home / 'mlflow.db'}"
    capsys.readouterr()
    assert main(["average", "wide", store, "--width", "0.1", "--dry-run", *yardstick]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["model"] == str(parent)
    assert plan["width"] == [0.1]
    assert plan["tracking_uri"] == store.partition("=")[2]
    assert main(["average", "wide", store, "--width", "0.1", "0.2", "--keep", *yardstick]) == 0
    out = capsys.readouterr().out
    assert "moons/3, relative width 0.2" in out
    made = registry.load("moons/5")
    assert made.record.ema == "relative width 0.2"
    assert made.record.parents["averaged"] == str(parent)
    assert "eval/sliced_w2/nfe_1" in made.record.metrics
    online = registry.load(parent).weights
    assert any(not torch.equal(made.weights[name], online[name]) for name in online)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none", "--width", "0.1"], "run none must have registered a model, got none"),
        (["wide", "--width", "0.4"], "must lie in (0, 0.25], got 0.4"),
        (["wide", "seed=1", "--width", "0.1"], "overrides must be of storage.tracking_uri, "),
    ],
)
def test_an_average_of_nothing_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(["average", *words]) == USER_ERROR
    assert says in capsys.readouterr().err


def test_reports_of_the_runs_compare_as_models_measured_side_by_side(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = {name: measured(home, name) for name in ("moons/1", "moons/2")}
    gathered = gather(Registry.at(Home.here()), reports)
    words = ["--nfe", "1", "2", "--samples", "64", "--seed", "3", "--out", str(home / "all")]
    capsys.readouterr()
    assert main(["compare", *reports, *words]) == 0
    assert capsys.readouterr().out.startswith(gathered.table)
    for name in ("table.md", "table.csv", "samples.png", "quality.png"):
        assert (home / "all" / name).stat().st_size > 0


def test_reports_on_different_yardsticks_are_not_gathered(home: Path) -> None:
    other = home / "other.json"
    words = ["evaluate", "moons/1", "--nfe", "1", "--samples", "64", "--seed", "4"]
    assert main([*words, "--json", str(other)]) == 0
    reports = {"moons/1": Report.from_json(other.read_text()), "moons/2": measured(home, "moons/2")}
    with pytest.raises(ValueError, match="the same data, features, counts and seed"):
        gather(Registry.at(Home.here()), reports)


@pytest.mark.parametrize("reference", ["moons/1", "moons/2"])
def test_samples_are_drawn_into_a_picture(reference: str, home: Path) -> None:
    file = home / "samples.png"
    assert main(["sample", reference, "--n", "20", "--out", str(file)]) == 0
    with Image.open(file) as image:
        assert min(image.size) > 100
    file.unlink()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--n", "0"), "--n must be in 1..10000, got 0"),
        (("--n", "10001"), "--n must be in 1..10000, got 10001"),
        (("--seed", "-1"), "--seed must be at least 0, got -1"),
        (("--nfe", "0"), "numbers of evaluations must be at least 1, got [0]"),
        (("--label", "0"), "moons/2 has no classes, got --label 0"),
    ],
)
def test_samples_out_of_range_are_refused_and_no_picture_is_written(
    words: tuple[str, ...], sentence: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / "refused.png"
    assert main(["sample", "moons/2", *words, "--out", str(file)]) == USER_ERROR
    assert capsys.readouterr().err == f"onestep sample: {sentence}\n"
    assert not file.exists()


@pytest.mark.parametrize(
    ("words", "evaluations", "kind"),
    [
        (("sampler=dpm_solver", "sampler.grid.steps=7"), 7, "DpmSolver"),
        (("sampler=anchored", "sampler.grid.steps=3"), 3, "AnchoredSteps"),
        (("sampler=heun", "sampler.grid.steps=3"), 6, "Heun"),
        (("sampler=ddim",), 50, "Euler"),
        (("sampler=ddim_clock", "clock@sampler.grid.clock=cosine"), 50, "Euler"),
        (("sampler=jumps", "sampler.grid.inner=[0.2,0.6]"), 3, "Jumps"),
        (("sampler=renoise",), 2, "Renoise"),
        (("sampler=gamma", "sampler.gamma=0.3"), 2, "GammaJumps"),
    ],
)
def test_a_sampler_can_be_named(
    words: tuple[str, ...],
    evaluations: int,
    kind: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    assert main(["sample", "moons/2", *words, "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["nfe"] == evaluations
    assert told["sampler"].startswith(f"{kind}(")
    file = home / "named.png"
    assert main(["sample", "moons/2", *words, "--n", "20", "--out", str(file)]) == 0
    assert f"by {kind}(" in capsys.readouterr().out
    assert file.stat().st_size > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("sampler=ddim", "--nfe", "4"), "give either --nfe or a sampler with its own steps"),
        (("sampler=edm",), "SigmaCoordinate needs a map whose range begins above t = 0"),
        (("sampler.grid.steps=4",), "there is no key sampler.grid"),
        (("sampler=renoise", "sampler.grid.inner=[1.5]"), "must rise strictly inside (0, 1), got"),
        (
            ("sampler=ddims",),
            "there is no sampler/ddims: did you mean sampler=ddim? If",
        ),
    ],
)
def test_a_sampler_that_does_not_fit_is_refused(
    words: tuple[str, ...], sentence: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / "refused.png"
    assert main(["sample", "moons/2", *words, "--out", str(file)]) == USER_ERROR
    assert sentence in capsys.readouterr().err
    assert not file.exists()


def test_a_model_is_measured_by_a_sampler_that_is_named(home: Path) -> None:
    file = home / "named.json"
    words = ["evaluate", "moons/1", "sampler=heun", "sampler.grid.steps=3", "--samples", "64"]
    assert main([*words, "--json", str(file)]) == 0
    report = Report.from_json(file.read_text())
    assert report.nfes == (6,)
    assert "Heun(grid=UniformGrid(steps=3)" in report.find("eval/w2", nfe=6).sampler


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["moons/1", "sampler=heun", "--nfe", "4"], "leave out --nfe and evaluation.nfes, got [4]"),
        (["moons/1", "sampler=heun", "--keep"], "--keep adds numbers by the model's own sampler"),
        (["moons/1", "sampler=renoise"], "needs a map trained to jump to data from every time"),
        (["moons/1", "sampler=nothing"], "nothing"),
    ],
)
def test_a_measurement_by_a_sampler_that_does_not_fit_is_refused(
    words: list[str], message: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *words]) == USER_ERROR
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("label", ["-1", "2"])
def test_a_label_that_the_model_does_not_know_is_refused(
    label: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = MLP(shape=(2,), domain=Domain(), classes=2, width=8, depth=1, embedding_width=8)
    registry = Registry.at(Home.here())
    entry = registry.entry("moons/2")
    node = {"_target_": "onestep.methods.nets.mlp.MLP", "width": 8, "depth": 1}
    labelled = replace(
        entry.record,
        name="sides",
        net={**node, "embedding_width": 8},
        classes=2,
        label_names=("a", "b"),
    )
    reference = registry.register(labelled, net.state_dict(), run_id=entry.run_id)
    file = home / "refused.png"
    assert main(["sample", str(reference), "--label", label, "--out", str(file)]) == USER_ERROR
    assert capsys.readouterr().err == f"onestep sample: --label must be in 0..1, got {label}\n"
    assert not file.exists()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (
            [
                "evaluate",
                "moons/1",
                "evaluation.nfes=[1,4]",
                "evaluation.samples=64",
                "--seed",
                "3",
            ],
            {"model": "moons/1", "nfe": [1, 4], "samples": 64, "seed": 3, "keep": False},
        ),
        (
            ["compare", "moons/1", "evaluation.seed=5", "moons/2", "--nfe", "2"],
            {"models": ["moons/1", "moons/2"], "nfe": [2], "samples": 2000, "seed": 5},
        ),
        (["sample", "moons/2", "--n", "20"], {"model": "moons/2", "n": 20, "nfe": 1}),
    ],
)
def test_overrides_choose_the_store_and_a_dry_run_shows_what_would_be_done(
    words: list[str],
    shown: dict[str, object],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # As after `onestep train storage.tracking_uri=...`: the environment does not name the store.
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{home / 'mlflow.db'}"
    capsys.readouterr()
    assert main([*words, "--dry-run", f"storage.tracking_uri={store}"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {**told, **shown, "tracking_uri": store}
    assert not any(tmp_path.iterdir())


def test_samples_are_drawn_from_the_store_that_an_override_names(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    words = [f"storage.tracking_uri=sqlite:///{home / 'mlflow.db'}", "--n", "20"]
    assert main(["sample", "moons/2", *words, "--out", str(tmp_path / "samples.png")]) == 0
    assert (tmp_path / "samples.png").stat().st_size > 0


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "moons/2"),
        ("compare", "moons/2"),
        ("sample", "moons/2"),
        ("average", "wide", "--width", "0.1"),
    ],
    ids=lambda words: words[0],
)
def test_a_model_computes_where_it_is_told_or_on_a_gpu_if_there_is_one(
    words: tuple[str, ...],
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def planned(*more: str) -> str:
        capsys.readouterr()
        assert main([*words, "--dry-run", *more]) == 0
        return str(json.loads(capsys.readouterr().out)["device"])

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert planned() == planned("--device", "auto") == planned("--device", "cuda") == "cuda"
    assert planned("--device", "cuda:1") == "cuda:1"
    assert planned("--device", "cpu") == "cpu"
    capsys.readouterr()
    assert main([*words, "--device", "cuda:2"]) == USER_ERROR
    said = "the device must be one that this machine has, which are cpu, cuda:0, cuda:1, got cuda:2"
    assert capsys.readouterr().err == f"onestep {words[0]}: {said}\n"
    assert main([*words, "--device", "mps"]) == USER_ERROR
    said = "the device must be auto, cpu, cuda or cuda:N, got 'mps'"
    assert capsys.readouterr().err == f"onestep {words[0]}: {said}\n"


@pytest.mark.gpu
def test_a_gpu_is_given_the_same_noise_and_gives_the_same_numbers(home: Path) -> None:
    places = [measured(home, "moons/2", "--device", name) for name in ("cpu", "cuda")]
    one, other = (place.metrics() for place in places)
    assert other == pytest.approx(one, rel=0.02, abs=0.02)
    cpu, gpu = (load("moons/2", device=name).sample(256, seed=3) for name in ("cpu", "cuda"))
    torch.testing.assert_close(gpu, cpu, atol=1e-3, rtol=0.0)
    comparison = compare(
        Registry.at(Home.here()),
        ["moons/1", "moons/2"],
        home=home,
        nfes=[1],
        samples=64,
        seed=3,
        device=torch.device("cuda"),
    )
    assert len(comparison.reports) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("evaluate", "moons/1", "data=digits"), "overrides must be of storage.tracking_uri, eval"),
        (("evaluate", "moons/1", "storage.wandb=true"), "got storage.wandb"),
        (
            ("evaluate", "moons/1", "evaluation.seed=-1"),
            "evaluation.seed must be at least 0, got -1",
        ),
        (("evaluate", "moons/1", "--seed", "3", "evaluation.seed=4"), "either evaluation.seed or"),
        (("compare", "moons/1", "net=mlp"), "got net"),
        (("compare", "evaluation.seed=4"), "needs one or more models"),
        (("sample", "moons/1", "evaluation.seed=4"), "must be of storage.tracking_uri, got eval"),
        (("sample", "moons/1", "--dry-run", "--label", "9"), "no classes, got --label 9"),
    ],
)
def test_other_overrides_are_refused(
    words: tuple[str, ...], sentence: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(words) == USER_ERROR
    told = capsys.readouterr()
    assert sentence in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_evaluations_that_no_sampler_spends_are_refused_before_a_model_is_loaded(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "method=neural_flow", "evaluation.nfes=[1]", *TRAIN]) == 0
    references = [entry.reference for entry in Registry.at(Home.here()).list()]
    model = str([reference for reference in references if reference.name == "moons"][-1])
    monkeypatch.setattr(Registry, "load", None)
    capsys.readouterr()
    for words in (["sample", model], ["evaluate", model], ["compare", "moons/2", model]):
        assert main([*words, "--nfe", "2"]) == USER_ERROR
        told = capsys.readouterr()
        assert "domain from_noise must be of 1 up to 16, got 2" in told.err
        assert told.err.count("\n") == 1


def test_fid_is_refused_before_anything_is_measured(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "moons/1", "--fid", str(home / "missing.pth")]) == USER_ERROR
    shown = capsys.readouterr()
    assert "FID" in shown.err
    assert shown.out == ""
