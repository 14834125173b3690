"""What every game must satisfy. A test class inherits ``GameContract`` and names its game."""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, NamedTuple, final

import pytest
import torch
from torch import Tensor, nn

from onestep.methods.core.adversary import Adversary
from onestep.methods.core.coupling import AbstractCoupling
from onestep.methods.core.feature_heads import FeatureHeads
from onestep.methods.core.flow_map import Domain
from onestep.methods.core.game import ONLINE, AbstractGame
from onestep.methods.core.method import AbstractMethod, Needs
from onestep.methods.core.record import Batch, CompanionFactory, Loss, Moment, Nets
from onestep.methods.core.relativistic import RelativisticAdversary
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.tests.methods.contract import ConfigurationContract, LossContract, dropping_all
from onestep.tests.methods.exactness import Elsewhere, Exact, Order, assert_exactness

STEPS: Final = 100
"""Steps within which every player moves."""
WEIGHTS: Final = {"generator": "adversarial", "weight": "adversarial", "critic": "critic"}
"""The term that each weight of an adversary multiplies."""


@final
@dataclass(frozen=True, kw_only=True)
class Turn(AbstractMethod):
    """One player's turn of a game, seen as a method whose online network is that player.

    Attributes:
        game: The game.
        player: Whose turn it is.
        others: Networks that take the place of the other players, by name. With one named online
            the network in training plays the companion.
    """

    game: AbstractGame
    player: str = ONLINE
    others: Mapping[str, nn.Module] = field(default_factory=dict)

    @property
    def coupling(self) -> AbstractCoupling:
        return self.game.coupling

    @property
    def domain(self) -> Domain:
        return self.game.domain

    @property
    def needs(self) -> Needs:
        needs = self.game.needs
        return replace(needs, companions={name: self._make(name) for name in needs.companions})

    def _make(self, name: str) -> CompanionFactory:
        if name in self.others:
            return lambda online: self.others[name]
        return self.game.needs.companions[name]

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        generator = self.others.get(ONLINE)
        if generator is not None:
            companions = {**nets.companions, self.player: nets.online}
            nets = replace(nets, online=generator, companions=companions)  # type: ignore[arg-type]
        return self.game.loss(self.player, nets, batch, now)


class Opinion(NamedTuple):
    """The critic's mean number of generated samples and of real ones in a turn."""

    generated: float
    real: float


