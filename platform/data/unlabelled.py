"""Data without their labels: for networks that are told none."""

from dataclasses import dataclass, replace
from typing import final

from .source import AbstractSource, Dataset


@final
@dataclass(frozen=True, kw_only=True)
class Unlabelled(AbstractSource):
    """The examples of another source, whose labels and captions are left out.

    Attributes:
        of: The other source.
    """

    of: AbstractSource

    @property
    def name(self) -> str:
        """Name of the set, told apart from the other's."""
        return f"{self.of.name}_unlabelled"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, as in the other source."""
        return self.of.shape

    @property
    def label_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def load(self) -> Dataset:
        """The other source's set, without labels and captions."""
        whole = self.of.load()
        return Dataset.of(
            self,
            train=replace(whole.train, label=None, tokens=None),
            held_out=replace(whole.held_out, label=None, tokens=None),
            mixture=whole.mixture,
            horizontal_flip=whole.horizontal_flip,
            latents=whole.latents,
            decoder_file=whole.decoder_file,
        )
