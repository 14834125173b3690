"""A set of latents as the images that a decoder makes of it, where quality is asked for there."""

from dataclasses import replace
from typing import Final

import torch

from ..atomic import sha256
from ..data.source import Dataset, Examples
from ..registry.decoder import Decoder

_ROWS: Final = 64


def decoded(dataset: Dataset, decoder: Decoder) -> Dataset:
    """The images of a set of latents, cut into training and held-out data as the latents are.

    A number measured on it judges model and decoder against what the decoder makes of data, not
    against the data that were encoded.

    Args:
        dataset: The latents.
        decoder: What makes images of them.

    Returns:
        The images, with a name and a digest of their own.
    """
    assert dataset.latents is not None, "only latents are decoded"
    stored = dataset.latents.decoder
    assert stored is not None, "the decoder of a set is recorded in its space"
    return replace(
        dataset,
        name=f"{dataset.name}-decoded",
        shape=decoder.shape,
        train=_images(dataset.train, decoder),
        held_out=_images(dataset.held_out, decoder),
        digest=sha256(f"{dataset.digest} decoded by {stored.sha256}".encode()),
        latents=None,
        decoder_file=None,
    )


def _images(examples: Examples, decoder: Decoder) -> Examples:
    x, label = examples.everything()
    return Examples(
        x=torch.cat([decoder(rows).cpu() for rows in torch.split(x, _ROWS)]), label=label
    )
