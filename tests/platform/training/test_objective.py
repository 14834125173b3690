from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from onestep.methods.core.balance import FixedBalance, GradientRatio
from onestep.methods.core.flow_map import Velocity
from onestep.methods.core.record import Moment
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Linear
from onestep.platform.training.objective import combine
from onestep.platform.training.place import Place
from onestep.tests.platform.training import catalogue
from onestep.tests.platform.training.group import (
    assert_equal,
    distance,
    gradients,
    learning_of,
    leaves,
    run_group,
    state_at,
    train_here,
    train_many,
)
from onestep.tests.platform.training.recipe import (
    BALANCED_GAME,
    BATCH,
    DIGITS,
    GAME,
    MEAN_FLOW,
    TWO_TERMS,
    recipe,
)

UNCLIPPED = {"clip_norm": 0.0}


def now(step: int = 0) -> Moment:
    return Moment(step=step, total=10, rng=Rng.seeded(1))


def test_two_workers_find_the_gradient_of_one_with_the_derivative_inside() -> None:
    experiment = recipe(MEAN_FLOW, steps=4, training=UNCLIPPED)
    alone = gradients(Place(), experiment, 4)
    for theirs in run_group(gradients, 2, experiment, 4):
        assert distance(theirs, alone) < 1e-10
    straight = {**MEAN_FLOW, "tangent": {**_CONSTANT, "value": 0.0}}
    without = gradients(Place(), recipe(straight, steps=4, training=UNCLIPPED), 4)
    assert distance(without, alone) > 1e-3, "the derivative counts, so a lost one would show"


_CONSTANT = {"_target_": "onestep.methods.core.schedule.Constant"}


