"""The header of an npy file that somebody sent."""

import tokenize
from io import BytesIO
from typing import Final

import numpy as np

MAX_HEADER: Final = 512
"""Most bytes of a header; NumPy's own have 118."""
_UNREADABLE: Final = (
    *(ValueError, TypeError, SyntaxError, tokenize.TokenError, MemoryError, RecursionError),
)
"""What NumPy lets through of Python's parser, which reads the header."""


def npy_header(file: BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads a header of version 1.0, which is believed without a look at the data.

    Args:
        file: The file, read up to where the data begin.

    Returns:
        Shape, whether the data lie by column, and their type.

    Raises:
        ValueError: If it is none.
    """
    try:
        if (version := np.lib.format.read_magic(file)) != (1, 0):
            raise ValueError(f"an npy file must be of version 1.0, got {version}")
        return np.lib.format.read_array_header_1_0(file, max_header_size=MAX_HEADER)
    except _UNREADABLE as error:
        raise ValueError(f"an npy file must have a header that can be read: {error}") from error
