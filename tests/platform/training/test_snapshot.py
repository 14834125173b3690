from pathlib import Path

import pytest
import torch

from onestep.platform.training.power_average import PowerProfile
from onestep.platform.training.snapshot import average_of_width
from onestep.tests.platform.training.group import state_at, train_here
from onestep.tests.platform.training.recipe import FLOW_MATCHING, recipe

STEPS = 60


def test_a_width_that_was_kept_comes_back_and_another_is_near_its_own_average(
    tmp_path: Path,
) -> None:
    """The online weights of every step, averaged by hand, are the truth."""
    training = {"ema_snapshots": 12, "checkpoint_every": 32, "keep_checkpoints": STEPS}
    train_here(recipe(FLOW_MATCHING, steps=STEPS, training=training), tmp_path)
    places = sorted((tmp_path / "checkpoints").iterdir())
    assert len(places) == STEPS
    states = [state_at(place) for place in places]
    for width, limit in ((0.10, 1e-6), (0.15, 0.05)):
        profile = PowerProfile.of_width(width)
        want = {name: torch.zeros_like(w) for name, w in states[0]["online"].items()}
        for step, state in enumerate(states, start=1):
            for name, weight in state["online"].items():
                want[name].lerp_(weight, 1.0 - profile.decay(step))
        made = average_of_width(tmp_path, width)
        last = states[-1]["online"]
        error = sum(float((made[n] - want[n]).square().sum()) for n in want) ** 0.5
        moved = sum(float((last[n] - want[n]).square().sum()) for n in want) ** 0.5
        assert error <= limit * moved


def test_a_run_without_snapshots_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got none in .*; train with training.ema_snapshots=16"):
        average_of_width(tmp_path, 0.1)
