from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from onestep.methods.core.flow_map import Domain
from onestep.methods.nets.linear_decoder import LinearDecoder
from onestep.platform.atomic import encode_safetensors, sha256
from onestep.platform.data.latent_space import LatentSpace, StoredDecoder
from onestep.platform.registry.decoder import Decoder, load_decoder
from onestep.platform.registry.errors import ArchitectureMismatch, ModelAltered, ModelNotTrusted
from onestep.platform.registry.record import ModelRecord
from onestep.platform.registry.run import Run
from onestep.platform.registry.store import Registry
from onestep.tests.platform.registry.contract import WEIGHTS, facts

LATENT = (2, 2, 2)
NODE = {
    "_target_": "onestep.methods.nets.linear_decoder.LinearDecoder",
    "latent": [2, 2, 2],
    "image": [1, 4, 4],
}


def net() -> LinearDecoder:
    torch.manual_seed(0)
    made = LinearDecoder(latent=LATENT, image=(1, 4, 4))
    torch.nn.init.normal_(made.components, std=0.1)
    return made.requires_grad_(False)


def payload() -> bytes:
    return encode_safetensors(net().state_dict())


def space(node: Mapping[str, Any] = NODE, shape: tuple[int, ...] = (1, 4, 4)) -> LatentSpace:
    stored = StoredDecoder(node=node, shape=shape, sha256=sha256(payload()))
    return LatentSpace(shift=(1.0, -2.0), scale=(0.5, 3.0), decoder=stored)


def record(latents: LatentSpace | None) -> ModelRecord:
    return ModelRecord(
        name="faces",
        method={"_target_": "onestep.methods.mean_flow.MeanFlow"},
        net={"_target_": "onestep.methods.nets.mlp.MLP"},
        shape=LATENT,
        domain=Domain().to_dict(),
        data_digest="d",
        seed=0,
        latents=latents,
    )


@pytest.fixture
def registry(local_registry) -> Registry:
    return local_registry()


def register(registry: Registry, described: ModelRecord, decoder: bytes | None) -> str:
    run = Run.start(registry.connection, facts("faces"))
    return str(registry.register(described, WEIGHTS, run_id=run.run_id, decoder=decoder))


def test_a_decoder_undoes_the_scaling_and_clips_to_what_is_shown() -> None:
    x = 4.0 * torch.randn(5, *LATENT)
    decoder = Decoder.of(space(), payload(), latent=LATENT, model="faces")
    z = torch.stack([x[:, 0] * 0.5 + 1.0, x[:, 1] * 3.0 - 2.0], dim=1)
    assert torch.equal(decoder(x), net()(z).clamp(-1.0, 1.0))
    assert decoder(x).abs().max() == 1.0


def test_a_registered_model_keeps_its_decoder(registry: Registry) -> None:
    reference = register(registry, record(space()), payload())
    assert registry.entry(reference).record == record(space())
    decoder = load_decoder(registry, reference)
    assert decoder is not None
    x = torch.randn(3, *LATENT)
    again = Decoder.of(space(), payload(), latent=LATENT, model="faces")
    assert torch.equal(decoder(x), again(x))


@pytest.mark.parametrize("latents", [None, replace(space(), decoder=None)])
def test_a_model_without_decoder_has_none(registry: Registry, latents: LatentSpace | None) -> None:
    reference = register(registry, record(latents), None)
    assert registry.decoder(reference) is None
    assert load_decoder(registry, reference) is None


@pytest.mark.parametrize("decoder", [None, b"another"])
def test_a_version_comes_with_the_decoder_of_its_record(
    registry: Registry, decoder: bytes | None
) -> None:
    with pytest.raises(ValueError, match="must come with the decoder of its record"):
        register(registry, record(space()), decoder)
    with pytest.raises(ValueError, match="none, got"):
        register(registry, record(None), payload())
    assert registry.list() == ()


@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_bytes(b"other")])
def test_a_decoder_that_was_altered_or_taken_away_is_refused(
    registry: Registry, tmp_path: Path, spoil: Any
) -> None:
    reference = register(registry, record(space()), payload())
    (file,) = tmp_path.rglob("decoder.safetensors")
    spoil(file)
    with pytest.raises(ModelAltered, match=r"the decoder of faces/1 (is missing|was altered)"):
        load_decoder(registry, reference)


def test_no_class_that_is_not_trusted_is_built(registry: Registry, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    planted = space({"_target_": "logging.FileHandler", "filename": str(marker)})
    reference = register(registry, record(planted), payload())
    with pytest.raises(ModelNotTrusted, match=r"the decoder of faces/1 names logging\.FileHandler"):
        load_decoder(registry, reference)
    assert not marker.exists()


def test_what_is_no_network_is_refused() -> None:
    node = {"_target_": "onestep.methods.core.schedule.Constant", "value": 1.0}
    with pytest.raises(ValueError, match="Constant is no Module"):
        Decoder.of(space(node), payload(), latent=LATENT, model="faces")


def test_a_decoder_of_other_weights_or_shapes_is_refused() -> None:
    larger = {**NODE, "image": [1, 5, 5]}
    with pytest.raises(ArchitectureMismatch, match=r"the decoder of faces belongs to another"):
        Decoder.of(space(larger), payload(), latent=LATENT, model="faces")
    with pytest.raises(ValueError, match=r"images of shape \(1, 2, 8\) .* got \(1, 4, 4\)"):
        Decoder.of(space(shape=(1, 2, 8)), payload(), latent=LATENT, model="faces")
    with pytest.raises(ValueError, match=r"takes no latents of shape \(2, 3, 3\)") as caught:
        Decoder.of(space(), payload(), latent=(2, 3, 3), model="faces")
    assert "\n" not in str(caught.value)


def test_a_record_of_latents_has_a_shift_for_each_channel() -> None:
    with pytest.raises(ValueError, match="2 channels must have as many shifts, got 1"):
        record(LatentSpace(shift=(0.0,), scale=(1.0,)))
