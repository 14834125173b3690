"""Images as users see them: eight bits, and PNG files."""

import io

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor


def to_uint8(x: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n h w c"]:
    """Grey or colour levels 0..255 of images in [-1, 1]; what lies outside is clipped."""
    levels = ((x + 1.0) * 127.5).round().clamp(0.0, 255.0)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def encode_png(image: UInt8[Tensor, "h w c"]) -> bytes:
    """A PNG file of one grey (c = 1) or colour (c = 3) image."""
    file = io.BytesIO()
    _picture(image).save(file, format="PNG")
    return file.getvalue()


def encode_webp(image: UInt8[Tensor, "h w c"]) -> bytes:
    """A lossless WebP file of one image; the format has no grey, so that is three equal colours."""
    file = io.BytesIO()
    _picture(image).save(file, format="WEBP", lossless=True)
    return file.getvalue()


def _picture(image: Tensor) -> Image.Image:
    pixels = image.squeeze(-1) if image.shape[-1] == 1 else image
    return Image.fromarray(pixels.cpu().numpy())
