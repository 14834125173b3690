"""Digits as latents of a linear autoencoder: trained on, registered, decoded wherever seen."""

import asyncio
import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import torch
from PIL import Image

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import FlowMap
from onestep.methods.core.noise import draw_noise
from onestep.methods.core.sampler_choice import sampler_for
from onestep.methods.nets.linear_decoder import LinearDecoder
from onestep.platform.cli import USER_ERROR, main
from onestep.platform.data.digits import Digits
from onestep.platform.data.latents import DECODER, write_latents
from onestep.platform.evaluation.figures import sample_grid, save_png
from onestep.platform.evaluation.report import Report
from onestep.platform.evaluation.sampling import draw_samples, unbounded
from onestep.platform.home import Home
from onestep.platform.registry.decoder import Decoder, load_decoder
from onestep.platform.registry.model import load_flow_map
from onestep.platform.registry.store import Registry
from onestep.serving.engine import Engine
from onestep.serving.loading import load_engine
from onestep.serving.schema import ImagesRequest, ImagesResponse
from onestep.serving.service import EngineService
from onestep.serving.settings import AppSettings

LATENT: Final = (6, 2, 2)
TRAIN: Final = (
    "net=mlp",
    "net.width=32",
    "training.samples=2048",
    "training.log_every=1024",
    "evaluation.samples=64",
    "evaluation.nfes=[1,2]",
)


def write_digits(folder: Path, *, decoded: bool) -> LinearDecoder:
    """Latents of the digits, with labels and what makes images of them or with neither."""
    digits = Digits().load()
    images, labels = digits.train.everything()
    decoder = LinearDecoder.fitted(images, latent=LATENT)
    write_latents(
        folder,
        decoder.encode(images),
        source={"data": digits.digest, "encoder": "principal components"},
        labels=labels if decoded else None,
        label_names=digits.label_names if decoded else (),
        decoder=decoder if decoded else None,
        decoder_node={
            "_target_": "onestep.methods.nets.linear_decoder.LinearDecoder",
            "latent": list(LATENT),
            "image": [1, 8, 8],
        }
        if decoded
        else None,
    )
    return decoder


