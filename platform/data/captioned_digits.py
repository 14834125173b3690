"""Handwritten digits with captions of a small grammar: a set of text that needs no download."""

from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Int
from torch import Tensor

from .digits import Digits
from .source import AbstractSource, Dataset, Examples
from .split import check_fraction
from .tokenizer import Tokenizer

_NUMERALS: Final = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
)
_SHADES: Final = ("bright", "dark")
_PHRASES: Final = (
    ("a bright {}", "a {} on black", "a bright {} on black", "bright {}"),
    ("a dark {}", "a {} on white", "a dark {} on white", "dark {}"),
)
"""Ways to say each shade; all of a shade mean the same."""


@final
@dataclass(frozen=True, kw_only=True)
class CaptionedDigits(AbstractSource):
    """The digits of scikit-learn, each bright on black and dark on white, with captions.

        caption = ["a"] [shade] numeral ["on" ground]

    with a shade, or the ground that goes with it, or both: four phrases, in turn. A model is asked
    by the caption alone; the class, which is shade and numeral, is what the caption says and serves
    the evaluation, whose classifier tells whether an image is what its caption asks for. A held-out
    digit is held out in both shades.

    Attributes:
        held_out_fraction: Expected share of held-out examples, in (0, 1).

    Raises:
        ValueError: If the share of held-out examples is outside (0, 1).
    """

    held_out_fraction: float = 0.25

    def __post_init__(self) -> None:
        check_fraction(self.held_out_fraction)

    @property
    def name(self) -> str:
        """Name of the set."""
        return "captioned_digits"

    @property
    def shape(self) -> tuple[int, ...]:
        """One channel of 8 x 8 pixels."""
        return (1, 8, 8)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Both shades of the ten numerals."""
        return tuple(f"{shade} {numeral}" for shade in _SHADES for numeral in _NUMERALS)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Words of the grammar."""
        return ("a", *_SHADES, "on", "black", "white", *_NUMERALS)

    def load(self) -> Dataset:
        """The set in memory, made from digits that are checked against their checksum."""
        plain = Digits(held_out_fraction=self.held_out_fraction).load()
        return Dataset.of(
            self, train=self._captioned(plain.train), held_out=self._captioned(plain.held_out)
        )

    def _captioned(self, digits: Examples) -> Examples:
        assert digits.label is not None, "digits have labels"
        numeral, white = digits.label, digits.white
        shade = torch.arange(2).repeat_interleave(len(numeral))
        numeral = numeral.repeat(2)
        return Examples(
            x=torch.cat([digits.x, white - digits.x]),
            label=shade * len(_NUMERALS) + numeral,
            tokens=self._tokens(shade, numeral),
            white=white,
        )

    def _tokens(self, shade: Int[Tensor, " n"], numeral: Int[Tensor, " n"]) -> Int[Tensor, "n m"]:
        """Captions of examples: the phrases of a shade in turn."""
        captions = [
            _PHRASES[s][place % len(_PHRASES[s])].format(_NUMERALS[n])
            for place, (s, n) in enumerate(zip(shade.tolist(), numeral.tolist(), strict=True))
        ]
        return Tokenizer(words=self.vocabulary).encode(captions)
