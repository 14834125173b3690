"""The space of latents: how they were scaled, and what makes images of them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, final

_IMAGE_CHANNELS: Final = (1, 3)


@final
@dataclass(frozen=True, kw_only=True)
class StoredDecoder:
    """A network that makes images of latents: its class, and the digest of its weights.

    Attributes:
        node: `_target_` node of a `torch.nn.Module`.
        shape: Shape of an image: 1 or 3 channels, height and width.
        sha256: SHA-256 of the safetensors file of its weights.

    Raises:
        ValueError: If the node names no class or the shape is of no image.
    """

    node: Mapping[str, Any]
    shape: tuple[int, ...]
    sha256: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if not isinstance(self.node.get("_target_"), str):
            raise ValueError(f"a decoder must be a node with a _target_ path, got {self.node}")
        if len(self.shape) != 3 or self.shape[0] not in _IMAGE_CHANNELS or min(self.shape) < 1:
            raise ValueError(
                f"a decoder must make images of shape (1 or 3, height, width), got {self.shape}"
            )


@final
@dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """Latents z as networks see them: x = (z - shift) / scale in each channel.

    Attributes:
        shift: What is taken from each channel.
        scale: By what each channel is divided, positive.
        decoder: What makes images of z, or None.

    Raises:
        ValueError: If there is not one shift and one positive scale for each channel.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    decoder: StoredDecoder | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shift", tuple(self.shift))
        object.__setattr__(self, "scale", tuple(self.scale))
        numbers = (*self.shift, *self.scale)
        if not self.shift or len(self.shift) != len(self.scale):
            raise ValueError(
                "latents need one shift and one scale for each channel, "
                f"got {len(self.shift)} and {len(self.scale)}"
            )
        if not all(math.isfinite(number) for number in numbers) or min(self.scale) <= 0.0:
            raise ValueError(
                "shift of latents must be finite and scale positive, "
                f"got {list(self.shift)} and {list(self.scale)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Args:
            values: Plain values.

        Returns:
            The space.

        Raises:
            ValueError: If a part is missing, unknown or of the wrong kind.
        """
        try:
            decoder = values.get("decoder")
            stored = None if decoder is None else StoredDecoder(**decoder)
            return cls(**{**values, "decoder": stored})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"a space of latents is incomplete: {error}") from error
