"""A model as diffusers saves it is imported whole, samples as it does there, and teaches."""

import importlib.util
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from torch import Tensor

from onestep.methods.core.clock_grid import ClockGrid
from onestep.methods.core.condition import Condition
from onestep.methods.core.diffusion_clock import DiscreteClock
from onestep.methods.core.ode import Euler
from onestep.platform.atomic import sha256_of
from onestep.platform.cli import USER_ERROR, main
from onestep.platform.home import Home
from onestep.platform.registry.model import load_flow_map
from onestep.platform.registry.store import Registry

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="needs the extra diffusers"
)

SOURCE = "https://example.org/ddpm-digits"
TERMS = ("--licence", "Apache-2.0", "--source", SOURCE)
MODEL = ("data=unlabelled", "net=diffusers_unet", "method=ddpm")
TEACHER = ("clock@method.clock=linear_rate", "method.clock.tau_min=0")
SIZES: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


@pytest.fixture(autouse=True)
def home(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    return tmp_path


def saved(home: Path, **sizes: Any) -> Any:
    """A network with random weights, saved as the library saves it."""
    torch.manual_seed(0)
    import diffusers  # takes seconds

    unet = diffusers.UNet2DModel(**(SIZES | sizes)).eval().requires_grad_(False)
    unet.save_pretrained(home / "unet", safe_serialization=True)
    return unet


def attempt(home: Path, *overrides: str, mapping: object = None) -> int:
    folder = home / "unet"
    (home / "unet.yaml").write_text(yaml.safe_dump(mapping or {"prefix": "net.unet."}))
    words = [str(folder / "diffusion_pytorch_model.safetensors")]
    words += ["--mapping", str(home / "unet.yaml"), "--net-config", str(folder / "config.json")]
    return main(["registry", "import", *words, *TERMS, *(overrides or MODEL)])


def test_a_saved_model_is_imported_whole_with_its_licence_and_source(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unet = saved(home)
    assert attempt(home) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "registered digits_unlabelled/1"
    sha256 = sha256_of(home / "unet" / "diffusion_pytorch_model.safetensors")
    for file in (home / "unet").iterdir():
        file.unlink()  # the model stands on nothing but the registry
    net, record = load_flow_map(Registry.at(Home.here()), "digits_unlabelled/1")
    theirs = unet.state_dict()
    assert {f"net.unet.{name}" for name in theirs} == set(net.state_dict())
    for name, weight in theirs.items():
        assert torch.equal(net.state_dict()[f"net.unet.{name}"], weight)
    assert record.origin["licence"] == "Apache-2.0"
    assert record.origin["source"] == SOURCE
    assert record.origin["sha256"] == sha256
    assert main(["registry", "show", "digits_unlabelled/1"]) == 0
    shown = capsys.readouterr().out
    assert "Apache-2.0" in shown
    assert SOURCE in shown
    assert main(["registry", "lineage", "digits_unlabelled/1"]) == 0
    line = f"digits_unlabelled/1 DDPM (from {SOURCE}, licence Apache-2.0)"
    assert capsys.readouterr().out.strip() == line


def test_its_velocity_is_the_flow_of_what_diffusers_says(home: Path) -> None:
    """Up to the single precision of both and of the library's schedule: 1e-3 of each velocity."""
    unet = saved(home)
    assert attempt(home) == 0
    net, _ = load_flow_map(Registry.at(Home.here()), "digits_unlabelled/1")
    number = torch.tensor([1, 10, 100, 500, 900, 998])
    import diffusers

    kept = diffusers.DDIMScheduler().alphas_cumprod[number][:, None, None, None]
    a, g = kept.sqrt(), (1.0 - kept).sqrt()
    z = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    noise = unet(z, number).sample
    want = (z - g * noise) / a - noise  # the predicted data less the predicted noise
    found = net.velocity(z / (a + g), (a / (a + g)).flatten())
    error = (found - want).flatten(1).norm(dim=1) / want.flatten(1).norm(dim=1)
    assert error.max() < 1e-3


def test_a_chain_of_ddim_ends_where_that_of_diffusers_ends(home: Path) -> None:
    """28 steps from level 999 to 0 and on to the data, in double precision: 1e-4 of the samples.

    The library's schedule is single. Its leading chain stops one level short of 0 and is given
    that step, from which ours denoises too; its samples are not clipped, as those of a flow are
    not; and where ours begins the noise has the standard deviation that the schedule gives it, and
    not 1.
    """
    unet = saved(home).double()
    assert attempt(home) == 0
    net, _ = load_flow_map(Registry.at(Home.here()), "digits_unlabelled/1")
    import diffusers  # takes seconds

    ddim = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="leading", steps_offset=37)
    ddim.set_timesteps(27)
    numbers = [*ddim.timesteps.tolist(), 0]
    assert [a - b for a, b in pairwise(numbers)] == [37] * 27
    assert numbers[0] == 999
    noise = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = noise
    for number in numbers:
        z = ddim.step(unet(z, torch.tensor(number)).sample, number, z).prev_sample
    last = DiscreteClock().level(torch.ones(1, dtype=torch.float64))
    deviation = (last / (1.0 + last.square()).sqrt()).item()
    sampler = Euler(grid=ClockGrid(steps=27))
    found = sampler.sample(net.double(), noise[None] / deviation)
    assert (found - z).norm() < 1e-4 * z.norm()
    elsewhere = Euler(grid=ClockGrid(steps=26)).sample(net, noise[None] / deviation)
    assert (elsewhere - z).norm() > 1e-3 * z.norm()


def test_the_sampler_of_diffusers_has_a_name(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(home)
    assert attempt(home) == 0
    words = ["sampler=ddim_clock", "sampler.grid.steps=5", "--n", "8"]
    assert main(["sample", "digits_unlabelled/1", *words, "--out", str(home / "s.png")]) == 0
    assert "ClockGrid" in capsys.readouterr().out


def test_a_model_of_classes_is_asked_for_them(home: Path) -> None:
    unet = saved(home, num_class_embeds=11)
    assert attempt(home, "data=digits", *MODEL[1:]) == 0
    net, record = load_flow_map(Registry.at(Home.here()), "digits/1")
    assert record.classes == 10
    clock, number = DiscreteClock(), torch.tensor([300, 300])
    t = clock.time((number.double() + 1.0) / 1000.0).float()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    z = x / (t.square() + (1.0 - t).square()).sqrt()[:, None, None, None]
    noise = unet(z, number, class_labels=torch.tensor([7, 10])).sample
    found = net.velocity(x, t, Condition(label=torch.tensor([7, -1])))
    want = (x - noise) / t[:, None, None, None]
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_imported_model_teaches_a_student(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(home)
    assert attempt(home, *MODEL, *TEACHER) == 0
    words = ["method=consistency_distillation", "data=unlabelled", "net=mlp_digits"]
    words += ["net.width=16", "parents.teacher=digits_unlabelled/1", "training.batch_size=64"]
    words += ["training.samples=256", "evaluation.samples=8", "evaluation.nfes=[1]"]
    assert main(["train", *words]) == 0
    capsys.readouterr()
    assert main(["registry", "lineage", "digits_unlabelled/2"]) == 0
    student, teacher = capsys.readouterr().out.splitlines()
    assert student.startswith("digits_unlabelled/2 ConsistencyDistillation")
    assert teacher.startswith("+-- teacher: digits_unlabelled/1 DDPM")
    assert f"(from {SOURCE}, licence Apache-2.0)" in teacher


def rewritten(home: Path, weights: dict[str, Tensor]) -> None:
    file = home / "unet" / "diffusion_pytorch_model.safetensors"
    safetensors.torch.save_file(weights, file)


@pytest.mark.parametrize(
    ("change", "mapping", "sentence"),
    [
        ("missing", None, "it has no weight 'net.unet.conv_out.bias'"),
        ("unexpected", None, "it has the unknown weight 'net.unet.extra'"),
        ("none", {"prefix": "unet."}, "it has no weight 'net.unet."),
        ("none", {"prefix": "net.unet.", "ignored": ["step"]}, "each weight of the mapping, got"),
        ("none", {"prefix": 3}, "or prefix, what the network has before each"),
        (
            "none",
            {"prefix": "net.unet.", "weights": {"a": "b"}},
            "must list the weights or give their prefix, got both, 1 weights and 'net.unet.'",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: str, mapping: object, sentence: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = dict(saved(home).state_dict())
    if change == "missing":
        del weights["conv_out.bias"]
    elif change == "unexpected":
        weights["extra"] = torch.zeros(1)
    rewritten(home, weights)
    assert attempt(home, mapping=mapping) == USER_ERROR
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert Registry.at(Home.here()).list() == ()


def test_weights_beside_the_network_s_can_be_ignored(home: Path) -> None:
    rewritten(home, {**saved(home).state_dict(), "step": torch.zeros(1)})
    assert attempt(home, mapping={"prefix": "net.unet.", "ignored": ["step"]}) == 0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("data=digits", *MODEL[1:]), "num_class_embeds None, data of 10 classes need 11"),
        (("data=unlabelled", "data@data.of=cifar10", *MODEL[1:]), "has sample_size 8, the data"),
        (("data=digits", "net=unet_digits", "method=ddpm"), "needs a network with net.net.config"),
    ],
)
def test_a_network_of_other_sizes_is_refused(
    overrides: tuple[str, ...], sentence: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(home)
    assert attempt(home, *overrides) == USER_ERROR
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "sentence"), [("{", "cannot read the sizes"), ("[1]", "must hold the sizes")]
)
def test_a_file_without_sizes_is_refused(
    text: str, sentence: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(home)
    (home / "unet" / "config.json").write_text(text)
    assert attempt(home) == USER_ERROR
    assert sentence in capsys.readouterr().err


def test_a_dry_run_shows_the_sizes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(home)
    assert attempt(home, *MODEL, "--dry-run") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["net"]["net"]["config"]["block_out_channels"] == [8, 16]
