"""One image file to pixels: turned upright, cut to the central square, resized."""

from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import DataAltered

_MODES: Final = {1: "L", 3: "RGB"}


def check_size(*, side: int, channels: int) -> None:
    """Refuse a size that no image can have.

    Args:
        side: Pixels of a side.
        channels: 1 for grey, 3 for red, green, blue.

    Raises:
        ValueError: If either is out of range.
    """
    if side < 1:
        raise ValueError(f"side must be at least 1 pixel, got {side}")
    if channels not in _MODES:
        raise ValueError(f"channels must be 1 (grey) or 3 (red, green, blue), got {channels}")


def to_pixels(image: Image.Image, *, side: int, channels: int) -> npt.NDArray[np.uint8]:
    """Pixels of the central square of an image, resized, shape [channels, side, side].

    Args:
        image: The image; transparency is dropped.
        side: Pixels of a side of the result.
        channels: 1 for grey, 3 for red, green, blue.

    Raises:
        ValueError: If the image has more than 8 bits for each channel.
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"only images of 8 bits a channel are read, got Pillow's {image.mode}")
    upright = ImageOps.exif_transpose(image).convert(_MODES[channels])
    square = ImageOps.fit(upright, (side, side), method=Image.Resampling.LANCZOS)
    pixels = np.asarray(square, np.uint8).reshape(side, side, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode(content: bytes, *, place: str, side: int, channels: int) -> npt.NDArray[np.uint8]:
    """Pixels of an image file, shape [channels, side, side].

    Args:
        content: Bytes of the file.
        place: Where it was read, for the message.
        side: Pixels of a side of the result.
        channels: 1 for grey, 3 for red, green, blue.

    Raises:
        DataAltered: If the bytes are no image, or one that is cut short or too deep.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            return to_pixels(image, side=side, channels=channels)
    except UnidentifiedImageError as e:
        raise DataAltered(f"{place} is no image of a kind that is known; replace it") from e
    except (OSError, SyntaxError, ValueError) as e:
        raise DataAltered(f"{place} cannot be read as an image ({e}); replace or remove it") from e
