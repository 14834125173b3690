"""A file of EDM's network, as its authors name the weights, becomes a teacher by two lines."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain
from onestep.methods.nets.edm_unet import EDMUNet
from onestep.platform.atomic import sha256_of
from onestep.platform.cli import USER_ERROR, main
from onestep.platform.home import Home
from onestep.platform.registry.model import load_flow_map
from onestep.platform.registry.store import Registry

LICENCE = "CC-BY-NC-SA-4.0"
SOURCE = "https://example.org/edm-digits"
SIZES: dict[str, Any] = {"width": 8, "multipliers": [1, 2], "blocks": 1, "dropout": 0.0}
NET = ("net=edm_unet", *(f"net.net.{name}={value}" for name, value in SIZES.items()))
LABELLED = ("data=digits", *NET, "method=edm")
UNLABELLED = ("data=unlabelled", *NET, "method=edm")
AUGMENT = "model.map_augment.weight"
MAPPING = {"prefix": "net.", "ignored": [AUGMENT]}
FEW = ("training.samples=192", "training.batch_size=64", "evaluation.samples=8")


@pytest.fixture(autouse=True)
def home(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("net", ["edm_unet", "diffusers_unet"])
def test_a_network_that_is_not_told_the_end_is_no_map_of_two_times(
    net: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if net == "diffusers_unet":
        pytest.importorskip("diffusers")
    assert (
        main(["train", "data=unlabelled", f"net={net}", "method=consistency_trajectory"])
        == USER_ERROR
    )
    assert "is not told where a jump ends, on which maps of method" in capsys.readouterr().err


def trained(*, classes: int) -> EDMUNet:
    """A network with random weights, known beside the platform."""
    torch.manual_seed(0)
    net = EDMUNet(shape=(1, 8, 8), domain=Domain(), classes=classes, **SIZES)
    for weight in net.parameters():
        weight.data += 0.3 * torch.randn(weight.shape) / max(1, weight[0].numel()) ** 0.5
    return net.eval().requires_grad_(False)


def of_the_file(net: EDMUNet) -> dict[str, Tensor]:
    """The weights as the file has them, with those of the augmentation."""
    return {**net.state_dict(), AUGMENT: torch.ones(8, 9)}


def attempt(
    home: Path,
    weights: dict[str, Tensor],
    *overrides: str,
    mapping: object = MAPPING,
) -> int:
    save_file(weights, home / "edm.safetensors")
    (home / "edm.yaml").write_text(yaml.safe_dump(mapping))
    words = [str(home / "edm.safetensors"), "--mapping", str(home / "edm.yaml")]
    words += ["--licence", LICENCE, "--source", SOURCE]
    return main(["registry", "import", *words, *overrides])


def denoised(net: EDMUNet, y: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
    """EDM's denoiser for data of standard deviation 1/2."""
    sigma_B111 = sigma[:, None, None, None]
    variance = 0.25 + sigma_B111.square()
    t = 1.0 / (1.0 + sigma)
    said = net(y * variance.rsqrt(), t, t, condition)
    return 0.25 / variance * y + 0.5 * sigma_B111 * variance.rsqrt() * said


@pytest.mark.parametrize("classes", [0, 10])
def test_its_velocity_is_that_of_its_denoiser(
    classes: int, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to single precision, which at the least noise takes four digits from D - x."""
    net = trained(classes=classes)
    assert attempt(home, of_the_file(net), *(LABELLED if classes else UNLABELLED)) == 0
    name = "digits/1" if classes else "digits_unlabelled/1"
    assert capsys.readouterr().out.splitlines()[-1] == f"registered {name}"
    found, record = load_flow_map(Registry.at(Home.here()), name)
    assert record.classes == classes
    sigma = torch.tensor([0.002, 0.05, 0.5, 3.0, 80.0], dtype=torch.float64)
    noise = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    y = noise * (0.25 + sigma.square()).sqrt()[:, None, None, None]
    condition = Condition(label=torch.tensor([3, 1, -1, 9, 0])) if classes else None
    t = 1.0 / (1.0 + sigma)
    x = t[:, None, None, None] * y
    want = (denoised(net.double(), y, sigma, condition) - x) / (1.0 - t)[:, None, None, None]
    exact = found.double().velocity(x, t, condition)
    torch.testing.assert_close(exact, want, atol=1e-9, rtol=1e-9)
    single = found.float().velocity(x.float(), t.float(), condition)
    torch.testing.assert_close(single.double(), want, atol=1e-4, rtol=1e-4)


def test_its_licence_and_source_are_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attempt(home, of_the_file(trained(classes=10)), *LABELLED) == 0
    _, record = load_flow_map(Registry.at(Home.here()), "digits/1")
    assert record.origin["licence"] == LICENCE
    assert record.origin["source"] == SOURCE
    assert record.origin["sha256"] == sha256_of(home / "edm.safetensors")
    capsys.readouterr()
    assert main(["registry", "lineage", "digits/1"]) == 0
    assert capsys.readouterr().out.strip() == f"digits/1 EDM (from {SOURCE}, licence {LICENCE})"


@pytest.mark.parametrize(
    ("change", "overrides", "mapping", "sentence"),
    [
        (
            {},
            LABELLED,
            {"prefix": "net."},
            "it has the unknown weight 'net.model.map_augment.weight'",
        ),
        (
            {"model.enc.4x4_down.conv0.resample_filter": torch.full((1, 1, 4, 4), 1 / 16)},
            LABELLED,
            MAPPING,
            "resample_filter' has shape (1, 1, 4, 4), the network (1, 1, 2, 2)",
        ),
        (
            {"model.enc.4x4_aux_residual.weight": torch.zeros(8, 1, 3, 3)},
            LABELLED,
            MAPPING,
            "it has the unknown weight 'net.model.enc.4x4_aux_residual.weight'",
        ),
        ({}, UNLABELLED, MAPPING, "it has the unknown weight 'net.model.map_label."),
    ],
    ids=["augmentation", "another filter", "NCSN++", "classes"],
)
def test_a_file_of_another_network_is_refused(
    change: dict[str, Tensor],
    overrides: tuple[str, ...],
    mapping: object,
    sentence: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = of_the_file(trained(classes=10)) | change
    assert attempt(home, weights, *overrides, mapping=mapping) == USER_ERROR
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert Registry.at(Home.here()).list() == ()


def test_it_is_trained_here_too(home: Path) -> None:
    words = [*LABELLED, "net.net.dropout=0.1", *FEW, "evaluation.nfes=[2]"]
    assert main(["train", *words]) == 0
    net, record = load_flow_map(Registry.at(Home.here()), "digits/1")
    assert record.classes == 10
    weights = net.state_dict()
    assert all(weight.isfinite().all() for weight in weights.values())
    assert torch.equal(
        weights["net.model.dec.8x8_up.skip.resample_filter"], torch.full((1, 1, 2, 2), 0.25)
    )


@pytest.mark.slow
def test_the_imported_model_teaches_a_student_that_begins_as_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = ("method.sigma_min=0", "method.sigma_max=null")
    assert attempt(home, of_the_file(trained(classes=10)), *LABELLED, *ends) == 0
    words = ["method=consistency_distillation", "data=digits", *NET, *FEW, "evaluation.nfes=[1]"]
    assert main(["train", *words, "parents.teacher=digits/1", "parents.initial=digits/1"]) == 0
    capsys.readouterr()
    assert main(["registry", "lineage", "digits/2"]) == 0
    shown = capsys.readouterr().out
    assert "teacher: digits/1 EDM" in shown
    assert f"licence {LICENCE}" in shown
