"""The contract of games has the power to refuse games that break it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import pytest
import torch
from torch import nn

from onestep.methods.core.coupling import AbstractCoupling, IndependentCoupling
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.game import ONLINE, AbstractGame
from onestep.methods.core.method import Needs, Reading
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.tests.methods.game_contract import GameContract, Turn
from onestep.tests.platform.training.parts import JUDGE, Adversarial, Judge


class TestAdversarial(GameContract):
    players = (ONLINE, JUDGE)
    shapes = ((2,),)

    @pytest.fixture
    def game(self) -> Adversarial:
        return Adversarial()


@final
class IdleJudge(nn.Module):
    """A judge with a weight that nothing depends on."""

    def __init__(self, online: FlowMap) -> None:
        super().__init__()
        del online
        self.judge = Judge(2)
        self.idle = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score: torch.Tensor = self.judge(x)
        return score


def both(now: Moment) -> tuple[str, ...]:
    del now
    return (JUDGE, ONLINE)


def by_chance(now: Moment) -> tuple[str, ...]:
    return (JUDGE, ONLINE) if now.rng.uniform(1).item() < 0.5 else (ONLINE,)


def never_the_judge(now: Moment) -> tuple[str, ...]:
    del now
    return (ONLINE,)


def the_judge_twice(now: Moment) -> tuple[str, ...]:
    del now
    return (JUDGE, JUDGE, ONLINE)


@final
@dataclass(frozen=True, kw_only=True)
class Defective(AbstractGame):
    """The toy game with another order of turns, an idle weight or a gradient for the teacher."""

    order: Callable[[Moment], tuple[str, ...]] = both
    idle: bool = False
    teaches: bool = False
    toy: Adversarial = field(default=Adversarial())

    @property
    def coupling(self) -> AbstractCoupling:
        return IndependentCoupling()

    @property
    def domain(self) -> Domain:
        return Domain()

    @property
    def needs(self) -> Needs:
        judge = {JUDGE: IdleJudge} if self.idle else self.toy.needs.companions
        return Needs(companions=judge, frozen={"teacher": Reading()})

    def players(self, now: Moment) -> tuple[str, ...]:
        return self.order(now)

    def loss(self, player: str, nets: Nets, batch: Batch, now: Moment) -> Loss:
        loss = self.toy.loss(player, nets, batch, now)
        if not self.teaches:
            return loss
        zero = torch.zeros(len(batch), dtype=batch.x1.dtype)
        lesson = nets.frozen["teacher"].velocity(batch.noise, zero).square().sum(1)
        return Loss(terms={**loss.terms, "lesson": lesson})


SUITE = TestAdversarial()


def turn_check(game: AbstractGame, player: str) -> None:
    turn = Turn(game=game, player=player)
    case = SUITE.nets(turn, (2,)), SUITE.batch(16, (2,), torch.float64)
    SUITE.test_a_turn_gives_a_gradient_to_every_weight_of_its_player_and_to_nothing_held(
        player, turn, case
    )


@pytest.mark.parametrize("player", [ONLINE, JUDGE])
def test_a_gradient_of_a_held_network_is_noticed(player: str) -> None:
    turn_check(Defective(), player)
    with pytest.raises(AssertionError, match="teacher has a gradient"):
        turn_check(Defective(teaches=True), player)


def test_a_weight_without_a_gradient_is_noticed() -> None:
    turn_check(Defective(idle=True), ONLINE)
    with pytest.raises(AssertionError, match=r"idle\.weight"):
        turn_check(Defective(idle=True), JUDGE)


def test_a_player_that_never_moves_or_moves_twice_is_noticed() -> None:
    SUITE.test_every_player_moves_and_none_twice_in_a_step(Defective())
    for order in (never_the_judge, the_judge_twice):
        with pytest.raises(AssertionError):
            SUITE.test_every_player_moves_and_none_twice_in_a_step(Defective(order=order))


def test_turns_by_chance_are_noticed() -> None:
    SUITE.test_whose_turn_it_is_depends_on_the_step_alone(Defective())
    with pytest.raises(AssertionError):
        SUITE.test_whose_turn_it_is_depends_on_the_step_alone(Defective(order=by_chance))
