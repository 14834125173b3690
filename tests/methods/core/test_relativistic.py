"""The relativistic adversary: what pairs lose, its penalties, and the game that it makes."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
import torch
from torch import Tensor

from onestep.methods.core.adversary import AbstractPenalty, ApproximateR1
from onestep.methods.core.gradient_penalty import GradientPenalty
from onestep.methods.core.record import Moment
from onestep.methods.core.relativistic import RelativisticAdversary
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.core.time_law import LogitNormal

FREE: Final = GradientPenalty(weight=0.0)
ADVERSARY: Final = RelativisticAdversary(
    features={"block": 4},
    law=LogitNormal(mean=30.0),  # no noise at all
    penalty=FREE,
    weight=Constant(value=1.0),
)


def moment(n: int, step: int = 0) -> Moment:
    return Moment(step=step, total=10, rng=Rng.seeded(5, step=step), batch_size=n)


def line(x: Tensor, t: Tensor) -> Tensor:
    del t
    return 2.0 * x[:, 0] - x[:, 1] + 7.0


def pairs(n: int) -> tuple[Tensor, Tensor]:
    rng = Rng.seeded(1)
    return rng.normal(n, 2, dtype=torch.float64), rng.normal(n, 2, dtype=torch.float64)


def test_a_pair_loses_by_the_difference_of_its_judgements() -> None:
    real, made = pairs(64)
    lead = line(real, real) - line(made, made)
    critic = ADVERSARY.critic_loss(line, real, made, moment(64))
    torch.testing.assert_close(critic, torch.log1p((-lead).exp()))
    generator = ADVERSARY.generator_loss(line, real, made, moment(64))
    torch.testing.assert_close(generator, torch.log1p(lead.exp()))
    halved = replace(ADVERSARY, weight=Constant(value=0.5))
    torch.testing.assert_close(halved.generator_loss(line, real, made, moment(64)), 0.5 * generator)


def test_a_critic_that_says_nothing_loses_a_known_amount() -> None:
    real, made = pairs(8)
    for loss in (ADVERSARY.critic_loss, ADVERSARY.generator_loss):
        found = loss(lambda x, t: torch.ones_like(t), real, made, moment(8))
        assert found.tolist() == pytest.approx([math.log(2.0)] * 8)


def test_both_samples_of_a_pair_have_the_same_noise() -> None:
    adversary, real = replace(ADVERSARY, law=LogitNormal()), pairs(64)[0]
    seen: list[tuple[Tensor, Tensor]] = []

    def judge(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return x[:, 0]

    adversary.critic_loss(judge, real, real + 1.0, moment(64))
    (ours, t), (theirs, same) = seen
    assert torch.equal(t, same)
    torch.testing.assert_close(theirs - ours, t[:, None].expand(-1, 2))
    assert (ours - t[:, None] * real).square().mean() > 0.1


def curved(x: Tensor) -> Tensor:
    return x.square().sum(1) + x[:, 0]


def test_the_penalty_is_half_the_square_of_the_slope() -> None:
    x = pairs(64)[0]
    found = GradientPenalty(weight=3.0)(curved, x, curved(x), moment(64))
    slope = 2.0 * x + torch.tensor([1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, 1.5 * slope.square().sum(1))


def test_the_penalty_moves_the_weights_of_the_critic() -> None:
    """d/dw of 1/2 |w x|'^2 is w."""
    weight = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    x = torch.zeros(1, 1, dtype=torch.float64)

    def critic(x: Tensor) -> Tensor:
        return (weight * x)[:, 0]

    penalty = GradientPenalty(weight=1.0)(critic, x, critic(x), moment(1))
    (found,) = torch.autograd.grad(penalty.sum(), weight)
    assert found.item() == pytest.approx(3.0)


def test_a_penalty_without_weight_asks_the_critic_nothing() -> None:
    def refuse(x: Tensor) -> Tensor:
        raise AssertionError

    x = pairs(8)[0]
    assert FREE(refuse, x, x[:, 0], moment(8)).tolist() == [0.0] * 8


def test_the_approximate_penalty_tends_to_the_exact_one() -> None:
    """weight scale^2 |slope|^2 in the mean; 200 000 samples of a plane, 4 standard errors."""
    n = 200_000
    x = torch.zeros(n, 2, dtype=torch.float64)

    def plane(x: Tensor) -> Tensor:
        return line(x, x)

    exact = GradientPenalty(weight=2.0)(plane, x[:1], plane(x[:1]), moment(1)).item()
    near = ApproximateR1(weight=100.0, scale=0.1)(plane, x, plane(x), moment(n))
    assert near.mean().item() == pytest.approx(exact, abs=4.0 * near.std().item() / n**0.5)


@pytest.mark.parametrize("penalty", [GradientPenalty(weight=0.5), ApproximateR1(weight=5.0)])
def test_real_and_generated_samples_are_penalised_alike(penalty: AbstractPenalty) -> None:
    real, made = pairs(64)

    def judge(x: Tensor, t: Tensor) -> Tensor:
        return curved(x)

    plain = ADVERSARY.critic_loss(judge, real, made, moment(64))
    found = replace(ADVERSARY, penalty=penalty).critic_loss(judge, real, made, moment(64))
    now = moment(64)
    ADVERSARY._noised(real, made, now)
    want = sum(penalty(curved, x, curved(x), now) for x in (real, made))
    torch.testing.assert_close(found - plain, want)


# The game of one Gaussian against another: a generator m + c z, a critic w1 x + w2 x^2.


def played(penalty: float, steps: int = 700) -> list[float]:
    """Distance of the generator from the data, N(1, 0.25), over the game."""
    law = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    slopes = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    adversary = replace(ADVERSARY, penalty=GradientPenalty(weight=penalty))

    def judge(x: Tensor, t: Tensor) -> Tensor:
        return slopes[0] * x[:, 0] + slopes[1] * x[:, 0].square()

    distances = []
    for step in range(steps):
        rng = Rng.seeded(3, step=step)
        real = 1.0 + 0.5 * rng.normal(1024, 1, dtype=torch.float64)
        z = rng.normal(1024, 1, dtype=torch.float64)
        made = law[0] + law[1] * z
        losses: tuple[tuple[Tensor, Callable[..., Tensor], Tensor], ...] = (
            (slopes, adversary.critic_loss, made.detach()),
            (law, adversary.generator_loss, made),
        )
        for weights, loss, samples in losses:
            (slope,) = torch.autograd.grad(
                loss(judge, real, samples, moment(1024, step)).mean(), weights
            )
            with torch.no_grad():
                weights -= 0.2 * slope
        distances.append((law.detach() - torch.tensor([1.0, 0.5])).norm().item())
    return distances


@pytest.mark.slow
def test_the_game_with_penalties_ends_at_the_data_and_without_them_goes_around_it() -> None:
    with_them, without = played(penalty=0.5), played(penalty=0.0)
    assert max(with_them[-200:]) <= 0.03
    assert max(without[-200:]) >= 0.15


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RelativisticAdversary(features={}), "at least one part"),
        (lambda: RelativisticAdversary(features={"a": 4}, width=0), "sizes of at least 1"),
        (
            lambda: RelativisticAdversary(features={"a": 4}, weight=Constant(value=-1.0)),
            r"adversary.weight must stay in \[0, inf\], got -1",
        ),
        (lambda: GradientPenalty(weight=-1.0), "weight of at least 0, got -1"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
