"""Counts: numbers of steps, tiles and levels, which are whole."""


def require_whole(name: str, count: int) -> None:
    """Refuse a count that is no whole number.

    Args:
        name: What is counted, for the message.
        count: The count.

    Raises:
        ValueError: If it is not of a whole number's type.
    """
    if not isinstance(count, int):
        raise ValueError(f"{name} must be a whole number, got {count}")
