"""What only a loss on the data can refuse is refused before a run, and costs the run nothing."""

from typing import Any

import pytest

from onestep.methods.core.game import ONLINE
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import Assembly, assemble
from onestep.platform.training.rehearsal import rehearse
from onestep.tests.platform.training.group import assert_equal, learning_of
from onestep.tests.platform.training.parts import JUDGE
from onestep.tests.platform.training.recipe import (
    FLOW_MATCHING,
    GAME,
    KEPT_NOISE,
    MEAN_FLOW,
    ONE_JUMP,
    SCALED,
    SHORTCUT,
    TWO_TERMS,
    recipe,
)

PRECONDITIONED = "onestep.methods.nets.preconditioning.Preconditioned"
RECOMPUTED = "onestep.tests.platform.training.recomputed.RecomputedMLP"
SELF_DISTILLATION = {"_target_": "onestep.methods.self_distillation.SelfDistillation"}
GUIDED = {
    "net": {
        "_target_": "onestep.methods.nets.mlp.MLP",
        "width": 16,
        "depth": 1,
        "embedding_width": 8,
        "guided": True,
    }
}


def assembled(method: dict[str, Any], **changes: Any) -> Assembly:
    return assemble(Experiment.from_dict(recipe(method, steps=6) | changes))


def tried(assembly: Assembly) -> None:
    rehearse(assembly, assembly.source.load())


@pytest.mark.parametrize(
    "method",
    [
        MEAN_FLOW,
        SHORTCUT,
        TWO_TERMS,
        GAME,
        {**GAME, "only": JUDGE},
        {**FLOW_MATCHING, "coupling": KEPT_NOISE},
    ],
)
def test_what_can_be_trained_is_not_refused(method: dict[str, Any]) -> None:
    tried(assembled(method))


@pytest.mark.parametrize("player", [ONLINE, JUDGE])
def test_the_loss_of_each_player_is_tried(player: str) -> None:
    with pytest.raises(ValueError, match=f"the {player} takes no such data"):
        tried(assembled({**GAME, "refusing": player}))


def test_a_player_that_never_moves_is_not_asked() -> None:
    tried(assembled({**GAME, "only": ONLINE, "refusing": JUDGE}))


def test_a_balance_that_names_no_parameter_is_refused() -> None:
    net = recipe(TWO_TERMS, steps=6)["net"]
    wrapped = {
        "_target_": PRECONDITIONED,
        "net": {**net, "_partial_": True},
    }
    with pytest.raises(ValueError, match=r"balance.parameter names no parameter, got head.weight"):
        tried(assembled(TWO_TERMS, net=wrapped))


def test_a_gradient_that_torch_refuses_is_told_before_the_run() -> None:
    """A derivative with its graph through activations that are computed again."""
    net = {**recipe(MEAN_FLOW, steps=6)["net"], "_target_": RECOMPUTED}
    tried(assembled(MEAN_FLOW, net=net))
    with pytest.raises(
        ValueError,
        match=r"^the loss of online has no gradient with this network.* takes no network that "
        r"recomputes activations, .*torch says: .* different number of tensors",
    ):
        tried(assembled(SELF_DISTILLATION, net=net))


def test_a_method_that_groups_its_rows_is_tried_on_a_whole_shard() -> None:
    method = {**SCALED, "group": 16}
    tried(
        assembled(
            method, training={**recipe(SCALED, steps=6)["training"], "batch_size": 64}, **GUIDED
        )
    )
    with pytest.raises(ValueError, match="rows come in groups of 16, got 8"):
        tried(assembled(method, **GUIDED))


def test_a_network_takes_what_its_method_supplies() -> None:
    tried(assembled(SCALED, **GUIDED))
    with pytest.raises(ValueError, match=r"the network has to take as an input: set \+net"):
        assembled(SCALED)
    within = {"_target_": PRECONDITIONED, "net": {**GUIDED["net"], "_partial_": True}}
    for net in (GUIDED["net"], within):
        with pytest.raises(ValueError, match="takes guidance by its field guided, which method"):
            assembled(MEAN_FLOW, net=net)


def test_numbers_of_evaluations_fit_the_map_and_the_default_list_gives_way() -> None:
    assembled(ONE_JUMP)
    with pytest.raises(ValueError, match="has a sampler, which are 1 up to 16, got 2"):
        assembled(ONE_JUMP, evaluation={"nfes": [1, 2]})


@pytest.mark.parametrize("method", [GAME, {**FLOW_MATCHING, "coupling": KEPT_NOISE}])
def test_a_rehearsal_changes_nothing(method: dict[str, Any]) -> None:
    values = recipe(method, steps=6)
    rehearsed, fresh = learning_of(values), learning_of(values)
    rehearsed.rehearse(4)
    assert_equal(rehearsed.state(), fresh.state())
    for learning in (rehearsed, fresh):
        learning.advance()
    assert_equal(rehearsed.state(), fresh.state())
