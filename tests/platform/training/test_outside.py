"""Weights that were trained elsewhere become a model of the registry, or are refused."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from onestep.platform.atomic import sha256_of
from onestep.platform.cli import USER_ERROR, main
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.home import Home
from onestep.platform.registry.model import load_flow_map
from onestep.platform.registry.store import Registry
from onestep.platform.training.assembly import assemble
from onestep.platform.training.outside import WeightNames

MODEL = (
    "data=moons",
    "data.samples=128",
    "net=mlp_preconditioned",
    "net.net.width=8",
    "net.net.depth=1",
    "method=edm",
)
TERMS = ("--licence", "CC-BY-4.0", "--source", "https://example.org/edm")


@pytest.fixture(autouse=True)
def home(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    return tmp_path


@cache
def _weights() -> dict[str, Tensor]:
    net = assemble(Experiment.from_dict(compose("train", MODEL), MODEL)).net()
    rng = torch.Generator().manual_seed(1)
    return {
        f"model.{name}": torch.randn(weight.shape, generator=rng)
        for name, weight in net.state_dict().items()
    }


def trained_elsewhere() -> dict[str, Tensor]:
    """The weights of the network, other than its initial ones, under other names."""
    return dict(_weights())


def names() -> dict[str, str]:
    return {name.removeprefix("model."): name for name in trained_elsewhere()}


def attempt(
    home: Path,
    weights: Mapping[str, Tensor],
    mapping: object,
    terms: tuple[str, ...] = TERMS,
) -> int:
    save_file(dict(weights), home / "edm.safetensors")
    (home / "names.yaml").write_text(yaml.safe_dump(mapping))
    words = [str(home / "edm.safetensors"), "--mapping", str(home / "names.yaml"), *terms]
    return main(["registry", "import", *words, *MODEL])


def test_weights_become_a_model_with_their_licence_and_source(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = trained_elsewhere()
    theirs["ema.step"] = torch.zeros(1)
    assert attempt(home, theirs, {"weights": names(), "ignored": ["ema.step"]}) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "registered moons/1"
    net, record = load_flow_map(Registry.at(Home.here()), "moons/1")
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, theirs[f"model.{name}"])
    assert dict(record.origin) == {
        "licence": "CC-BY-4.0",
        "source": "https://example.org/edm",
        "sha256": sha256_of(home / "edm.safetensors"),
        "mapping_sha256": sha256_of(home / "names.yaml"),
    }
    assert record.ema == "imported"
    assert (
        net.domain == assemble(Experiment.from_dict(compose("train", MODEL), MODEL)).learner.domain
    )
    assert main(["registry", "show", "moons/1"]) == 0
    assert "CC-BY-4.0" in capsys.readouterr().out


STUDENT = (
    "method=dmd2",
    "method.fake_steps=1",
    "data=moons",
    "data.samples=128",
    "net=mlp",
    "net.width=8",
    "training.samples=192",
    "training.batch_size=64",
    "evaluation.samples=64",
)


@pytest.mark.slow
def test_an_imported_model_is_sampled_and_teaches_like_any_other(home: Path) -> None:
    """Three steps from the same weights and noise: only what the teacher says can tell them."""
    theirs = trained_elsewhere()
    for scale in (1.0, 0.5):
        weights = {name: scale * weight for name, weight in theirs.items()}
        assert attempt(home, weights, {"weights": names()}) == 0
    assert main(["sample", "moons/1", "sampler=edm", "--out", str(home / "samples.png")]) == 0
    for teacher in ("moons/1", "moons/2"):
        assert main(["train", *STUDENT, f"parents.teacher={teacher}"]) == 0
    nets = [load_flow_map(Registry.at(Home.here()), f"moons/{k}")[0] for k in (3, 4)]
    first, second = (net.state_dict() for net in nets)
    assert all(weight.isfinite().all() for weight in first.values())
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_an_imported_teacher_whose_range_ends_early_is_judged_like_any_other(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(home, trained_elsewhere(), {"weights": names()}) == 0
    words = ["method=consistency_distillation", "data=moons", "data.samples=128", "net=mlp"]
    refused = main(["train", *words, "parents.teacher=moons/1", "training.batch_size=64"])
    assert refused == USER_ERROR
    assert "asks its teacher for domain diagonal on [0.0123457, 1], got moons/1 with domain" in (
        capsys.readouterr().err
    )


def without(values: Mapping[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in values.items() if key != name}


FIRST = next(iter(names()))


@pytest.mark.parametrize(
    ("weights", "mapping", "sentence"),
    [
        (
            without(trained_elsewhere(), f"model.{FIRST}"),
            {"weights": names()},
            f"must hold each weight of the mapping, got no 'model.{FIRST}'",
        ),
        (
            trained_elsewhere() | {"extra": torch.zeros(1)},
            {"weights": names()},
            "must be named or ignored by the mapping, got 'extra' beside it",
        ),
        (
            trained_elsewhere(),
            {"weights": without(names(), FIRST), "ignored": [f"model.{FIRST}"]},
            f"it has no weight '{FIRST}'",
        ),
        (
            trained_elsewhere() | {f"model.{FIRST}": torch.zeros(1)},
            {"weights": names()},
            f"weight '{FIRST}' has shape (1,), the network",
        ),
        (
            trained_elsewhere() | {"extra": torch.zeros(1)},
            {"weights": names() | {"other": "extra"}},
            "it has the unknown weight 'other'",
        ),
        (trained_elsewhere(), {"weight": names()}, "must hold weights, names in the file by"),
        (
            trained_elsewhere(),
            {"weights": names(), "ignored": [f"model.{FIRST}"]},
            f"must name each weight of the file once, got 'model.{FIRST}'",
        ),
    ],
    ids=["missing", "unexpected", "left out", "misshapen", "unknown", "no mapping", "twice"],
)
def test_weights_that_do_not_fit_are_refused(
    weights: dict[str, Tensor],
    mapping: object,
    sentence: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert attempt(home, weights, mapping) == USER_ERROR
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert Registry.at(Home.here()).list() == ()


@pytest.mark.parametrize(
    "terms", [("--licence", " ", "--source", "x"), ("--licence", "x", "--source", "")]
)
def test_weights_without_a_licence_or_a_source_are_refused(
    terms: tuple[str, ...], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempt(home, trained_elsewhere(), {"weights": names()}, terms) == USER_ERROR
    assert "outside weights need a licence and a source" in capsys.readouterr().err


def test_a_file_that_is_no_safetensors_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / "weights.bin"
    file.write_bytes(b"\x80\x04nothing")
    (home / "names.yaml").write_text(json.dumps({"weights": names()}))
    words = [str(file), "--mapping", str(home / "names.yaml"), *TERMS, *MODEL]
    assert main(["registry", "import", *words]) == USER_ERROR
    assert f"{file} is no file of safetensors" in capsys.readouterr().err


def test_names_survive_their_file(tmp_path: Path) -> None:
    file = tmp_path / "names.yaml"
    file.write_text(yaml.safe_dump({"weights": {"a": "b"}, "ignored": ["c"]}))
    assert WeightNames.read(file) == WeightNames(names={"a": "b"}, ignored=("c",))