class GameContract(LossContract, ConfigurationContract):
    """Inherit as ``class TestDMD2(GameContract)``, give the fixture, the players, the exactness.

    Attributes:
        players: Every player, in no order.
        exactness: Turns, the others being where they should be, and what their gradients do at the
            oracle; empty for a game without a closed form.
        through: Roles of frozen maps, or ``target``, that the game differentiates through.
    """

    players: ClassVar[tuple[str, ...]]
    exactness: ClassVar[tuple[tuple[Turn, Exact | Order | Elsewhere], ...]] = ()
    through: ClassVar[frozenset[str]] = frozenset()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "player" in metafunc.fixturenames:
            metafunc.parametrize("player", self.players)

    @pytest.fixture
    def game(self) -> AbstractGame:
        """The game under test."""
        raise NotImplementedError

    @pytest.fixture
    def learner(self, game: AbstractGame) -> AbstractGame:
        return game

    @pytest.fixture
    def method(self, game: AbstractGame, player: str) -> AbstractMethod:
        return Turn(game=game, player=player)

    def without_labels(self, method: AbstractMethod) -> AbstractMethod:
        assert isinstance(method, Turn)
        return replace(method, game=dropping_all(method.game))

    # Turns.

    def test_the_players_are_the_network_and_the_companions(self, game: AbstractGame) -> None:
        assert set(self.players) == {ONLINE, *game.needs.companions}
        assert len(set(self.players)) == len(self.players)

    def test_every_player_moves_and_none_twice_in_a_step(self, game: AbstractGame) -> None:
        moves = [game.players(self._at(step)) for step in range(STEPS)]
        assert {player for move in moves for player in move} == set(self.players)
        assert all(len(set(move)) == len(move) > 0 for move in moves)

    def test_whose_turn_it_is_depends_on_the_step_alone(self, game: AbstractGame) -> None:
        """Workers hold other shards, and a resumed run has seen no other steps."""
        forth = [game.players(self._at(step)) for step in range(STEPS)]
        back = [game.players(self._at(step, shards=(1,))) for step in reversed(range(STEPS))]
        assert forth == back[::-1]

    def _at(self, step: int, shards: tuple[int, ...] = (0,)) -> Moment:
        return Moment(step=step, total=STEPS, rng=Rng.seeded(5, step=step, shards=shards))

    # Gradients.

    def test_a_turn_gives_a_gradient_to_every_weight_of_its_player_and_to_nothing_held(
        self, player: str, method: AbstractMethod, case: tuple[Nets, Batch]
    ) -> None:
        """A weight without a gradient would stop workers that share a batch."""
        nets, batch = case
        parts: dict[str, nn.Module] = {ONLINE: nets.online, **nets.companions}
        for name, part in parts.items():
            part.requires_grad_(name == player)
        torch.autograd.backward(self.loss(method, nets, batch, self.moment()).total.sum())
        gradients = {name: p.grad for name, p in parts[player].named_parameters()}
        idle = [name for name, gradient in gradients.items() if gradient is None]
        assert not idle, f"no gradient reaches {', '.join(idle)}"
        found = [gradient for gradient in gradients.values() if gradient is not None]
        assert all(gradient.isfinite().all() for gradient in found)
        assert any(gradient.abs().max() > 0 for gradient in found)
        held = {**nets.frozen} | ({} if nets.target is None else {"target": nets.target})
        for role in held.keys() - self.through:
            assert all(p.grad is None for p in held[role].parameters()), f"{role} has a gradient"

    # Critics.

    def test_a_step_of_the_critic_parts_real_samples_from_generated_ones(
        self, game: AbstractGame
    ) -> None:
        adversary_of(game)
        turn = self._turn(game, "critic")
        nets = self.nets(turn, self.shapes[0])
        before = self._opinion(turn, nets)
        self._descend(turn, nets, nets.companions[turn.player], "critic")
        after = self._opinion(turn, nets)
        assert after.real - after.generated > before.real - before.generated

    def test_a_step_of_the_network_makes_its_samples_look_real_to_the_critic(
        self, game: AbstractGame
    ) -> None:
        adversary_of(game)
        turn = self._turn(game, "adversarial")
        nets = self.nets(turn, self.shapes[0])
        before = self._opinion(turn, nets)
        self._descend(turn, nets, nets.online, "adversarial")
        assert self._opinion(turn, nets).generated > before.generated

    def test_the_weights_of_an_adversary_multiply_its_terms(self, game: AbstractGame) -> None:
        adversary = adversary_of(game)
        for name in {f.name for f in dataclasses.fields(adversary)} & WEIGHTS.keys():
            terms = []
            for value in (1.0, 3.0):
                weighted = replace(adversary, **{name: Constant(value=value)})
                turn = self._turn(replace(game, adversary=weighted), WEIGHTS[name])  # type: ignore[call-arg, type-var]
                nets = self.nets(turn, self.shapes[0])
                terms.append(self._loss_of(turn, nets).terms[WEIGHTS[name]])
            assert terms[0].abs().min() > 0.0
            torch.testing.assert_close(terms[1], 3.0 * terms[0], atol=0.0, rtol=1e-12)

    def _turn(self, game: AbstractGame, term: str) -> Turn:
        """The turn that has an adversary's term."""
        (other,) = set(self.players) - {ONLINE}
        return Turn(game=game, player=ONLINE if term == "adversarial" else other)

    def _loss_of(self, turn: Turn, nets: Nets) -> Loss:
        return self.loss(turn, nets, self.batch(16, self.shapes[0], torch.float64), self.moment())

    def _descend(self, turn: Turn, nets: Nets, part: nn.Module, term: str) -> None:
        """A short step of a part down the gradient of one term: no other one can hide it."""
        weights = list(part.parameters())
        loss = self._loss_of(turn, nets).terms[term].mean()
        slopes = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        length = torch.stack([slope.norm() for slope in slopes]).norm()
        assert length > 0.0
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight -= 1e-3 * slope / length

    def _opinion(self, turn: Turn, nets: Nets) -> Opinion:
        """Generated is what changes with the network that generates, and nothing else does."""
        here, there = self._said(turn, nets), self._said(turn, with_another_network(nets))
        is_real = [torch.equal(a, b) for a, b in zip(here, there, strict=True)]
        real = [said.mean() for said, is_so in zip(here, is_real, strict=True) if is_so]
        generated = [said.mean() for said, is_so in zip(here, is_real, strict=True) if not is_so]
        assert generated, "the critic is asked about no generated samples"
        return Opinion(
            generated=float(sum(generated) / len(generated)),
            # Only a relativistic critic looks at real samples in the network's turn.
            real=float(sum(real) / max(len(real), 1)),
        )

    def _said(self, turn: Turn, nets: Nets) -> list[Tensor]:
        """The critic's numbers, in the order in which a turn asks for them."""
        parts = [part for companion in nets.companions.values() for part in companion.modules()]
        (heads,) = [part for part in parts if isinstance(part, FeatureHeads)]
        said: list[Tensor] = []
        handle = heads.register_forward_hook(lambda _, given, value: said.append(value.detach()))
        self._loss_of(turn, nets)
        handle.remove()
        return said

    def test_the_gradients_are_exact_as_declared(self) -> None:
        for turn, exactness in self.exactness:
            assert_exactness(exactness, turn)


def adversary_of(game: AbstractGame) -> Adversary | RelativisticAdversary:
    """The adversary that a game holds; the test of a game without one is skipped."""
    held = {f.name: getattr(game, f.name) for f in dataclasses.fields(game)}  # type: ignore[arg-type]
    adversary = held.get("adversary")
    if adversary is None:
        pytest.skip("the game has no critic")
    assert isinstance(adversary, Adversary | RelativisticAdversary)
    return adversary


def with_another_network(nets: Nets) -> Nets:
    online = copy.deepcopy(nets.online)
    with torch.no_grad():
        for weight in online.parameters():
            weight.mul_(1.1)
    return replace(nets, online=online)
