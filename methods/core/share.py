"""A share of the rows of a shard, as whole rows."""


def whole_rows(name: str, share: float, rows: int) -> int:
    """The nearest count, but at least one row of each kind where the share asks for both.

    A small shard would otherwise never see one of the kinds, and nobody would be told.

    Args:
        name: The setting that holds the share.
        share: Share of the first kind, in [0, 1].
        rows: Rows of a shard.

    Returns:
        How many rows are of the first kind.

    Raises:
        ValueError: If one row would have to be of both kinds.
    """
    if share in (0.0, 1.0):
        return round(share * rows)
    if rows < 2:
        raise ValueError(
            f"{name} of {share:g} needs shards of at least 2 rows, got {rows}; "
            "lower training.shards or raise training.batch_size"
        )
    return min(max(round(share * rows), 1), rows - 1)
