"""Image sets too large for memory, streamed to the workers by Ray Data.

What is kept: an example is trained on or held out as when the set is in memory, carries the same
index in every run, and is seen at most once in an epoch and by one worker only. On the same cluster
the same number of workers sees the same order again, so that a resumed run goes on in the middle of
its epoch: what has been taken of it is read and left out.
What is not kept: the order between numbers of workers, or of CPUs, by which Ray cuts the set. A run
that is resumed with another one leaves out as many examples of its epoch, though not the same ones.
Equal trajectories on 1, 2 and 4 workers hold for sets in memory only.
A folder of images has to be at the same path on every machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypedDict, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .hugging_face import HuggingFace
from .image import decode
from .image_folder import ImageFolder
from .source import WHITE
from .split import is_held_out

if TYPE_CHECKING:
    from ray.data import DataIterator, Dataset
    from ray.data.block import DataBatch
    from ray.train import DataConfig

_READ_ROWS: Final = 64
"""Images decoded together; one task holds this many in memory."""
STREAMABLE: Final = (ImageFolder, HuggingFace)
"""Sources that can be streamed."""
Columns = dict[str, np.ndarray]


class StreamedBatch(TypedDict):
    """Rows of a stream: images in [-1, 1], their classes (0 without labels), their numbers."""

    x: Float[Tensor, "b c h w"]
    label: Int[Tensor, " b"]
    index: Int[Tensor, " b"]


@final
@dataclass(frozen=True, kw_only=True)
class ReadFiles:
    """Reads and decodes the files of some rows and keeps those to train on.

    Attributes:
        source: The folder.
    """

    source: ImageFolder

    def __call__(self, rows: "DataBatch") -> Columns:
        """Columns x, label and index of the rows that are kept."""
        assert isinstance(rows, dict), "the batch format is columns of NumPy"
        side, channels = self.source.side, self.source.channels
        kept, pixels = [], []
        for number, path in enumerate(rows["path"]):
            with open(path, "rb") as file:
                content = file.read()
            if not is_held_out([content], self.source.held_out_fraction):
                kept.append(number)
                pixels.append(decode(content, place=path, side=side, channels=channels))
        return _columns(pixels, rows["label"][kept], rows["index"][kept], self.source.shape)


@final
@dataclass(frozen=True, kw_only=True)
class DecodeRows:
    """Decodes some rows of a hub data set and keeps those to train on.

    Attributes:
        source: The data set.
    """

    source: HuggingFace

    def __call__(self, rows: "DataBatch") -> Columns:
        """Columns x, label and index of the rows that are kept."""
        assert isinstance(rows, dict), "the batch format is columns of NumPy"
        index = np.asarray(rows["index"])
        is_all = self.source.held_out_split is not None
        kept, pixels, labels = [], [], []
        for place in range(len(index)):
            number = int(index[place])
            row = {name: values[place] for name, values in rows.items()}
            x = self.source.decode(row, number)
            if is_all or not is_held_out([x.tobytes()], self.source.held_out_fraction):
                kept.append(place)
                pixels.append(x)
                labels.append(self.source.label(row, number))
        return _columns(pixels, np.asarray(labels, np.int64), index[kept], self.source.shape)


def _columns(
    pixels: list[np.ndarray], label: np.ndarray, index: np.ndarray, shape: tuple[int, ...]
) -> Columns:
    x = np.stack(pixels) if pixels else np.empty((0, *shape), np.uint8)
    return {"x": x, "label": label.astype(np.int64), "index": index.astype(np.int64)}


def stream_train(source: ImageFolder | HuggingFace) -> "Dataset":
    """The training examples as a lazy Ray Data set with columns x (uint8), label and index.

    Args:
        source: A folder of images or a hub data set.
    """
    import ray.data  # seconds; sets in memory do without

    if isinstance(source, ImageFolder):
        files = [
            (str(path.resolve()), label)
            for label, (_, paths) in enumerate(source.groups())
            for path in paths
        ]
        rows = [
            {"path": path, "label": label, "index": index}
            for index, (path, label) in enumerate(files)
        ]
        return ray.data.from_items(rows).map_batches(
            ReadFiles(source=source), batch_size=_READ_ROWS, batch_format="numpy"
        )
    table = source.encoded_rows(source.split)
    return ray.data.from_huggingface(table).map_batches(
        DecodeRows(source=source), batch_size=_READ_ROWS, batch_format="numpy"
    )


def in_order() -> "DataConfig":
    """Settings of Ray Train by which each worker is given the same rows in the same order again."""
    import ray.train

    options = ray.train.DataConfig.default_ingest_options()
    options.preserve_order = True
    return ray.train.DataConfig(execution_options=options)


def batches(
    shard: "DataIterator", batch_size: int, *, shuffle_buffer: int, seed: int
) -> Iterator[StreamedBatch]:
    """One epoch of a shard in batches of one size; the tail is dropped.

    Args:
        shard: The worker's iterator.
        batch_size: Rows of a batch of this worker.
        shuffle_buffer: Rows among which the next ones are picked at random, at least batch_size;
            the larger, the closer to a permutation.
        seed: Seed of the picking; take another one for each epoch and worker.

    Yields:
        Images in [-1, 1] with their classes and numbers.

    Raises:
        ValueError: If the buffer is smaller than a batch.
    """
    if not 1 <= batch_size <= shuffle_buffer:
        raise ValueError(
            f"batch_size must be in [1, {shuffle_buffer}], the shuffle_buffer, got {batch_size}"
        )
    for rows in shard.iter_batches(
        batch_size=batch_size,
        batch_format="numpy",
        drop_last=True,
        local_shuffle_buffer_size=shuffle_buffer,
        local_shuffle_seed=seed,
    ):
        x = torch.from_numpy(np.array(rows["x"], np.float32))
        yield StreamedBatch(
            x=x / (WHITE / 2) - 1.0,
            label=torch.from_numpy(np.array(rows["label"], np.int64)),
            index=torch.from_numpy(np.array(rows["index"], np.int64)),
        )
