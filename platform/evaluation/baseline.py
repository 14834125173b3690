"""Trivial generators that stand beside every model: a bar that one of them passes is no bar."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def class_pools(
    labels: Int[Tensor, " n"], train_labels: Int[Tensor, " m"]
) -> list[tuple[Int[Tensor, " a"], Int[Tensor, " b"]]]:
    """For each class that is asked for: where it is asked for, and which examples have it.

    Args:
        labels: Classes that are asked for.
        train_labels: Classes of the training examples.

    Raises:
        ValueError: If a class has no training example.
    """
    pools = []
    for c in sorted(set(labels.tolist())):
        pool = (train_labels == c).nonzero().squeeze(1)
        if not len(pool):
            raise ValueError(f"each class must have a training example, got none of class {c}")
        pools.append(((labels == c).nonzero().squeeze(1), pool))
    return pools


def _pools(
    n: int, labels: Tensor | None, m: int, train_labels: Tensor | None
) -> list[tuple[Tensor, Tensor]]:
    if labels is None or train_labels is None:
        return [(torch.arange(n), torch.arange(m))]
    return class_pools(labels, train_labels)


def gaussian_samples(
    x: Float[Tensor, "m d"],
    train_labels: Int[Tensor, " m"] | None,
    *,
    n: int,
    labels: Int[Tensor, " n"] | None,
    rng: torch.Generator,
) -> Float[Tensor, "n d"]:
    """Samples of one Gaussian per class with the mean and full covariance of the training data.

    Without labels it is one Gaussian for the whole set. A Gaussian for each mode of a mixture of
    Gaussians would be the data itself.

    Args:
        x: Training data, flattened.
        train_labels: Its classes, or None.
        n: How many samples.
        labels: Class of each sample, or None.
        rng: Random numbers.
    """
    out = torch.empty(n, x.shape[1], dtype=x.dtype)
    for places, pool in _pools(n, labels, len(x), train_labels):
        data = x[pool]
        mean = data.mean(dim=0)
        # Normal weights on the centred data have just its covariance, whatever its rank.
        weight = torch.randn(len(places), len(data), generator=rng, dtype=x.dtype)
        out[places] = mean + weight @ (data - mean) / max(len(data) - 1, 1) ** 0.5
    return out


def resampled_rows(
    m: int,
    train_labels: Int[Tensor, " m"] | None,
    *,
    n: int,
    labels: Int[Tensor, " n"] | None,
    rng: torch.Generator,
) -> Int[Tensor, " n"]:
    """Training examples drawn with replacement, with the classes that are asked for.

    Args:
        m: How many training examples there are.
        train_labels: Their classes, or None.
        n: How many to draw.
        labels: Class of each, or None.
        rng: Random numbers.
    """
    rows = torch.empty(n, dtype=torch.long)
    for places, pool in _pools(n, labels, m, train_labels):
        rows[places] = pool[torch.randint(len(pool), (len(places),), generator=rng)]
    return rows


def distinct_rows(
    m: int,
    train_labels: Int[Tensor, " m"] | None,
    *,
    n: int,
    labels: Int[Tensor, " n"] | None,
    rng: torch.Generator,
) -> Int[Tensor, " n"]:
    """Training examples drawn without replacement, with the classes that are asked for.

    A class that is asked for more often than it has examples gives all of them once more.

    Args:
        m: How many training examples there are.
        train_labels: Their classes, or None.
        n: How many to draw.
        labels: Class of each, or None.
        rng: Random numbers.
    """
    rows = torch.empty(n, dtype=torch.long)
    for places, pool in _pools(n, labels, m, train_labels):
        rounds = -(-len(places) // len(pool))
        drawn = [pool[torch.randperm(len(pool), generator=rng)] for _ in range(rounds)]
        rows[places] = torch.cat(drawn)[: len(places)]
    return rows
