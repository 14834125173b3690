"""Latents that an encoder made beforehand: tensors in a folder, with a JSON that describes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from jaxtyping import Float, Int, Shaped
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from ..atomic import encode_safetensors, sha256, write_bytes, write_json
from ..build import build
from .errors import DataAltered, DataNotFound
from .latent_space import LatentSpace, StoredDecoder
from .source import AbstractSource, Dataset, Examples
from .split import check_fraction, is_held_out

TENSORS: Final = "latents.safetensors"
DECODER: Final = "decoder.safetensors"
MANIFEST: Final = "latents.json"
_FORMAT: Final = 1
_PARTS: Final = {"format", "shape", "sha256", "label_names", "source", "space"}


@final
@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the JSON of a folder of latents says.

    Attributes:
        shape: Channels, height and width of a latent.
        sha256: SHA-256 of the file of latents.
        label_names: Name of each class, empty without labels.
        source: Where the latents come from, in plain values.
        space: How they are scaled, and what decodes them.

    Raises:
        ValueError: If the shape is of no latent, or does not fit the space.
    """

    shape: tuple[int, ...]
    sha256: str
    label_names: tuple[str, ...]
    source: Mapping[str, Any]
    space: LatentSpace

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(
                f"latents must have the shape (channels, height, width), got {self.shape}"
            )
        if len(self.space.shift) != self.shape[0]:
            raise ValueError(
                f"latents of {self.shape[0]} channels need as many shifts and scales, "
                f"got {len(self.space.shift)}"
            )

    @property
    def values(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "format": _FORMAT,
            "shape": list(self.shape),
            "sha256": self.sha256,
            "label_names": list(self.label_names),
            "source": dict(self.source),
            "space": self.space.to_dict(),
        }


@final
@dataclass(frozen=True, kw_only=True)
class Latents(AbstractSource):
    """Latents in a folder that `write_latents` has written, held in memory as float32.

    They are neither mirrored nor clipped: that is for images. Which of them are held out depends
    on the bytes of each alone.

    Attributes:
        folder: The folder, whose name is the name of the set.
        held_out_fraction: Expected share of held-out examples, in (0, 1).

    Raises:
        ValueError: If the share of held-out examples is outside (0, 1).
    """

    folder: str
    held_out_fraction: float = 0.1

    def __post_init__(self) -> None:
        check_fraction(self.held_out_fraction)

    @property
    def root(self) -> Path:
        """The folder."""
        return Path(self.folder).expanduser().resolve()

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of a latent, as the JSON has them."""
        return read_manifest(self.root).shape

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, as the JSON has them."""
        return read_manifest(self.root).label_names

    def load(self) -> Dataset:
        """The set in memory, scaled to unit variance and checked against its checksum.

        Raises:
            DataNotFound: If a file is missing, or all latents lie on one side of the split.
            DataAltered: If a file is not what the JSON says, or a latent is not finite.
        """
        manifest = read_manifest(self.root)
        z, labels = _read_tensors(self.root, manifest)
        space = manifest.space
        shift, scale = (torch.tensor(part)[:, None, None] for part in (space.shift, space.scale))
        held_out = is_held_out((row.numpy().tobytes() for row in z), self.held_out_fraction)
        if held_out.all() or not held_out.any():
            raise DataNotFound(
                f"{self.root} holds {len(z)} latents, of which {int(held_out.sum())} are held "
                "out; both sides need some: add latents or change held_out_fraction, "
                f"now {self.held_out_fraction}"
            )
        x = (z - shift) / scale
        train, kept = (
            Examples(x=x[rows], label=None if labels is None else labels[rows])
            for rows in (~held_out, held_out)
        )
        decoder = None if space.decoder is None else self.root / DECODER
        return Dataset.of(self, train=train, held_out=kept, latents=space, decoder_file=decoder)


