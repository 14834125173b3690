"""Small lots of images of two models from the same seeds and labels, and their times."""

import logging
import time
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from .engine import Engine
from .rows import Rows

LOT: Final = 16
"""Images of each model in a lot."""
LOTS: Final = 20
"""Lots after which two models are compared."""
_LOG: Final = logging.getLogger(__name__)
_FIRST_SEED: Final = 2**40  # away from those that people choose
_LABELS: Final = 16  # of so many classes at most, so that each has images enough
_SIDE: Final = 32  # larger images are compared at this size


@final
@dataclass(frozen=True, kw_only=True)
class Lot:
    """Images of a champion and of a version on trial.

    Attributes:
        champion: Those of the champion, flat, each value in [-1, 1].
        canary: Those of the version, of the same seeds and labels.
        labels: Their labels; 0 without classes.
        champion_s: Seconds that the champion took.
        canary_s: Seconds that the version took.
    """

    champion: Float[Tensor, "n d"]
    canary: Float[Tensor, "n d"]
    labels: tuple[int, ...]
    champion_s: float
    canary_s: float


@final
class LotFailed(ValueError):
    """One of two models made no images for a lot.

    Args:
        name: Which one, ``champion`` or ``canary``.
        why: What it did instead.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"the {name} {why}")
        self.name = name


def make_lot(champion: Engine, canary: Engine, number: int) -> Lot:
    """One lot, each model in the steps that it takes by itself.

    The two take turns in going first. Neither goes through its queue, so that both have the same
    batch, whatever share of the requests each has, and the same neighbours on the processor.

    Args:
        champion: One model.
        canary: The other, of the same noise shape and classes.
        number: Number of the lot, from 0; the same number gives the same images.

    Returns:
        The lot.

    Raises:
        LotFailed: If a model fails, or makes an image that is not finite, or their images differ
            in shape, as decoders may let them.
    """
    if canary.image_shape != champion.image_shape:
        raise LotFailed(
            "canary",
            f"must make images of shape {champion.image_shape}, as the champion does, "
            f"got {canary.image_shape}",
        )
    labels = _labels(champion.record.classes, number)
    seeds = range(_FIRST_SEED + LOT * number, _FIRST_SEED + LOT * (number + 1))
    made: dict[str, tuple[Tensor, float]] = {}
    both = {"champion": champion, "canary": canary}
    for name in sorted(both, reverse=number % 2 == 0):
        engine = both[name]
        rows = Rows(
            labels=labels if engine.record.classes else None,
            origins=tuple((seed, 0) for seed in seeds),
            steps=engine.default_steps,
        )
        began = time.perf_counter()
        try:
            (images,) = engine.sample([rows])
        except Exception as error:  # the edge of the model: its error is told, not its traceback
            _LOG.exception("the %s made no lot", name)
            raise LotFailed(name, f"made no images: {type(error).__name__}, see the log") from error
        seconds = time.perf_counter() - began
        if not images.isfinite().all():
            raise LotFailed(name, "made an image that is not finite")
        made[name] = _comparable(images), seconds
    return Lot(
        champion=made["champion"][0],
        canary=made["canary"][0],
        labels=labels,
        champion_s=made["champion"][1],
        canary_s=made["canary"][1],
    )


def _labels(classes: int, number: int) -> tuple[int, ...]:
    """Labels of a lot, in turn; of many classes some that lie evenly between them."""
    chosen = [k * classes // _LABELS for k in range(_LABELS)] if classes > _LABELS else []
    chosen = chosen or list(range(max(classes, 1)))
    return tuple(chosen[k % len(chosen)] for k in range(LOT * number, LOT * (number + 1)))


def _comparable(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    """Images as people see them, no larger than they need be to tell models apart."""
    seen = images.clamp(-1.0, 1.0)
    height, width = seen.shape[-2:]
    if max(height, width) > _SIDE:
        seen = adaptive_avg_pool2d(seen, (min(height, _SIDE), min(width, _SIDE)))
    return torch.flatten(seen, 1)
