"""Tiny experiments as plain values, for the tests of the training loop."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from onestep.platform.data.pairs import Pairs, PairSet, no_pairs, write_pairs

BATCH: Final = 32

DIGITS: Final = {"_target_": "onestep.platform.data.digits.Digits"}
POINTS: Final = {
    "_target_": "onestep.platform.data.gaussians.EightGaussians",
    "samples": 128,
    "held_out": 64,
}

OT: Final = {"_target_": "onestep.methods.core.coupling.MinibatchOTCoupling"}
FLOW_MATCHING: Final = {"_target_": "onestep.methods.flow_matching.FlowMatching"}
MEAN_FLOW: Final = {"_target_": "onestep.methods.mean_flow.MeanFlow"}
SHORTCUT: Final = {
    "_target_": "onestep.methods.shortcut.Shortcut",
    "target": {
        "_target_": "onestep.methods.core.method.Ema",
        "decay": {"_target_": "onestep.methods.core.schedule.Constant", "value": 0.9},
    },
}
REFLOW: Final = {"_target_": "onestep.methods.reflow.ReFlow"}
_PARTS: Final = "onestep.tests.platform.training.parts"
KEPT_NOISE: Final = {"_target_": f"{_PARTS}.KeptNoise"}
TWO_TERMS: Final = {"_target_": f"{_PARTS}.TwoTerms"}
STEEP: Final = {"_target_": f"{_PARTS}.Steep"}
CURIOUS: Final = {"_target_": f"{_PARTS}.Curious"}
ONE_JUMP: Final = {"_target_": f"{_PARTS}.OneJump"}
HALVES: Final = {"_target_": f"{_PARTS}.Halves"}
SCALED: Final = {"_target_": f"{_PARTS}.Scaled"}
TORN: Final = {"_target_": f"{_PARTS}.Torn"}
GAME: Final = {"_target_": f"{_PARTS}.Adversarial"}
BALANCED_GAME: Final = GAME | {
    "balance": {
        "_target_": "onestep.methods.core.balance.GradientRatio",
        "at": "head.weight",
        "reference": "near",
        "limits": {"fool": [0.01, 10.0]},
    }
}
CRITIC: Final = {
    "_target_": "onestep.methods.core.adversary.Adversary",
    "features": {"blocks.0": 16},
    "penalty": {"_target_": "onestep.methods.core.adversary.ApproximateR1", "weight": 1.0},
}
TAUGHT_GAME: Final = {
    "_target_": "onestep.methods.dmd2.DMD2",
    "adversary": CRITIC,
    "fake_steps": 2,
}
"""A game with a teacher, whose companion copies the network and judges by its features."""


def recipe(
    method: Mapping[str, Any],
    *,
    steps: int,
    data: Mapping[str, Any] = POINTS,
    training: Mapping[str, Any] | None = None,
    parents: Mapping[str, Any] | None = None,
    lr: float = 1e-2,
    **settings: Any,
) -> dict[str, Any]:
    """An experiment with a network of some hundred weights, in double precision."""
    return {
        "seed": 3,
        "data": dict(data),
        "net": {
            "_target_": "onestep.methods.nets.mlp.MLP",
            "width": 16,
            "depth": 1,
            "embedding_width": 8,
        },
        "method": dict(method),
        "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": lr},
        "learning_rate": {
            "_target_": "onestep.methods.core.schedule.Cosine",
            "start": 1.0,
            "end": 0.1,
        },
        "training": {
            "samples": steps * BATCH,
            "batch_size": BATCH,
            "precision": "float64",
            "ema_half_lives": [300.0, 60.0],
            "ema_ramp": 0.5,
            "log_every": BATCH,
            "threads": 1,
            **(training or {}),
        },
        "parents": dict(parents or {}),
        **settings,
    }


def store_pairs(folder: Path, *, generated: int = 96, real: int = 64) -> PairSet:
    """A set of pairs in the plane, made by no teacher."""
    rng = torch.Generator().manual_seed(5)

    def draw(n: int, scale: float) -> Pairs:
        x0 = torch.randn(n, 2, generator=rng)
        return Pairs(x0=x0, x1=scale * x0 + torch.randn(n, 2, generator=rng))

    kinds = draw(generated, 0.5), draw(real, -0.5) if real else no_pairs((2,))
    return write_pairs(folder, *kinds, {"teacher": "none/1"})
