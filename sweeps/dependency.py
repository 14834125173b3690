"""Dependencies: which dimensions of a space are there only with values of others."""

from collections.abc import Mapping

from .condition import When, allowed_by
from .dimension import Dimension, Kind


def check_parents(key: str, when: When, dimensions: Mapping[str, Dimension]) -> None:
    """Refuse conditions that no point can meet.

    Args:
        key: The key that has them.
        when: The conditions.
        dimensions: All dimensions of the space.

    Raises:
        ValueError: If one asks for what is no choice, or for a value that it never takes.
    """
    for parent, values in allowed_by(when).items():
        one = dimensions.get(parent)
        if one is None or one.kind is not Kind.CHOICE:
            choices = [name for name, other in dimensions.items() if other.kind is Kind.CHOICE]
            raise ValueError(
                f"sweep.space[{key}] has a when of {parent}, which is no choice of the space, "
                f"allowed: {', '.join(choices) or 'none'}"
            )
        for value in values:
            if value not in one.values:
                raise ValueError(
                    f"sweep.space[{key}] has a when of {parent} {value!r}, which it never takes, "
                    f"allowed: {', '.join(map(repr, one.values))}"
                )


def in_order(dimensions: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """The same dimensions, each after its parents and else as they were written.

    Args:
        dimensions: Dimensions whose parents are among them.

    Returns:
        The dimensions.

    Raises:
        ValueError: If some depend on each other.
    """
    done: dict[str, Dimension] = {}

    def place(key: str, below: tuple[str, ...]) -> None:
        if key in below:
            circle = ", ".join(below[below.index(key) :])
            raise ValueError(f"sweep.space[{key}] depends on itself by when, in: {circle}")
        if key not in done:
            for parent in dimensions[key].when:
                place(parent, (*below, key))
            done[key] = dimensions[key]

    for key in dimensions:
        place(key, ())
    return done
