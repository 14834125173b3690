"""Stored pairs of noise and data: a checksummed set with a lineage, made by one teacher."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from ...methods.core.condition import Condition
from ..atomic import encode_safetensors, sha256, sha256_of, write_bytes, write_json
from .errors import DataAltered, DataNotFound

_TENSORS: Final = "pairs.safetensors"
_MANIFEST: Final = "manifest.json"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Noise and the data that a teacher's flow takes it to.

    Attributes:
        x0: Noise.
        x1: Data, images in [-1, 1].
        condition: What the flow was told of each pair, its class or its caption, or None.
    """

    x0: Float[Tensor, " n *d"]
    x1: Float[Tensor, " n *d"]
    condition: Condition | None = None

    def __len__(self) -> int:
        return len(self.x0)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PairSet:
    """Pairs of both kinds.

    Attributes:
        generated: Fresh noise and what the teacher makes of it.
        real: Training data and the noise that the teacher's flow takes back from them; may be
            empty.
        digest: sha256 of the tensors.
        lineage: Where they come from: teacher and its weights, seed, solver, digest of the data.
    """

    generated: Pairs
    real: Pairs
    digest: str
    lineage: Mapping[str, Any]


def write_pairs(folder: Path, generated: Pairs, real: Pairs, lineage: Mapping[str, Any]) -> PairSet:
    """Write a set of pairs into a folder, whole or not at all.

    Args:
        folder: Where the set goes.
        generated: Pairs from fresh noise.
        real: Pairs from data.
        lineage: Plain values that say where they come from.

    Returns:
        The set as written.
    """
    tensors = dict[str, Tensor]()
    for kind, pairs in {"generated": generated, "real": real}.items():
        tensors[f"{kind}.x0"], tensors[f"{kind}.x1"] = pairs.x0, pairs.x1
        told = Condition() if pairs.condition is None else pairs.condition
        for part, tensor in (("label", told.label), ("tokens", told.tokens)):
            if tensor is not None:
                tensors[f"{kind}.{part}"] = tensor
    payload = encode_safetensors(tensors)
    digest = sha256(payload)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / _TENSORS, payload)
    # The manifest is written last: a folder without one is no set.
    write_json(folder / _MANIFEST, {"sha256": digest, "lineage": dict(lineage)})
    return PairSet(generated=generated, real=real, digest=digest, lineage=lineage)


def read_pairs(folder: Path) -> PairSet:
    """Check a set of pairs and map it into memory; its files must stay while it is used.

    Args:
        folder: Where the set lies.

    Returns:
        The set.

    Raises:
        DataNotFound: If there is no such set.
        DataAltered: If its tensors do not fit its checksum.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        expected, lineage = str(manifest["sha256"]), dict(manifest["lineage"])
        digest = sha256_of(folder / _TENSORS)
    except FileNotFoundError as error:
        raise DataNotFound(
            f"there is no set of pairs in {folder}, where {error.filename} is missing"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataAltered(f"{folder / _MANIFEST} is truncated or altered: {error!r}") from error
    if digest != expected:
        raise DataAltered(
            f"pairs in {folder} are truncated or altered: sha256 {digest[:12]}..., "
            f"expected {expected[:12]}..."
        )
    # Mapped, not read: sets are larger than what a node's workers together have room for.
    tensors = load_file(folder / _TENSORS)
    generated, real = (
        Pairs(
            x0=tensors[f"{kind}.x0"],
            x1=tensors[f"{kind}.x1"],
            condition=_condition(tensors, kind),
        )
        for kind in ("generated", "real")
    )
    return PairSet(generated=generated, real=real, digest=digest, lineage=lineage)


def _condition(tensors: Mapping[str, Tensor], kind: str) -> Condition | None:
    label, tokens = tensors.get(f"{kind}.label"), tensors.get(f"{kind}.tokens")
    return None if label is None and tokens is None else Condition(label=label, tokens=tokens)


def no_pairs(shape: tuple[int, ...]) -> Pairs:
    """An empty set of pairs."""
    empty = torch.empty(0, *shape)
    return Pairs(x0=empty, x1=empty.clone())
