"""Ratios of gradients in games: how long the gradient is by which a generator fools its critic."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onestep.methods.align_your_flow import AlignYourFlow
from onestep.methods.consistency_trajectory import ConsistencyTrajectory
from onestep.methods.core.adversary import Adversary
from onestep.methods.core.balance import AbstractBalance, FixedBalance, GradientRatio
from onestep.methods.core.flow_map import Domain
from onestep.methods.core.game import ONLINE, AbstractGame
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.relativistic import RelativisticAdversary
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Schedule
from onestep.methods.instaflow import InstaFlow
from onestep.platform.training.objective import combine
from onestep.platform.training.place import Place
from onestep.tests.methods.contract import SmallMap

AT = "last.weight"
LEAST, LARGEST = 0.01, 10.0
NONE = FixedBalance()


def trajectory(weight: float, balance: AbstractBalance = NONE) -> ConsistencyTrajectory:
    critic = Adversary(features={"first": 16}, generator=Constant(value=weight))
    return ConsistencyTrajectory(adversary=critic, balance=balance)


def instaflow(weight: float, balance: AbstractBalance = NONE) -> InstaFlow:
    critic = Adversary(features={"first": 16}, generator=Constant(value=weight))
    return InstaFlow(adversary=critic, balance=balance)


def aligned(weight: float, balance: AbstractBalance = NONE) -> AlignYourFlow:
    critic = RelativisticAdversary(features={"first": 16}, weight=Constant(value=weight))
    return AlignYourFlow(adversary=critic, balance=balance)


GAMES = [(trajectory, "consistency"), (instaflow, "reconstruction"), (aligned, "align_your_flow")]
by_game = pytest.mark.parametrize(("build", "reference"), GAMES, ids=["ctm", "instaflow", "ayf"])
Build = Callable[..., AbstractGame]


def ratio(reference: str, **schedules: Schedule) -> GradientRatio:
    limits = {"adversarial": (LEAST, LARGEST)}
    return GradientRatio(at=AT, reference=reference, limits=limits, schedules=schedules)


def gradients(game: AbstractGame) -> tuple[dict[str, Tensor], Tensor]:
    """The gradient of each of the generator's terms at the last layer, and that of their sum."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        online, other = (SmallMap(shape=(2,), domain=Domain()).double() for _ in range(2))
        companions = {name: make(online).double() for name, make in game.needs.companions.items()}
    x0, x1 = (Rng.seeded(k).normal(64, 2, dtype=torch.float64) for k in (1, 2))
    frozen = dict.fromkeys(game.needs.frozen, other)
    nets = Nets(online=online, target=other, frozen=frozen, companions=companions)
    now = Moment(step=5, total=10, rng=Rng.seeded(3), batch_size=64)
    loss = game.loss(ONLINE, nets, Batch(x0=x0, x1=x1, index=torch.arange(64)), now)
    terms = {name: rows.mean() for name, rows in loss.terms.items()}
    parts = {
        name: torch.autograd.grad(term, online.last.weight, retain_graph=True)[0]
        for name, term in terms.items()
    }
    named = dict(online.named_parameters())
    total = combine(terms, game.balance, named, now, Place())
    (whole,) = torch.autograd.grad(total, online.last.weight)
    return parts, whole


def expected(parts: dict[str, Tensor], reference: str, share: float = 1.0) -> Tensor:
    """Card 8: the main gradient, and the others as long as it, that of the critic in its limits."""
    length, whole = parts[reference].norm(), parts[reference].clone()
    for name, part in parts.items():
        if name != reference:
            low, high = (LEAST, LARGEST) if name == "adversarial" else (0.0, 1e4)
            scale = share if name == "adversarial" else 1.0
            whole += scale * (length / (part.norm() + 1e-4)).clamp(low, high) * part
    return whole


@by_game
@pytest.mark.parametrize("weight", [1e-5, 100.0, 1e8], ids=["largest", "between", "least"])
def test_the_critics_part_of_a_gradient_is_as_long_as_the_main_one_within_limits(
    build: Build, reference: str, weight: float
) -> None:
    parts, whole = gradients(build(weight, ratio(reference)))
    found = (parts[reference].norm() / (parts["adversarial"].norm() + 1e-4)).item()
    assert (found > LARGEST, found < LEAST) == (weight < 1.0, weight > 1e3)
    torch.testing.assert_close(whole, expected(parts, reference))
    _, plain = gradients(build(weight))
    torch.testing.assert_close(plain, torch.stack(list(parts.values())).sum(0))
    assert not torch.equal(whole, plain)


@by_game
def test_a_factor_of_the_critics_loss_cancels_and_one_of_the_balance_stays(
    build: Build, reference: str
) -> None:
    parts, whole = gradients(build(100.0, ratio(reference)))
    _, doubled = gradients(build(200.0, ratio(reference)))
    torch.testing.assert_close(doubled, whole, atol=1e-2 * whole.norm().item(), rtol=1e-2)
    _, halved = gradients(build(100.0, ratio(reference, adversarial=Constant(value=0.5))))
    torch.testing.assert_close(halved, expected(parts, reference, share=0.5))


@by_game
def test_a_balance_of_terms_that_there_are_not_is_refused(build: Build, reference: str) -> None:
    wrong = replace(ratio(reference), limits={"adversary": (0.01, 10.0)})
    with pytest.raises(
        ValueError, match=r"method\.balance must name terms among .*, got adversary$"
    ):
        build(1.0, wrong)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: GradientRatio(at=AT, reference="a", limits={"b": (1.0, 0.5)}), "limits of b need"),
        (lambda: GradientRatio(at=AT, reference="a", epsilon=-1.0), "epsilon of at least 0"),
        (
            lambda: GradientRatio(at=AT, reference="a", schedules={"b": Constant(value=-1.0)}),
            "weight of b must stay",
        ),
    ],
)
def test_values_out_of_range_are_refused(build: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
