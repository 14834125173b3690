"""Npy files that somebody sends: the header, and the rows as they come."""

import math
import tokenize
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Final

import numpy as np

MAX_HEADER: Final = 512
"""Most bytes of a header; NumPy's own have 118."""
_UNREADABLE: Final = (
    *(ValueError, TypeError, SyntaxError, tokenize.TokenError, MemoryError, RecursionError),
)
"""What NumPy lets through of Python's parser, which reads the header."""
_MAGIC: Final = b"\x93NUMPY"
_PART: Final = 64
"""Rows that are handed on together."""


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


def npy_rows(chunks: Iterable[bytes]) -> Iterator[tuple[np.ndarray, int]]:
    """Rows of a file that comes bit by bit; of one that is cut off, those that came.

    Args:
        chunks: Its bytes.

    Yields:
        Some rows, and how many are still to come.

    Raises:
        ValueError: If it is no npy file of rows.
    """
    buffer = bytearray()
    shape: tuple[int, ...] = ()
    for chunk in chunks:
        buffer += chunk
        if not shape:
            if not bytes(buffer[:6]).startswith(_MAGIC[: len(buffer)]):
                raise ValueError("an npy file must begin as such, got another")
            head = 10 + int.from_bytes(buffer[8:10], "little")  # magic, version, length
            if len(buffer) < max(head, 11):
                continue
            shape, by_column, kind = npy_header(BytesIO(buffer[:head]))
            if by_column or min(shape, default=-1) < 0:
                raise ValueError(f"an npy file must have rows, got shape {shape} or columns")
            del buffer[:head]
            left, row = shape[0], math.prod(shape[1:]) * kind.itemsize
        while left and len(buffer) >= (n := min(left, _PART)) * row:
            rows = np.frombuffer(bytes(buffer[: n * row]), kind).reshape(n, *shape[1:]).copy()
            del buffer[: n * row]
            left -= n
            yield rows, left