def write_latents(
    folder: Path,
    latents: Float[Tensor, "n c h w"],
    *,
    source: Mapping[str, Any],
    labels: Int[Tensor, " n"] | None = None,
    label_names: Sequence[str] = (),
    decoder: nn.Module | None = None,
    decoder_node: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write latents of any encoder into a folder that `data=latents data.folder=...` trains on.

    Shift and scale of each channel become its mean and its standard deviation. The JSON is written
    last: a folder without one holds no latents.

    Args:
        folder: Where to; its name becomes the name of the set and of its models.
        latents: What the encoder gave, in the order of the examples.
        source: Where they come from, in plain values: data, encoder, licence.
        labels: Class of each, or None.
        label_names: Name of each class.
        decoder: What makes images in [-1, 1] of such latents, or None.
        decoder_node: `_target_` node that builds the decoder again, but for its weights. Classes
            of other packages are built where `ONESTEP_TRUST` names the package.

    Returns:
        What the JSON says.

    Raises:
        ValueError: If latents, labels or decoder do not fit each other or are not finite.
    """
    _check_latents(latents, labels, classes=len(label_names))
    z = latents.detach().cpu()
    dims = (0, 2, 3)
    shift, scale = z.double().mean(dims), z.double().std(dims)
    stored, weights = _stored_decoder(latents[:1], decoder, decoder_node)
    space = LatentSpace(shift=tuple(shift.tolist()), scale=tuple(scale.tolist()), decoder=stored)
    tensors = {"latents": z} if labels is None else {"latents": z, "labels": labels.long()}
    payload = encode_safetensors(tensors)
    manifest = Manifest(
        shape=tuple(z.shape[1:]),
        sha256=sha256(payload),
        label_names=tuple(label_names),
        source=source,
        space=space,
    )
    # What is not plain is refused before a file is touched.
    text = json.dumps(manifest.values, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    write_bytes(folder / TENSORS, payload)
    if weights is not None:
        write_bytes(folder / DECODER, weights)
    write_json(folder / MANIFEST, json.loads(text))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """What the JSON of a folder of latents says.

    Args:
        folder: The folder.

    Returns:
        Its contents.

    Raises:
        DataNotFound: If there is none.
        DataAltered: If it is not of this format.
    """
    file = folder / MANIFEST
    try:
        values = json.loads(file.read_text())
        if set(values) != _PARTS or values["format"] != _FORMAT:
            raise ValueError(f"it must hold format {_FORMAT} and {', '.join(sorted(_PARTS))}")
        return Manifest(
            shape=tuple(int(size) for size in values["shape"]),
            sha256=str(values["sha256"]),
            label_names=tuple(str(name) for name in values["label_names"]),
            source=dict(values["source"]),
            space=LatentSpace.from_dict(values["space"]),
        )
    except FileNotFoundError as error:
        raise DataNotFound(
            f"there are no latents in {folder}, where {MANIFEST} is missing; "
            "set data.folder to a folder that write_latents has written"
        ) from error
    except (ValueError, TypeError, NotADirectoryError) as error:
        raise DataAltered(f"{file} describes no latents: {error}") from error


def _read_tensors(
    folder: Path, manifest: Manifest
) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, " n"] | None]:
    file = folder / TENSORS
    try:
        payload = file.read_bytes()
    except FileNotFoundError as error:
        raise DataNotFound(
            f"there are no latents in {folder}, where {TENSORS} is missing"
        ) from error
    digest = sha256(payload)
    if digest != manifest.sha256:
        raise DataAltered(
            f"{file} is truncated or altered: sha256 {digest[:12]}..., "
            f"expected {manifest.sha256[:12]}..."
        )
    try:
        tensors = load_tensors(payload)
        latents, labels = tensors["latents"], tensors.get("labels")
        _check_latents(latents, labels, classes=len(manifest.label_names))
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataAltered(f"{file} holds no latents: {error}") from error
    if latents.shape[1:] != manifest.shape:
        raise DataAltered(
            f"{file} holds latents of shape {tuple(latents.shape[1:])}, "
            f"but {MANIFEST} says {manifest.shape}"
        )
    return latents.float(), labels


def _check_latents(
    latents: Shaped[Tensor, "..."], labels: Shaped[Tensor, "..."] | None, *, classes: int
) -> None:
    if latents.dim() != 4 or not latents.is_floating_point() or latents.numel() == 0:
        raise ValueError(
            "latents must be floating-point numbers of shape [n c h w], "
            f"got {latents.dtype} of shape {list(latents.shape)}"
        )
    finite = latents.detach().flatten(1).isfinite().all(dim=1)
    if not finite.all():
        raise ValueError(f"{int((~finite).sum())} of {len(latents)} latents are not finite numbers")
    if labels is None:
        if classes:
            raise ValueError(f"latents with {classes} label names need labels, got none")
        return
    if labels.shape != latents.shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"{len(latents)} latents need as many whole numbers as labels, "
            f"got {labels.dtype} of shape {list(labels.shape)}"
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels must be in 0..{classes - 1}, one for each of the label names, "
            f"got {int(labels.min())}..{int(labels.max())}"
        )


def _stored_decoder(
    latent: Float[Tensor, "1 c h w"], decoder: nn.Module | None, node: Mapping[str, Any] | None
) -> tuple[StoredDecoder | None, bytes | None]:
    """The decoder as the JSON has it and the bytes of its weights, tried on one latent."""
    if (decoder is None) != (node is None):
        raise ValueError("a decoder and its node are given together, got one of them")
    if decoder is None or node is None:
        return None, None
    payload = encode_safetensors(decoder.state_dict())
    again = build(node, nn.Module)
    try:
        again.load_state_dict(load_tensors(payload))
    except RuntimeError as error:
        raise ValueError(f"the node {node['_target_']} builds another decoder: {error}") from error
    with torch.no_grad():
        image = again.eval()(latent.detach().cpu().float())
    if not isinstance(image, Tensor) or image.dim() != 4 or not image.isfinite().all():
        raise ValueError(
            "a decoder must make a tensor of finite images [n c h w], "
            f"got {list(image.shape) if isinstance(image, Tensor) else type(image).__name__}"
        )
    stored = StoredDecoder(node=dict(node), shape=tuple(image.shape[1:]), sha256=sha256(payload))
    return stored, payload
