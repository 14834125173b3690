"""Two real processes find the gradient of one, and a loss that they do not share is found out."""

import torch

from onestep.platform.experiment import Experiment
from onestep.platform.training.place import Place
from onestep.platform.training.synchronisation import check_synchronised, gradients
from onestep.tests.platform.training.recipe import TAUGHT_GAME, TORN, recipe


def test_a_loss_that_differs_between_workers_is_found_out() -> None:
    found = check_synchronised(Experiment.from_dict(recipe(TORN, steps=4)))
    assert found.workers == 2
    assert 0.1 < found.difference < 10.0
    assert not found.holds


def test_every_player_of_a_game_is_waited_for() -> None:
    experiment = Experiment.from_dict(recipe(TAUGHT_GAME, steps=64))
    found = gradients(experiment, Place())
    assert set(found) == {"online", "fake"}
    for parts in found.values():
        assert max(float(part.abs().max()) for part in parts) > 0.0
        assert all(part.dtype == torch.float64 for part in parts)
