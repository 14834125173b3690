"""Adversaries: the best critics of two Gaussians, the penalty of a plane, and heads on features."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onestep.methods.core.adversary import (
    AbstractAdversarialLoss,
    Adversary,
    ApproximateR1,
    HingeLoss,
    NonSaturatingLoss,
)
from onestep.methods.core.feature_heads import FeatureHead, FeatureHeads, features_of
from onestep.methods.core.flow_map import Domain
from onestep.methods.core.record import Moment
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.nets.mlp import MLP
from onestep.methods.nets.unet import UNet

REAL, MADE = 1.0, -0.5
"""Means of two Gaussians of unit width."""
Critic = Callable[[Tensor], Tensor]
LOSSES: Final = (HingeLoss(), NonSaturatingLoss())


def log_ratio(x: Tensor) -> Tensor:
    """ln p_real / p_made, a straight line."""
    return (REAL - MADE) * x - 0.5 * (REAL**2 - MADE**2)


def best_hinge(x: Tensor) -> Tensor:
    return log_ratio(x).sign()


BEST: Final[dict[type, Critic]] = {HingeLoss: best_hinge, NonSaturatingLoss: log_ratio}


def grid() -> tuple[Tensor, Tensor]:
    """Points and equal weights of a trapezoidal rule, exact to rounding for such integrands."""
    x = torch.linspace(-12.0, 12.0, 240_001, dtype=torch.float64)
    return x, x[1] - x[0]


def density(x: Tensor, mean: float) -> Tensor:
    return torch.exp(-0.5 * (x - mean) ** 2) / math.sqrt(2.0 * math.pi)


def risk(loss: AbstractAdversarialLoss, critic: Critic) -> Tensor:
    """Mean loss of a critic of the two Gaussians."""
    x, width = grid()
    real, made = density(x, REAL), density(x, MADE)
    # A row holds one real and one generated sample; far on its side either half is zero.
    far = torch.full_like(x, 1e3)
    value = critic(x)
    return (width * (real * loss.critic(value, -far) + made * loss.critic(far, value))).sum()


def test_the_best_hinge_critic_loses_twice_what_both_laws_share() -> None:
    shared = 1.0 + math.erf(-(REAL - MADE) / 2.0 / math.sqrt(2.0))
    assert risk(HingeLoss(), best_hinge).item() == pytest.approx(2.0 * shared, abs=1e-4)


def test_the_best_cross_entropy_critic_loses_all_but_the_divergence() -> None:
    x, width = grid()
    real, made = density(x, REAL), density(x, MADE)
    mean = 0.5 * (real + made)
    kl = [(width * p * ((p + 1e-300) / (mean + 1e-300)).log()).sum() for p in (real, made)]
    divergence = 0.5 * (kl[0] + kl[1]).item()
    expected = 2.0 * math.log(2.0) - 2.0 * divergence
    assert risk(NonSaturatingLoss(), log_ratio).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_other_critic_loses_more(loss: AbstractAdversarialLoss) -> None:
    best = BEST[type(loss)]
    least = risk(loss, best).item()
    rng = np.random.default_rng(1)
    for amplitude, frequency, phase in rng.normal(size=(8, 3)):

        def critic(
            x: Tensor, a: float = amplitude, w: float = frequency, b: float = phase
        ) -> Tensor:
            return best(x) + 0.1 * a * torch.cos(w * x + b)

        assert risk(loss, critic).item() > least + 1e-6
    assert risk(loss, lambda x: -best(x)).item() > least + 0.5


def test_the_best_critics_slope_vanishes_in_every_direction() -> None:
    for k in range(4):
        theta = torch.zeros((), dtype=torch.float64, requires_grad=True)

        def critic(x: Tensor, k: int = k, theta: Tensor = theta) -> Tensor:
            return log_ratio(x) + theta * torch.cos((1.0 + k) * x + k)

        (slope,) = torch.autograd.grad(risk(NonSaturatingLoss(), critic), theta)
        assert abs(slope.item()) <= 1e-12


@pytest.mark.parametrize(
    ("loss", "critic", "generator"),
    [(HingeLoss(), 2.0, 0.0), (NonSaturatingLoss(), 2.0 * math.log(2.0), math.log(2.0))],
)
def test_a_critic_that_says_nothing_loses_a_known_amount(
    loss: AbstractAdversarialLoss, critic: float, generator: float
) -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    assert loss.critic(zero, zero).tolist() == pytest.approx([critic] * 3, abs=1e-15)
    assert loss.generator(zero).tolist() == pytest.approx([generator] * 3, abs=1e-15)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_generator_is_driven_to_what_looks_real(loss: AbstractAdversarialLoss) -> None:
    value = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(loss.generator(value).sum(), value)[0].item() < 0.0
    real, made = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    up, down = torch.autograd.grad(loss.critic(real, made).sum(), [real, made])
    assert up.item() < 0.0 < down.item()


def now(shards: tuple[int, ...] = (0,)) -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(3, shards=shards))


def test_the_penalty_of_a_plane_is_its_slope() -> None:
    """weight scale^2 |w|^2, with 200 000 samples and 4 standard errors."""
    slope = torch.tensor([0.5, -2.0], dtype=torch.float64)

    def plane(x: Tensor) -> Tensor:
        return x @ slope + 3.0

    x = torch.zeros(200_000, 2, dtype=torch.float64)
    found = ApproximateR1(weight=7.0, scale=0.3)(plane, x, plane(x), now())
    expected = 7.0 * 0.3**2 * slope.square().sum().item()
    error = found.std().item() / len(found) ** 0.5
    assert abs(found.mean().item() - expected) <= 4.0 * error
    assert error <= 0.01 * expected


def test_the_penalty_of_a_curve_is_its_slope_to_first_order() -> None:
    x = Rng.seeded(2).normal(50_000, 1, dtype=torch.float64)

    def curve(x: Tensor) -> Tensor:
        return x[:, 0].sin()

    exact = x[:, 0].cos().square().mean().item()
    gaps = []
    for scale in (0.4, 0.2):
        found = ApproximateR1(weight=1.0, scale=scale)(curve, x, curve(x), now()).mean().item()
        gaps.append(abs(found / scale**2 - exact))
    assert gaps[1] <= 0.4 * gaps[0]


def test_no_weight_takes_no_pass_and_no_random_number() -> None:
    def refused(x: Tensor) -> Tensor:
        raise AssertionError("the critic is not to be evaluated")

    moment, x = now(), torch.zeros(4, 2)
    assert ApproximateR1(weight=0.0)(refused, x, torch.ones(4), moment).tolist() == [0.0] * 4
    assert torch.equal(moment.rng.uniform(4), now().rng.uniform(4))


@pytest.mark.parametrize(("weight", "scale"), [(-1.0, 0.1), (1.0, 0.0)])
def test_a_penalty_out_of_range_is_refused(weight: float, scale: float) -> None:
    with pytest.raises(ValueError, match="approximate R1 needs a finite weight of at least 0"):
        ApproximateR1(weight=weight, scale=scale)


# Features.


def mlp() -> MLP:
    net = MLP(shape=(2,), domain=Domain(), width=12, depth=2, embedding_width=8)
    nn.init.normal_(net.head.weight)
    return net.requires_grad_(False)


def evaluated(net: MLP, x: Tensor) -> Tensor:
    return net.velocity(x, torch.full((len(x),), 0.5))


def test_features_are_what_the_parts_give_and_the_network_is_left_as_it_was() -> None:
    net, x = mlp(), torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    with features_of(net, ("stem", "blocks.1")) as features:
        inside = evaluated(net, x)
    assert {name: tuple(part.shape) for name, part in features.items()} == {
        "stem": (5, 12),
        "blocks.1": (5, 12),
    }
    torch.testing.assert_close(features["stem"], net.stem(x))
    kept = dict(features)
    assert torch.equal(evaluated(net, x), inside)
    evaluated(net, 2.0 * x)
    assert all(features[name] is kept[name] for name in kept)


def test_frozen_features_pass_gradients_to_the_samples_and_none_to_their_weights() -> None:
    net, heads = mlp(), FeatureHeads({"blocks.0": 12, "blocks.1": 12}, width=6)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with features_of(net, heads.names) as features:
        evaluated(net, x)
        value = heads(features)
    assert value.shape == (5,)
    torch.autograd.backward(value.sum())
    assert x.grad is not None
    assert x.grad.abs().min() > 0.0
    assert all(p.grad is None for p in net.parameters())
    assert all(p.grad is not None for p in heads.parameters())


def test_features_of_images_are_read_at_every_position() -> None:
    net = UNet(shape=(1, 8, 8), domain=Domain(), width=8, embedding_width=8, head_width=8)
    heads = FeatureHeads({"stem": 8}, width=4)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with features_of(net, heads.names) as features:
        net.velocity(x, torch.full((3,), 0.5))
    whole = heads(features)
    single = [
        heads({"stem": features["stem"][..., i : i + 1, j : j + 1]})
        for i in range(8)
        for j in range(8)
    ]
    torch.testing.assert_close(torch.stack(single).mean(0), whole)


def test_samples_of_a_critic_do_not_talk() -> None:
    head = FeatureHead(6, width=4)
    x = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(head(x)[:2], head(x[:2]))


def test_an_unknown_part_is_refused_in_one_sentence() -> None:
    refused = pytest.raises(ValueError, match=r"got \['middle'\], allowed embedding")
    with refused, features_of(mlp(), ("middle",)):
        pass


def test_other_channels_than_declared_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"declared for 5 channels, got features of shape \(2, 6\)"
    ):
        FeatureHead(5, width=4)(torch.zeros(2, 6))


@pytest.mark.parametrize(("features", "width"), [({}, 4), ({"a": 0}, 4), ({"a": 3}, 0)])
def test_heads_that_read_nothing_are_refused(features: dict[str, int], width: int) -> None:
    with pytest.raises(ValueError, match="feature heads need at least one part"):
        Adversary(features=features, width=width)


def test_weights_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"adversary\.generator must stay in \[0, inf\]"):
        Adversary(features={"a": 3}, generator=Linear(start=0.0, end=-1.0))
    with pytest.raises(ValueError, match=r"adversary\.critic must stay in"):
        Adversary(features={"a": 3}, critic=Constant(value=0.0))