@pytest.fixture(scope="module")
def home(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with latents and a model of them, once with a decoder and once without."""
    root = tmp_path_factory.mktemp("latents")
    shutil.copy(empty_database, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONESTEP_HOME", str(root))
        for name in ("seen", "unseen"):
            write_digits(root / name, decoded=name == "seen")
            words = ["data=latents", f"data.folder={root / name}", "method=flow_matching", *TRAIN]
            assert main(["train", *words, f"run={name}"]) == 0
        yield root


def model(reference: str) -> tuple[FlowMap, Decoder]:
    registry = Registry.at(Home.here())
    decoder = load_decoder(registry, reference)
    assert decoder is not None
    return load_flow_map(registry, reference)[0], decoder


def by_hand(reference: str, *, n: int, nfe: int, seed: int, labels: torch.Tensor) -> torch.Tensor:
    """What a model makes of the noise of a seed, as images."""
    flow_map, decoder = model(reference)
    sampler = sampler_for(flow_map.domain, nfe)
    assert sampler is not None
    noise = draw_noise(n, LATENT, seed=seed, draws=sampler.draws)
    return decoder(sampler.sample(flow_map, noise, Condition(label=labels)))


def test_the_record_says_how_latents_are_scaled_and_decoded(home: Path) -> None:
    record = Registry.at(Home.here()).entry("seen/1").record
    assert record.shape == LATENT
    assert record.latents is not None
    assert record.latents.decoder is not None
    assert record.latents.decoder.shape == (1, 8, 8)
    assert json.loads(record.to_json())["latents"]["decoder"]["sha256"]


def test_a_decoded_latent_of_a_digit_is_the_digit_but_for_what_the_code_loses(home: Path) -> None:
    images, _ = Digits().load().train.everything()
    linear = LinearDecoder.fitted(images, latent=LATENT)
    _, decoder = model("seen/1")
    space = Registry.at(Home.here()).entry("seen/1").record.latents
    assert space is not None
    shift, scale = (torch.tensor(part)[:, None, None] for part in (space.shift, space.scale))
    seen = decoder((linear.encode(images) - shift) / scale)
    torch.testing.assert_close(seen, linear(linear.encode(images)).clamp(-1, 1), atol=1e-5, rtol=0)
    # 24 of 64 components keep nearly everything of a digit.
    assert (seen - images).square().mean() < 0.1 * images.var()


def test_sampled_pictures_are_decoded(home: Path, tmp_path: Path) -> None:
    words = ["sample", "seen/1", "--n", "20", "--nfe", "2", "--seed", "5"]
    assert main([*words, "--out", str(tmp_path / "got.png")]) == 0
    images = by_hand("seen/1", n=20, nfe=2, seed=5, labels=torch.arange(20) % 10)
    assert images.shape == (20, 1, 8, 8)
    save_png(sample_grid({"seen/1, 2 NFE": images}, columns=10), tmp_path / "expected.png")
    assert (tmp_path / "got.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_samples_of_latents_are_not_clipped(home: Path) -> None:
    flow_map, _ = model("seen/1")
    sampler = sampler_for(flow_map.domain, 2)
    assert sampler is not None
    labels = torch.arange(64) % 10
    x = draw_samples(
        flow_map,
        sampler,
        n=64,
        shape=LATENT,
        seed=0,
        condition=Condition(label=labels),
        finish=unbounded,
    )
    assert x.abs().max() > 1.5


@pytest.mark.slow
def test_the_metrics_of_a_run_are_those_of_the_latents(home: Path) -> None:
    record = Registry.at(Home.here()).entry("seen/1").record
    latent, decoded = (
        _measured(home, "seen/1"),
        _measured(home, "seen/1", "--decoded"),
    )
    assert latent.metrics() == record.metrics
    assert decoded.metrics() != latent.metrics()
    assert decoded.provenance.data == "seen-decoded"
    assert decoded.provenance.data_digest != latent.provenance.data_digest


def _measured(home: Path, reference: str, *more: str) -> Report:
    file = home / "report.json"
    words = ["evaluate", reference, "--nfe", "1", "2", "--samples", "64", *more]
    assert main([*words, "--json", str(file)]) == 0
    return Report.from_json(file.read_text())


def test_compared_pictures_are_decoded_and_left_out_where_nothing_decodes(
    home: Path, tmp_path: Path
) -> None:
    for name in ("seen", "unseen"):
        words = ["compare", f"{name}/1", "--nfe", "1", "--samples", "64"]
        assert main([*words, "--out", str(tmp_path / name)]) == 0
    labels = torch.arange(50) % 10
    images = by_hand("seen/1", n=50, nfe=1, seed=7, labels=labels)
    save_png(
        sample_grid({"FlowMatching seen/1, 1 NFE": images}, columns=10), tmp_path / "expected.png"
    )
    samples = tmp_path / "seen" / "samples.png"
    assert samples.read_bytes() == (tmp_path / "expected.png").read_bytes()
    assert (tmp_path / "unseen" / "quality.png").exists()
    assert not (tmp_path / "unseen" / "samples.png").exists()


def test_the_served_images_are_decoded(home: Path) -> None:
    engine, version = load_engine(
        AppSettings(model="seen/1", tracking_uri=Home.here().tracking_uri)
    )
    assert (engine.size, version) == ("8x8", "seen/1")
    service = EngineService(engine, name="seen", version=version)
    assert (service.card.shape, service.card.noise_shape) == ([1, 8, 8], [6, 2, 2])
    request = ImagesRequest(prompt="3", n=3, seed=11, steps=2)
    answer = asyncio.run(service.generate(request))
    assert isinstance(answer, ImagesResponse)
    expected = by_hand("seen/1", n=3, nfe=2, seed=11, labels=torch.full((3,), 3))
    for item, image in zip(answer.data, expected, strict=True):
        assert item.b64_json is not None
        with Image.open(io.BytesIO(base64.b64decode(item.b64_json))) as png:
            assert png.size == (8, 8)
            levels = torch.frombuffer(bytearray(png.tobytes()), dtype=torch.uint8).reshape(8, 8)
        # Other numbers of rows may round differently, by a level at most.
        assert ((image[0] + 1.0) * 127.5 - levels).abs().max() < 1.0


def test_what_nothing_decodes_is_neither_pictured_nor_served(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", "unseen/1"]) == USER_ERROR
    assert (
        "unseen/1 makes latents of shape (6, 2, 2), and has no decoder" in capsys.readouterr().err
    )
    assert main(["evaluate", "unseen/1", "--decoded"]) == USER_ERROR
    assert "--decoded needs a model of latents with a decoder" in capsys.readouterr().err
    flow_map, record = load_flow_map(Registry.at(Home.here()), "unseen/1")
    with pytest.raises(ValueError, match="a served model of latents needs a decoder, got unseen"):
        Engine(flow_map, record)


def test_a_decoder_that_was_altered_is_refused_before_the_first_step(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(tmp_path / "faces", decoded=True)
    words = ["train", "data=latents", f"data.folder={tmp_path / 'faces'}", "method=flow_matching"]
    (tmp_path / "faces" / DECODER).write_bytes(b"other")
    assert main([*words, *TRAIN]) == USER_ERROR
    assert "the decoder of faces was altered or truncated" in capsys.readouterr().err
    (tmp_path / "faces" / DECODER).unlink()
    assert main([*words, *TRAIN]) == USER_ERROR
    assert "the decoder of faces is missing" in capsys.readouterr().err
    assert not list((home / "runs").glob("faces*"))
