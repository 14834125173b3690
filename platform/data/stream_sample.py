"""What an evaluation needs of a streamed set: some examples of each side, and a digest of all.

Files are read to the last byte, one after the other, but only the examples that are kept are
decoded and stay in memory. They are those whose bytes have the smallest digests: a random part that
depends neither on their names nor on their order.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch

from .errors import DataNotFound
from .hugging_face import HuggingFace
from .image import decode
from .image_folder import ImageFolder
from .source import AbstractSource, Dataset, Examples
from .split import is_held_out
from .stream import STREAMABLE

SAMPLED: Final = 5000
"""Most examples of a side that are kept."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Row:
    """An example that is not decoded yet; without ``held_out`` its pixels decide about the side."""

    digest: bytes
    label: int
    read: Callable[[], np.ndarray]
    held_out: bool | None


def load(source: AbstractSource, *, stream: bool) -> Dataset:
    """The set in memory; of a stream no more than ``SAMPLED`` examples of each side.

    The digest of a stream is that of all its files. It is another one than that of the same set in
    memory, whose floors and baselines rest on all examples.

    Args:
        source: Where the set comes from.
        stream: Whether its training examples are streamed.

    Returns:
        The set.

    Raises:
        DataNotFound: If data are missing, or all lie on one side of the split.
        DataAltered: If a file that is kept is no image.
    """
    if not stream:
        return source.load()
    assert isinstance(source, STREAMABLE), "checked when the experiment was assembled"
    ordered = sorted(_rows(source), key=lambda row: (row.digest, row.label))
    sides = _taken(ordered, source.held_out_fraction)
    if not all(sides.values()):
        raise DataNotFound(
            f"{source.name} has {len(ordered)} images, of which all lie on one side of the split; "
            f"add images or change held_out_fraction, now {source.held_out_fraction}"
        )
    return Dataset(
        name=source.name,
        shape=source.shape,
        classes=source.classes,
        label_names=source.label_names,
        train=_examples(sides[False], labelled=source.classes > 0),
        held_out=_examples(sides[True], labelled=source.classes > 0),
        digest=_digest(source, ordered),
        horizontal_flip=source.horizontal_flip,
    )


def check_fills(source: AbstractSource, sample: Dataset, batch_size: int) -> None:
    """Refuse a stream that has fewer training examples than a batch, and so never gives one.

    Args:
        source: Where the set comes from.
        sample: What ``load`` gave for the stream.
        batch_size: Rows of the whole batch.

    Raises:
        ValueError: If the batch is larger than the set.
    """
    n = len(sample.train)
    if SAMPLED <= n < batch_size:  # there may be more than the sample
        assert isinstance(source, STREAMABLE), "checked when the experiment was assembled"
        n = _count(source, at_most=batch_size)
    if n < batch_size:
        raise ValueError(
            f"batch_size must be in [1, {n}], the number of training examples, got {batch_size}"
        )


def _count(source: ImageFolder | HuggingFace, *, at_most: int) -> int:
    """How many training examples there are, counted no further than asked for."""
    kept = (row for row in _rows(source) if not _is_held_out(row, source.held_out_fraction))
    return sum(1 for _ in islice(kept, at_most))


def _rows(source: ImageFolder | HuggingFace) -> Iterator[_Row]:
    return _files(source) if isinstance(source, ImageFolder) else _hub(source)


def _is_held_out(row: _Row, fraction: float) -> bool:
    if row.held_out is not None:
        return row.held_out
    return bool(is_held_out([row.read().tobytes()], fraction))


def _files(source: ImageFolder) -> Iterator[_Row]:
    for label, (_, paths) in enumerate(source.groups()):
        for path in paths:
            content = path.read_bytes()
            yield _Row(
                digest=hashlib.sha256(content).digest(),
                label=label,
                read=partial(_decoded, source, path),
                held_out=bool(is_held_out([content], source.held_out_fraction)),
            )


def _decoded(source: ImageFolder, path: Path) -> np.ndarray:
    content = path.read_bytes()
    return decode(content, place=str(path), side=source.side, channels=source.channels)


def _hub(source: HuggingFace) -> Iterator[_Row]:
    if source.held_out_split is None:
        yield from _table(source, source.split, held_out=None)
        return
    yield from _table(source, source.split, held_out=False)
    yield from _table(source, source.held_out_split, held_out=True)


def _table(source: HuggingFace, split: str, *, held_out: bool | None) -> Iterator[_Row]:
    table: Any = source.encoded_rows(split)
    for number, row in enumerate(table):
        image = row[source.image_column]
        content = image["bytes"] or Path(image["path"]).read_bytes()
        yield _Row(
            digest=hashlib.sha256(content).digest(),
            label=source.label(row, number),
            read=partial(_read_row, source, table, number),
            held_out=held_out,
        )


def _read_row(source: HuggingFace, table: Any, number: int) -> np.ndarray:
    return source.decode(table[number], number)


def _taken(rows: list[_Row], fraction: float) -> dict[bool, list[tuple[np.ndarray, int]]]:
    """Pixels and class of the first rows of each side."""
    taken: dict[bool, list[tuple[np.ndarray, int]]] = {False: [], True: []}
    for row in rows:
        if all(len(side) == SAMPLED for side in taken.values()):
            break
        if row.held_out is not None and len(taken[row.held_out]) == SAMPLED:
            continue
        x, side = row.read(), row.held_out
        side = bool(is_held_out([x.tobytes()], fraction)) if side is None else side
        if len(taken[side]) < SAMPLED:
            taken[side].append((x, row.label))
    return taken


def _examples(side: list[tuple[np.ndarray, int]], *, labelled: bool) -> Examples:
    x, label = zip(*side, strict=True)
    return Examples(
        x=torch.from_numpy(np.stack(x)), label=torch.tensor(label) if labelled else None
    )


def _digest(source: ImageFolder | HuggingFace, rows: list[_Row]) -> str:
    header = ["stream", SAMPLED, source.held_out_fraction, source.shape, source.label_names]
    digest = hashlib.sha256(json.dumps(header).encode())
    for row in rows:
        digest.update(row.digest + json.dumps([row.label, row.held_out]).encode())
    return digest.hexdigest()
