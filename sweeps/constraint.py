"""Constraints: inequalities between the dimensions of a space."""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, final

from .condition import Scalar

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<key>[A-Za-z_]\w*(?:\.\w+)*)
      | (?P<relation><=|>=|<|>)
      | (?P<sign>[+-])
      | $
    )""",
    re.VERBOSE | re.ASCII,
)
_RELATIONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FORM: Final = (
    "a constraint is an inequality such as 'a.begin + 0.1 <= a.until': keys and numbers, + and -, "
    "and one of < <= > >="
)
Term = tuple[int, str | float]


@final
@dataclass(frozen=True, kw_only=True)
class Constraint:
    """An inequality between sums of keys and numbers.

    Attributes:
        text: The inequality as it was written.
        left: Terms on the left, each a sign with a key or a number.
        right: Terms on the right.
        relation: One of < <= > >=.

    Raises:
        ValueError: If the text is none, or names no key.
    """

    text: str
    left: tuple[Term, ...] = field(init=False)
    right: tuple[Term, ...] = field(init=False)
    relation: str = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise ValueError(f"{_FORM}; got {self.text!r}")
        tokens = list(_tokens(self.text))
        places = [place for place, (name, _) in enumerate(tokens) if name == "relation"]
        if len(places) != 1:
            raise ValueError(f"{_FORM}; got {self.text!r}")
        (middle,) = places
        object.__setattr__(self, "relation", tokens[middle][1])
        object.__setattr__(self, "left", _terms(tokens[:middle], self.text))
        object.__setattr__(self, "right", _terms(tokens[middle + 1 :], self.text))
        if not self.keys:
            raise ValueError(f"{_FORM}; got {self.text!r}, which names no key")

    def __str__(self) -> str:
        return self.text

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys between which it stands."""
        named = [term for _, term in (*self.left, *self.right) if isinstance(term, str)]
        return tuple(dict.fromkeys(named))

    @property
    def is_strict(self) -> bool:
        """Whether equality breaks it."""
        return self.relation in ("<", ">")

    def applies(self, values: Mapping[str, Scalar]) -> bool:
        """Whether a point has all of its keys."""
        return all(key in values for key in self.keys)

    def holds(self, values: Mapping[str, Scalar]) -> bool:
        """Whether a point satisfies it, as one does that lacks a key.

        Args:
            values: Values of the point.
        """
        if not self.applies(values):
            return True
        return _RELATIONS[self.relation](_sum(self.left, values), _sum(self.right, values))

    @cached_property
    def form(self) -> tuple[dict[str, float], float]:
        """Factors by key and a number, whose sum must not be above zero."""
        factors: dict[str, float] = dict.fromkeys(self.keys, 0.0)
        number = 0.0
        side = 1.0 if self.relation in ("<", "<=") else -1.0
        for towards, terms in ((side, self.left), (-side, self.right)):
            for sign, term in terms:
                if isinstance(term, str):
                    factors[term] += towards * sign
                else:
                    number += towards * sign * term
        return factors, number

    def check_bounds(self, ranges: Mapping[str, tuple[float, float]]) -> None:
        """Refuse a constraint that the bounds of its keys forbid.

        Args:
            ranges: Least and greatest value of each key.

        Raises:
            ValueError: If no values between the bounds satisfy it.
        """
        # The best that each key can do for it, alone: keys on both sides count once.
        factors, _ = self.form
        best = {key: ranges[key][0 if factor > 0.0 else 1] for key, factor in factors.items()}
        if not self.holds(best):
            shown = ", ".join(
                f"{key} from {ranges[key][0]:g} to {ranges[key][1]:g}" for key in best
            )
            raise ValueError(f"no point can satisfy {self.text!r} with {shown}")


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place = 0
    while text[place:].strip():
        found = _TOKEN.match(text, place)
        if found is None or found.lastgroup is None:
            raise ValueError(f"{_FORM}; got {text!r}, unreadable from {text[place:].strip()!r} on")
        place = found.end()
        yield found.lastgroup, found[found.lastgroup]


def _terms(tokens: list[tuple[str, str]], text: str) -> tuple[Term, ...]:
    """Terms of a side: they alternate with signs, and a sign may stand before the first."""
    if tokens and tokens[0][0] != "sign":
        tokens = [("sign", "+"), *tokens]
    signs, named = tokens[::2], tokens[1::2]
    is_sum = all(name == "sign" for name, _ in signs) and not any(
        name == "sign" for name, _ in named
    )
    if not tokens or len(signs) != len(named) or not is_sum:
        raise ValueError(f"{_FORM}; got {text!r}")
    return tuple(
        (1 if sign == "+" else -1, word if name == "key" else float(word))
        for (_, sign), (name, word) in zip(signs, named, strict=True)
    )


def _sum(terms: tuple[Term, ...], values: Mapping[str, Scalar]) -> float:
    total = 0.0
    for sign, term in terms:
        number = values[term] if isinstance(term, str) else term
        assert isinstance(number, int | float)
        total += sign * number
    return total
