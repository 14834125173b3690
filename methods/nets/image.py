"""The shapes of data that networks for images take."""


def image_shape(shape: tuple[int, ...], *, net: str, multiple: int) -> tuple[int, int, int]:
    """Channels, height and width of an image that a network can take.

    Args:
        shape: Shape of a datum.
        net: Name of the network, for the error.
        multiple: Number that must divide both sides.

    Raises:
        ValueError: If the data are no images, or of a size that the network cannot take.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"{net} takes images of shape (channels, height, width), got data of shape {shape}"
        )
    channels, height, width = shape
    if height % multiple or width % multiple:
        raise ValueError(
            f"{net} as configured takes images whose sides are multiples of {multiple}, "
            f"got {height} x {width}"
        )
    return channels, height, width
