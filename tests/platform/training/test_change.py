"""A run whose numbers become others on its way is one run: in one piece, in legs, after a kill."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import assemble
from onestep.platform.training.errors import CheckpointMismatch
from onestep.platform.training.place import Place
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.worker import work
from onestep.tests.platform.training.group import (
    assert_equal,
    leaves,
    run_group,
    state_at,
    train,
    train_here,
)
from onestep.tests.platform.training.recipe import (
    BATCH,
    GAME,
    KEPT_NOISE,
    MEAN_FLOW,
    POINTS,
    SHORTCUT,
    recipe,
)

_STEPS: Final = 9
_KEPT: Final = {"keep_checkpoints": 9}
_LINEAR: Final = {
    "_target_": "onestep.methods.core.schedule.Linear",
    "start": 0.75,
    "end": 0.25,
    "until": 1.0,
}
_DECAY: Final = {"_target_": "onestep.methods.core.schedule.Constant", "value": 0.5}
_SLOWER: Final = {"samples": 6 * BATCH, "values": {"optimizer.lr": 1e-3}}


def experiment(
    *changes: Mapping[str, Any], method: Mapping[str, Any] = SHORTCUT, **settings: Any
) -> dict[str, Any]:
    training = {**_KEPT, **settings.pop("training", {})}
    made = recipe(method, steps=_STEPS, training=training, **settings)
    return {**made, "changes": list(changes)}


def leg(values: Mapping[str, Any], folder: Path, *, until: int, begin: Path | None = None) -> Path:
    """Train a part of a run."""
    last = work(
        values, place=Place(), reporter=MemoryReporter(), folder=folder, resume=begin, until=until
    )
    assert last is not None
    return last


def test_legs_that_go_on_from_each_other_are_the_run_in_one_piece(tmp_path: Path) -> None:
    decay = {"samples": 3 * BATCH, "values": {"method.target.decay": _DECAY}}
    whole, _ = train_here(experiment(decay, _SLOWER), tmp_path / "whole")
    first = leg(experiment(), tmp_path / "first", until=3)
    second = leg(experiment(decay), tmp_path / "second", until=6, begin=first)
    last = leg(experiment(decay, _SLOWER), tmp_path / "last", until=9, begin=second)
    assert_equal(state_at(last), whole)
    plain, _ = train_here(experiment(), tmp_path / "plain")
    rate_alone, _ = train_here(experiment(_SLOWER), tmp_path / "rate")
    for other in (plain, rate_alone):
        with pytest.raises(AssertionError):
            assert_equal(other, whole)


def test_legs_without_a_change_have_the_bits_and_checkpoints_of_a_run_that_never_stopped(
    tmp_path: Path,
) -> None:
    same = {"samples": 3 * BATCH, "values": {"optimizer.lr": 1e-2}}
    whole, _ = train_here(experiment(), tmp_path / "whole")
    first = leg(experiment(), tmp_path / "first", until=3)
    last = leg(experiment(same), tmp_path / "last", until=_STEPS, begin=first)
    assert_equal(state_at(last), whole)
    recipes = {
        assemble(Experiment.from_dict(e)).recipe("") for e in (experiment(), experiment(same))
    }
    assert len(recipes) == 1


def test_a_run_that_is_cut_off_between_its_changes_goes_on_bitwise(tmp_path: Path) -> None:
    values = experiment(_SLOWER, training={"checkpoint_every": 4 * BATCH})
    whole, _ = train_here(values, tmp_path / "whole")
    for step in (4, 8):
        kept = tmp_path / "whole" / "checkpoints" / f"step-{step:010d}"
        again, _ = train_here(values, tmp_path / f"again-{step}", kept)
        assert_equal(again, whole)


@pytest.mark.parametrize("method", [GAME, {**MEAN_FLOW, "coupling": KEPT_NOISE}])
def test_the_state_that_a_method_keeps_is_carried_over_a_change(
    method: Mapping[str, Any], tmp_path: Path
) -> None:
    values = experiment(_SLOWER, method=method)
    whole, _ = train_here(values, tmp_path / "whole")
    first = leg(experiment(method=method), tmp_path / "first", until=6)
    last = leg(values, tmp_path / "last", until=_STEPS, begin=first)
    assert_equal(state_at(last), whole)


@pytest.mark.slow
def test_two_workers_change_together(tmp_path: Path) -> None:
    values = experiment(_SLOWER)
    run_group(train, 2, values, tmp_path / "two")
    one, _ = train_here(values, tmp_path / "one")
    two = state_at(tmp_path / "two" / "checkpoints" / f"step-{_STEPS:010d}")
    for name, value in leaves(one).items():
        torch.testing.assert_close(leaves(two)[name], value, rtol=1e-8, atol=1e-10)


def test_a_checkpoint_fits_no_other_past(tmp_path: Path) -> None:
    slowed = leg(experiment(_SLOWER), tmp_path / "slowed", until=8)
    later = {"samples": 8 * BATCH, "values": {"optimizer.lr": 1e-4}}
    leg(experiment(_SLOWER, later), tmp_path / "later", until=9, begin=slowed)
    other = {**_SLOWER, "values": {"optimizer.lr": 2e-3}}
    for past in ((), (later,), (other, later)):
        with pytest.raises(CheckpointMismatch):
            leg(experiment(*past), tmp_path / "other", until=9, begin=slowed)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training.batch_size": 8}, "training.batch_size cannot become another"),
        ({"optimizer.betas": 0.5}, "optimizer.betas cannot become another"),
        ({"method": _LINEAR}, "method cannot become another"),
        ({"method.taget": 1.0}, "the experiment has no method.taget"),
        ({"method.target": 0.5}, "method.target has to be a number or a schedule"),
        ({"optimizer.lr": "fast"}, "optimizer.lr can become a number or a schedule"),
        ({"optimizer.lr": True}, "optimizer.lr can become a number or a schedule"),
        ({"method.target.decay": POINTS}, "can become a number or a schedule"),
        ({"method.target.decay.value": 1.5}, "decay must be|leaves|in \\[0, 1\\]"),
        ({"learning_rate.end": -1.0}, "learning_rate"),
        ({}, "changes need values"),
    ],
)
def test_what_a_run_cannot_change_on_its_way_is_refused(
    values: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        assemble(Experiment.from_dict(experiment({"samples": BATCH, "values": values})))


@pytest.mark.parametrize("after", [(0,), (_STEPS * BATCH,), (BATCH, BATCH + 1), (2 * BATCH, BATCH)])
def test_changes_follow_each_other_within_the_run(after: tuple[int, ...]) -> None:
    changes = [{**_SLOWER, "samples": samples} for samples in after]
    with pytest.raises(ValueError, match="changes must follow each other by whole batches"):
        Experiment.from_dict(experiment(*changes))


def test_a_change_that_the_state_would_not_fit_is_refused() -> None:
    method = {**MEAN_FLOW, "coupling": {**KEPT_NOISE, "fresh": 0.6}}
    change = {"samples": BATCH, "values": {"method.coupling.fresh": 0.7}}
    with pytest.raises(ValueError, match="changes cannot make another coupling"):
        assemble(Experiment.from_dict(experiment(change, method=method)))