def test_half_of_the_rows_give_another_gradient() -> None:
    experiment = recipe(MEAN_FLOW, steps=4, training=UNCLIPPED)
    half = recipe(MEAN_FLOW, steps=4, training={**UNCLIPPED, "batch_size": BATCH // 2, "shards": 2})
    assert distance(gradients(Place(), half, 1), gradients(Place(), experiment, 1)) > 1e-3


def test_fixed_weights_multiply_the_terms() -> None:
    weight = nn.Parameter(torch.tensor(2.0))
    terms = {"a": weight**2, "b": 10.0 * weight}
    balance = FixedBalance(schedules={"b": Linear(start=0.0, end=1.0)})
    assert combine(terms, balance, {}, now(0), Place()).item() == 4.0
    assert combine(terms, balance, {}, now(5), Place()).item() == 14.0


def test_a_weight_of_no_term_is_refused() -> None:
    balance = FixedBalance(schedules={"c": Linear(start=0.0, end=1.0)})
    with pytest.raises(ValueError, match=r"balance names no term of this method: got \['c'\]"):
        combine({"a": torch.tensor(1.0)}, balance, {}, now(), Place())


def test_a_gradient_ratio_makes_all_gradients_as_long_as_the_reference() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    terms = {"a": weight.square().sum(), "b": 1e-2 * weight.sum()}
    balance = GradientRatio(at="weight", reference="a", epsilon=0.0)
    total = combine(terms, balance, {"weight": weight}, now(), Place())
    total.backward()
    assert weight.grad is not None
    # |grad a| = |2 w| = 10, and b points along (1, 1).
    expected = 2 * weight.detach() + 10.0 * torch.ones(2, dtype=torch.float64) / 2**0.5
    torch.testing.assert_close(weight.grad, expected)


def test_a_gradient_ratio_at_no_parameter_is_refused() -> None:
    balance = GradientRatio(at="absent", reference="a")
    with pytest.raises(ValueError, match=r"balance\.parameter names no parameter, got absent"):
        combine({"a": torch.tensor(1.0)}, balance, {}, now(), Place())


def test_games_and_gradient_ratios_walk_the_same_way_on_two_workers(tmp_path: Path) -> None:
    games = {"game": GAME, "balanced": BALANCED_GAME, "ratio": TWO_TERMS}
    experiments = {name: recipe(method, steps=6) for name, method in games.items()}
    run_group(train_many, 2, experiments, tmp_path / "two")
    ends = {}
    for name, experiment in experiments.items():
        alone, _ = train_here(experiment, tmp_path / "one" / name)
        ends[name] = alone
        together = state_at(tmp_path / "two" / name / "checkpoints" / "step-0000000006")
        assert distance(together, alone) < 1e-10
        assert distance(alone, initial(experiment)) > 1e-2
    assert distance(ends["balanced"], ends["game"]) > 1e-4, "the balance counts"


def initial(experiment: dict[str, Any]) -> dict[str, Any]:
    """The state before the first step, in the form of the last: optimizers start empty."""
    learning = learning_of(experiment)
    learning.advance()
    return learning.state()


@pytest.mark.parametrize("player", ["online", "judge"])
def test_a_turn_changes_the_weights_of_its_player_alone(player: str) -> None:
    learning = learning_of(recipe({**GAME, "only": player}, steps=4))
    nets = learning.nets
    parts = {"online": nets.online, "judge": nets.companions["judge"]}
    before = {name: [p.clone() for p in part.parameters()] for name, part in parts.items()}
    for _ in range(2):
        learning.advance()
    for name, part in parts.items():
        pairs = zip(part.parameters(), before[name], strict=True)
        moved = [not torch.equal(p, old) for p, old in pairs]
        assert any(moved) is (name == player)
        assert all(p.grad is None for p in part.parameters()) is (name != player)


def test_in_a_turn_its_player_alone_is_in_training_mode() -> None:
    learning = learning_of(recipe(GAME, steps=4))
    parts = {"online": learning.nets.online, "judge": learning.nets.companions["judge"]}
    for player in ("judge", "online", "judge"):
        learning.give_turn(player)
        for name, part in parts.items():
            assert {module.training for module in part.modules()} == {name == player}


def test_a_fake_score_that_is_its_teacher_moves_no_sample_whatever_dropout_does() -> None:
    method = {"_target_": "onestep.methods.dmd2.DMD2", "fake_steps": 1}
    values = recipe(method, steps=4, data=DIGITS, lr=0.0, parents={"teacher": "none/1"})
    sizes = {"patch": 4, "width": 16, "depth": 1, "head_width": 8}
    values["net"] = {"_target_": "onestep.methods.nets.dit.DiT", **sizes, "dropout": 0.5}
    learning = catalogue.learning(values)
    teacher, fake = learning.nets.frozen["teacher"], learning.nets.companions["fake"]
    assert isinstance(fake, Velocity)
    fake.net.load_state_dict(teacher.state_dict())
    assert float(learning.advance()["log/error"]) == 0.0


def test_a_game_goes_on_where_it_stopped(tmp_path: Path) -> None:
    experiment = recipe(
        GAME, steps=5, training={"checkpoint_every": 2 * BATCH, "keep_checkpoints": 9}
    )
    whole, _ = train_here(experiment, tmp_path)
    resumed, _ = train_here(
        experiment, tmp_path / "again", tmp_path / "checkpoints" / "step-0000000002"
    )
    assert_equal(resumed, whole)
    assert {"companions", "online"} <= {name.split("/")[1] for name in leaves(whole)}


def test_a_player_that_rests_is_averaged_over_its_own_turns(tmp_path: Path) -> None:
    every = recipe(GAME, steps=4)
    some = recipe(GAME, steps=4, training={"log_every": 4 * BATCH})
    _, each = train_here(every, tmp_path / "every")
    _, mean = train_here(some, tmp_path / "some")
    judged = [row["loss/judge"] for row in each.rows if "loss/judge" in row]
    assert len(judged) == 2
    assert mean.rows[0]["loss/judge"] == pytest.approx(sum(judged) / 2, rel=1e-12)
