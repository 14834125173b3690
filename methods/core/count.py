"""Counts: numbers of steps, tiles and levels, which are whole."""


def require_whole(name: str, count: int, *, least: int | None = None) -> None:
    """Refuse a count that is no whole number, or too small.

    Args:
        name: What is counted, for the message.
        count: The count.
        least: Its least value; None where the caller tells more of its bounds.

    Raises:
        ValueError: If it is not of a whole number's type, or below the least value.
    """
    if not isinstance(count, int):
        raise ValueError(f"{name} must be a whole number, got {count}")
    if least is not None and count < least:
        raise ValueError(f"{name} must be at least {least}, got {count}")
