"""LPIPS by the optional package of its authors: the only distance here that may bear the name."""

import functools
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ...methods.core.distance import AbstractDistance

_FILES: Final = {
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "vgg": "vgg16-397923af.pth",
}
"""Weights of each backbone, as torchvision names their file."""
CHANNELS: Final = (1, 3)
"""How many an image may have."""


@final
class LpipsUnavailable(ValueError):
    """LPIPS was asked for where its package or its weights are missing; the message says which."""


@final
@dataclass(frozen=True, kw_only=True)
class Lpips(AbstractDistance):
    """Learned perceptual image patch similarity of images in [-1, 1]; nothing is downloaded.

    Reference: Zhang et al. 2018, arXiv:1801.03924v2.

    Attributes:
        backbone: ``alex``, ``squeeze`` or ``vgg``.
        side: Images are enlarged to at least this side; small ones end before the last layer.

    Raises:
        ValueError: If the backbone is unknown or the side is below 32.
        LpipsUnavailable: If the package or the weights of the backbone are missing.
    """

    backbone: str = "vgg"
    side: int = 64

    def __post_init__(self) -> None:
        if self.backbone not in _FILES:
            raise ValueError(
                f"LPIPS has the backbones {', '.join(sorted(_FILES))}, got {self.backbone!r}"
            )
        if self.side < 32:
            raise ValueError(f"LPIPS needs a side of at least 32, got {self.side}")
        if importlib.util.find_spec("lpips") is None:
            raise LpipsUnavailable(
                "LPIPS needs the package lpips, which is not installed: pip install lpips"
            )
        weights = Path(torch.hub.get_dir()) / "checkpoints" / _FILES[self.backbone]
        if not weights.is_file():
            raise LpipsUnavailable(
                f"LPIPS needs the weights of its backbone, found no file {weights}"
            )

    def __call__(self, x: Float[Tensor, " b *d"], y: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        """Distance of each row of x to the same row of y.

        Args:
            x: Images of 1 or 3 channels.
            y: Images.

        Raises:
            ValueError: If the rows are no such images.
        """
        if x.dim() != 4 or x.shape[1] not in CHANNELS:
            raise ValueError(
                f"LPIPS takes images with 1 or 3 channels, got shape {tuple(x.shape[1:])}"
            )
        network = _network(self.backbone, x.device)
        found: Tensor = network(self._enlarged(x), self._enlarged(y))
        return found.flatten().to(x.dtype)

    def _enlarged(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
        scale = self.side / min(x.shape[2:])
        colour = x.float().expand(-1, 3, -1, -1)
        if scale <= 1.0:
            return colour
        size = [round(scale * side) for side in x.shape[2:]]
        return functional.interpolate(colour, size=size, mode="bilinear")


@functools.cache
def _network(backbone: str, device: torch.device) -> nn.Module:
    network: nn.Module = importlib.import_module("lpips").LPIPS(net=backbone, verbose=False)
    return network.to(device).eval().requires_grad_(False)
