"""Tokens of captions: each word of a fixed vocabulary is its place in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from ...methods.core.condition import NULL_LABEL


@final
@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Captions of known words, as token sequences.

    Attributes:
        words: The vocabulary; a word's token is its place.
    """

    words: tuple[str, ...]

    def encode(self, captions: Sequence[str]) -> Int[Tensor, "n m"]:
        """Tokens of captions, padded with NULL_LABEL to the longest; an empty caption is none.

        Args:
            captions: Words with spaces between them; case does not matter.

        Raises:
            ValueError: If a word is unknown.
        """
        split = [caption.casefold().split() for caption in captions]
        unknown = [word for words in split for word in words if word not in self.words]
        if unknown:
            raise ValueError(
                f"a caption has the unknown word {unknown[0]!r}, allowed: {', '.join(self.words)}"
            )
        longest = max(map(len, split), default=0)
        rows = [
            [*map(self.words.index, words), *[NULL_LABEL] * (longest - len(words))]
            for words in split
        ]
        return torch.tensor(rows, dtype=torch.long).reshape(len(split), longest)

    def decode(self, tokens: Int[Tensor, "n m"]) -> tuple[str, ...]:
        """The captions of token sequences.

        Args:
            tokens: As ``encode`` gives them.
        """
        return tuple(
            " ".join(self.words[token] for token in row if token != NULL_LABEL)
            for row in tokens.tolist()
        )
