import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onestep.methods.nets.linear_decoder import LinearDecoder
from onestep.platform.data.errors import DataAltered, DataNotFound
from onestep.platform.data.latent_space import LatentSpace, StoredDecoder
from onestep.platform.data.latents import DECODER, MANIFEST, TENSORS, Latents, write_latents

NODE = {
    "_target_": "onestep.methods.nets.linear_decoder.LinearDecoder",
    "latent": [2, 3, 3],
    "image": [3, 6, 6],
}
SOURCE = {"data": "noise", "encoder": "none"}


def latents(n: int = 200) -> Tensor:
    scale = torch.tensor([0.5, 7.0])[:, None, None]
    shift = torch.tensor([3.0, -1.0])[:, None, None]
    return torch.randn(n, 2, 3, 3, generator=torch.Generator().manual_seed(0)) * scale + shift


def decoder() -> LinearDecoder:
    torch.manual_seed(0)
    net = LinearDecoder(latent=(2, 3, 3), image=(3, 6, 6))
    nn.init.normal_(net.components, std=0.1)
    return net


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Labelled latents with a decoder."""
    write_latents(
        tmp_path / "faces",
        latents(),
        source=SOURCE,
        labels=torch.arange(200) % 2,
        label_names=("cat", "dog"),
        decoder=decoder(),
        decoder_node=NODE,
    )
    return tmp_path / "faces"


def test_latents_come_back_with_unit_variance_and_can_be_scaled_back(folder: Path) -> None:
    source = Latents(folder=str(folder), held_out_fraction=0.3)
    assert (source.name, source.shape, source.label_names) == ("faces", (2, 3, 3), ("cat", "dog"))
    data = source.load()
    x = torch.cat([data.train.x, data.held_out.x])
    assert len(x) == 200
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(2), atol=1e-5, rtol=0)
    assert data.latents is not None
    shift, scale = (
        torch.tensor(p)[:, None, None] for p in (data.latents.shift, data.latents.scale)
    )
    back = {tuple(row.flatten().tolist()) for row in (x * scale + shift).round(decimals=3)}
    assert back == {tuple(row.flatten().tolist()) for row in latents().round(decimals=3)}


def test_labels_stay_with_their_latents(folder: Path) -> None:
    data = Latents(folder=str(folder), held_out_fraction=0.3).load()
    label = dict(
        zip(map(float, latents()[:, 0, 0, 0]), (torch.arange(200) % 2).tolist(), strict=True)
    )
    assert data.latents is not None
    assert data.train.label is not None
    first = data.train.x[:, 0, 0, 0] * data.latents.scale[0] + data.latents.shift[0]
    for x, y in zip(first.tolist(), data.train.label.tolist(), strict=True):
        assert label[min(label, key=lambda z: abs(z - x))] == y


def test_half_precision_is_read_and_trained_on_as_float32(tmp_path: Path) -> None:
    write_latents(tmp_path, latents().half(), source=SOURCE)
    data = Latents(folder=str(tmp_path)).load()
    assert data.train.x.dtype == torch.float32
    assert data.train.label is None
    assert data.latents is not None
    assert data.latents.decoder is None
    assert data.decoder_file is None


def test_latents_are_neither_clipped_nor_mirrored(folder: Path) -> None:
    data = Latents(folder=str(folder)).load()
    rows, _ = data.train.everything()
    assert rows.abs().max() > 2.0
    assert not data.horizontal_flip


def test_the_split_follows_the_bytes_of_each_latent(folder: Path, tmp_path: Path) -> None:
    write_latents(tmp_path / "turned", latents().flip(0), source=SOURCE)
    held = [
        {tuple(row.flatten().tolist()) for row in Latents(folder=str(one)).load().held_out.x}
        for one in (folder, tmp_path / "turned")
    ]
    assert len(held[0]) == len(held[1])
    assert {round(min(row), 3) for row in held[0]} == {round(min(row), 3) for row in held[1]}


def test_the_decoder_is_kept_with_its_class_shape_and_digest(folder: Path) -> None:
    data = Latents(folder=str(folder)).load()
    assert data.latents is not None
    stored = data.latents.decoder
    assert stored is not None
    assert (stored.node, stored.shape, len(stored.sha256)) == (NODE, (3, 6, 6), 64)
    assert data.decoder_file == folder / DECODER
    assert LatentSpace.from_dict(json.loads(json.dumps(data.latents.to_dict()))) == data.latents


@pytest.mark.parametrize("file", [MANIFEST, TENSORS])
def test_a_missing_file_is_one_sentence(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(DataNotFound, match=f"there are no latents in .*faces, where {file}"):
        Latents(folder=str(folder)).load()


def test_a_folder_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="that write_latents has written"):
        _ = Latents(folder=str(tmp_path / "none")).shape


def test_altered_latents_are_refused(folder: Path) -> None:
    payload = bytearray((folder / TENSORS).read_bytes())
    payload[-3] ^= 1
    (folder / TENSORS).write_bytes(payload)
    with pytest.raises(DataAltered, match="truncated or altered: sha256"):
        Latents(folder=str(folder)).load()


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("format", 2, "it must hold format 1"),
        ("shape", [2, 3], "must have the shape"),
        ("shape", [3, 3, 3], "3 channels need as many shifts"),
        ("space", {"shift": [0.0, 0.0], "scale": [1.0, 0.0]}, "scale positive"),
        ("space", {"shift": [0.0, 0.0]}, "incomplete"),
        ("space", {"shift": [0, 0], "scale": [1, 1], "decoder": {"node": {}}}, "incomplete"),
        ("label_names", None, "describes no latents"),
    ],
)
def test_a_manifest_of_something_else_is_refused(
    folder: Path, part: str, value: Any, message: str
) -> None:
    values = json.loads((folder / MANIFEST).read_text()) | {part: value}
    (folder / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(DataAltered, match=message) as caught:
        Latents(folder=str(folder)).load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("shape", [2, 9, 1], r"holds latents of shape \(2, 3, 3\)"),
        ("label_names", ["cat"], r"labels must be in 0..0"),
        ("label_names", [], "labels must be in"),
    ],
)
def test_tensors_that_do_not_fit_the_manifest_are_refused(
    folder: Path, part: str, value: Any, message: str
) -> None:
    values = json.loads((folder / MANIFEST).read_text()) | {part: value}
    (folder / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(DataAltered, match=message):
        Latents(folder=str(folder)).load()


def test_latents_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    z = latents()
    z[3, 0, 0, 0] = float("nan")
    z[9, 1, 2, 2] = float("inf")
    with pytest.raises(ValueError, match="2 of 200 latents are not finite numbers"):
        write_latents(tmp_path, z, source=SOURCE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": torch.zeros(4, 2)}, r"shape \[n c h w\]"),
        ({"latents": torch.zeros(4, 2, 3, 3, dtype=torch.int)}, "floating-point"),
        ({"latents": torch.zeros(4, 2, 3, 3)}, "scale positive"),
        ({"labels": torch.zeros(7, dtype=torch.long), "label_names": ("a",)}, "as many whole"),
        ({"labels": torch.zeros(200), "label_names": ("a",)}, "whole numbers as labels"),
        ({"labels": torch.ones(200, dtype=torch.long), "label_names": ("a",)}, r"in 0\.\.0"),
        ({"label_names": ("a",)}, "1 label names need labels, got none"),
        ({"source": {"n": float("nan")}}, "not JSON compliant"),
        ({"decoder": nn.Identity()}, "given together"),
        ({"decoder": nn.Linear(1, 1), "decoder_node": NODE}, "builds another decoder"),
        (
            {"decoder": nn.Identity(), "decoder_node": {"_target_": "torch.nn.Identity"}},
            r"images of shape \(1 or 3, height, width\), got \(2, 3, 3\)",
        ),
        (
            {"decoder": nn.Flatten(), "decoder_node": {"_target_": "torch.nn.Flatten"}},
            r"a tensor of finite images \[n c h w\], got \[1, 18\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_latents(tmp_path, **{"latents": latents(), "source": SOURCE} | changes)
    assert not list(tmp_path.iterdir())


def test_a_split_with_an_empty_side_is_refused(tmp_path: Path) -> None:
    write_latents(tmp_path, latents(2), source=SOURCE)
    with pytest.raises(DataNotFound, match=r"holds 2 latents, .* both sides need some"):
        Latents(folder=str(tmp_path), held_out_fraction=1e-9).load()


def test_a_decoder_is_of_a_class_and_makes_images() -> None:
    with pytest.raises(ValueError, match="must be a node with a _target_ path"):
        StoredDecoder(node={}, shape=(1, 8, 8), sha256="0")
    with pytest.raises(ValueError, match=r"got \(4, 8, 8\)"):
        StoredDecoder(node=NODE, shape=(4, 8, 8), sha256="0")
