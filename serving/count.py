"""How many images a request asks for, as far as it can be known without the model."""

import base64
import io
from typing import Final

from .native import GenerateRequest
from .npy import MAX_HEADER, npy_header
from .schema import ImagesRequest

_IMAGE_AXES: Final = 3
_HEADER: Final = 4 * MAX_HEADER  # in base64, and what comes before it


def count_images(request: ImagesRequest | GenerateRequest) -> int:
    """The images that a request gets if the model accepts it.

    Args:
        request: A valid request.

    Returns:
        Their number; 1 for noise that is none, which the model refuses.
    """
    if isinstance(request, ImagesRequest):
        return request.n
    if request.seeds is not None:
        return len(request.seeds)
    if request.noise is not None:
        return _rows(request.noise)
    if request.n is None and isinstance(request.labels, list):
        return len(request.labels)
    return 1 if request.n is None else request.n


def _rows(noise: str) -> int:
    """The length of the axis before those of an image, by the header alone."""
    try:
        file = io.BytesIO(base64.b64decode(noise[:_HEADER], validate=True))
        shape, *_ = npy_header(file)
    except ValueError:
        return 1
    return max(1, shape[-1 - _IMAGE_AXES]) if len(shape) > _IMAGE_AXES else 1
