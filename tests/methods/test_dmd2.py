"""DMD2: its gradient at Gaussians is that of a divergence, and what its critic may touch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, final

import pytest
import torch
from torch import Tensor

from onestep.methods.core.adversary import Adversary, ApproximateR1
from onestep.methods.core.flow_map import Domain, DomainKind, Velocity
from onestep.methods.core.game import ONLINE
from onestep.methods.core.method import TEACHER
from onestep.methods.core.path import AbstractPath, LinearPath, TrigonometricPath
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.core.score_scale import DistanceScale, UnitScale
from onestep.methods.core.time_law import AbstractTimeLaw
from onestep.methods.core.times import DiagonalTimes
from onestep.methods.core.weighting import Unweighted
from onestep.methods.dmd2 import (
    DMD2,
    FAKE,
    JudgingScore,
    denoised,
)
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.contract import Exact, SmallMap
from onestep.tests.methods.exactness import ORACLE, WRONG
from onestep.tests.methods.game_contract import GameContract, Turn
from onestep.tests.methods.observed import AffineMap, ObservedMap

GAME: Final = DMD2()
JUDGED: Final = DMD2(
    adversary=Adversary(
        features={"first": 16, "last": 2}, width=8, penalty=ApproximateR1(weight=0.1)
    )
)

OFFSET, SPREAD = 0.3, 0.9
MEAN, STD = 1.0, 0.5
DATA: Final = GaussianMap(mean=[MEAN], std=[STD])


class TestDMD2(GameContract):
    players = (ONLINE, FAKE)
    exactness = (
        (
            Turn(game=GAME, others={FAKE: ORACLE}),
            Exact(control=Turn(game=GAME, others={FAKE: WRONG})),
        ),
        (
            Turn(game=GAME, player=FAKE, others={ONLINE: WRONG}),
            Exact(at=WRONG, control=Turn(game=GAME, player=FAKE, others={ONLINE: ORACLE})),
        ),
    )

    @pytest.fixture
    def game(self) -> DMD2:
        return GAME


class TestDMD2WithACritic(GameContract):
    """No closed form: the critic's optimum is that of its own small network."""

    players = (ONLINE, FAKE)
    shapes = ((2,),)

    @pytest.fixture
    def game(self) -> DMD2:
        return JUDGED


@final
@dataclass(frozen=True, kw_only=True)
class At(AbstractTimeLaw):
    """One time."""

    time: float

    def draw(self, n: int, rng: Rng, *, dtype: torch.dtype) -> Tensor:
        del rng
        return torch.full((n,), self.time, dtype=dtype)

    def cdf(self, t: Tensor) -> Tensor:
        return (t >= self.time).to(t.dtype)


def moment(n: int, step: int = 0) -> Moment:
    return Moment(step=step, total=10, rng=Rng.seeded(5, step=step), batch_size=n)


def generator(offset: float, spread: float) -> AffineMap:
    """G(z) = offset + spread z, whose parameters are the offset and the spread less one."""
    online = AffineMap(DATA, size=1)
    with torch.no_grad():
        online.offset.fill_(offset)
        online.matrix.fill_(spread - 1.0)
    return online


def noise(n: int, step: int = 0) -> Batch:
    x0 = Rng.seeded(9, step=step).normal(n, 1, dtype=torch.float64)
    return Batch(x1=torch.zeros_like(x0), x0=x0, index=torch.arange(n))


def divergence(offset: Tensor, spread: Tensor, t: float) -> Tensor:
    """KL of what the generator makes from the data, both with noise at time t."""
    alpha, beta = 1.0 - t, t
    made = alpha**2 + (beta * spread) ** 2
    data = alpha**2 + (beta * STD) ** 2
    away = (beta * (offset - MEAN)).square()
    return 0.5 * (made / data + away / data - 1.0 - (made / data).log())


def found_gradient(game: DMD2, online: AffineMap, fake: GaussianMap) -> tuple[Tensor, Tensor]:
    """Mean gradient in offset and spread over 200 000 samples, and its standard error."""
    nets = Nets(online=online, frozen={TEACHER: DATA}, companions={FAKE: fake})
    chunks = []
    for chunk in range(40):
        loss = game.loss(ONLINE, nets, noise(5000, chunk), moment(5000, chunk))
        parts = torch.autograd.grad(loss.total.mean(), [online.offset, online.matrix])
        chunks.append(torch.cat([part.reshape(1) for part in parts]))
    found = torch.stack(chunks)
    return found.mean(0), found.std(0) / len(found) ** 0.5


@pytest.mark.parametrize("time", [0.2, 0.4, 0.8])
def test_the_gradient_is_that_of_the_divergence_with_noise(time: float) -> None:
    """d/d(offset, spread) of (alpha / beta)^2 KL, within 4 standard errors."""
    game = DMD2(times=DiagonalTimes(law=At(time=time)), scale=UnitScale())
    law = torch.tensor([OFFSET, SPREAD], dtype=torch.float64, requires_grad=True)
    weighted = ((1.0 - time) / time) ** 2 * divergence(law[0], law[1], time)
    (expected,) = torch.autograd.grad(weighted, law)
    made = GaussianMap(mean=[OFFSET], std=[SPREAD])
    mean, error = found_gradient(game, generator(OFFSET, SPREAD), made)
    assert ((mean - expected).abs() <= 4.0 * error + 1e-9).all()
    assert (expected.abs() > 10.0 * error).all(), "a sign would show"
    assert (mean * torch.tensor([1.0, -1.0]) < 0.0).all(), "a step raises the offset, not the width"


@pytest.mark.parametrize("scale", [UnitScale(), DistanceScale()])
def test_the_gradient_vanishes_at_the_true_map_and_at_no_other(
    scale: UnitScale | DistanceScale,
) -> None:
    game = DMD2(scale=scale)
    for offset, spread, vanishes in ((MEAN, STD, True), (MEAN, 0.8, False), (0.5, STD, False)):
        made = GaussianMap(mean=[offset], std=[spread])
        mean, error = found_gradient(game, generator(offset, spread), made)
        if vanishes:
            assert mean.abs().max() <= 1e-12
        else:
            assert (mean.abs() / error).max() >= 20.0


def test_a_gaussian_generator_with_its_exact_score_ends_at_the_data() -> None:
    """100 steps of gradient descent, the fake score following exactly."""
    online = generator(-1.0, 1.5)
    for step in range(100):
        spread = 1.0 + online.matrix.item()
        fake = GaussianMap(mean=[online.offset.item()], std=[spread])
        nets = Nets(online=online, frozen={TEACHER: DATA}, companions={FAKE: fake})
        loss = DMD2(scale=UnitScale()).loss(ONLINE, nets, noise(512, step), moment(512, step))
        parts = torch.autograd.grad(loss.total.mean(), [online.offset, online.matrix])
        with torch.no_grad():
            online.offset.sub_(parts[0], alpha=0.5)
            online.matrix.sub_(parts[1], alpha=0.5)
    assert online.offset.item() == pytest.approx(MEAN, abs=0.01)
    assert 1.0 + online.matrix.item() == pytest.approx(STD, abs=0.01)


def test_samples_are_denoised_as_the_card_says() -> None:
    x, t = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    data = GaussianMap(mean=[0.7], std=[0.5])
    found = denoised(LinearPath(), x, data.velocity(x, t), t)
    assert found.item() == pytest.approx(0.815609756, abs=1e-9)


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath()])
def test_the_difference_of_denoised_samples_is_that_of_the_scores(path: AbstractPath) -> None:
    """score = (beta D - x) / alpha^2, against the scores of the Gaussians themselves."""
    x = Rng.seeded(1).normal(64, 1, dtype=torch.float64)
    t = 0.05 + 0.9 * Rng.seeded(2).uniform(64, dtype=torch.float64)
    at = path.coefficients(t[:, None])

    def both(mean: float, std: float) -> tuple[Tensor, Tensor]:
        data = GaussianMap(mean=[mean], std=[std], path=path)
        spread = at.alpha**2 + (at.beta * std) ** 2
        return denoised(path, x, data.velocity(x, t), t), -(x - at.beta * mean) / spread

    ours, theirs = both(OFFSET, SPREAD), both(MEAN, STD)
    torch.testing.assert_close(
        ours[0] - theirs[0], at.alpha**2 / at.beta * (ours[1] - theirs[1]), atol=1e-12, rtol=1e-9
    )


def test_the_distance_scale_divides_by_the_error_of_the_teacher() -> None:
    made = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    teacher = torch.tensor([[0.0, 5.0], [0.0, 0.0]])
    assert DistanceScale(floor=0.1)(made, teacher).tolist() == [0.5, 10.0]
    assert UnitScale()(made, teacher).tolist() == [1.0, 1.0]


def pairs(n: int) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def test_neither_score_is_differentiated_through() -> None:
    """The gradient in G(z) is the step itself, whatever the slopes of the scores."""
    online = AffineMap(ORACLE, size=2)
    nets = Nets(online=online, frozen={TEACHER: ORACLE}, companions={FAKE: WRONG})
    batch, zero = pairs(64), torch.zeros(64, dtype=torch.float64)
    loss = replace(GAME, scale=UnitScale()).loss(ONLINE, nets, batch, moment(64))
    (found,) = torch.autograd.grad(loss.total.sum(), online.offset)
    now = moment(64)
    t = now.rng.uniform(64, dtype=torch.float64)
    x0 = now.rng.normal(64, 2, dtype=torch.float64)
    made = online.jump(batch.noise, zero, zero + 1.0).detach()
    x = (1.0 - t[:, None]) * x0 + t[:, None] * made
    step = (1.0 - t[:, None]) * (WRONG.velocity(x, t) - ORACLE.velocity(x, t))
    torch.testing.assert_close(found, step.sum(0), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(loss.total, 0.5 * step.square().sum(1), atol=1e-12, rtol=1e-9)


def judged_nets(game: DMD2) -> Nets:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        online = SmallMap(shape=(2,), domain=game.domain).double()
        fake = game.needs.companions[FAKE](online).double()
    return Nets(online=online, frozen={TEACHER: ORACLE}, companions={FAKE: fake})


def with_weight(weight: float) -> DMD2:
    assert JUDGED.adversary is not None
    return replace(JUDGED, adversary=replace(JUDGED.adversary, generator=Constant(value=weight)))


def generator_gradient(game: DMD2) -> Tensor:
    nets = judged_nets(game)
    loss = game.loss(ONLINE, nets, pairs(64), moment(64)).total.sum()
    parts = torch.autograd.grad(loss, list(nets.online.parameters()), allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


def test_a_critic_without_weight_changes_no_bit_of_the_generators_gradient() -> None:
    plain = generator_gradient(GAME)
    assert torch.equal(generator_gradient(with_weight(0.0)), plain)
    assert (generator_gradient(with_weight(1.0)) - plain).abs().max() > 1e-6


def test_the_critics_weight_scales_its_part_of_the_gradient() -> None:
    plain = generator_gradient(GAME)
    once, thrice = (generator_gradient(with_weight(w)) - plain for w in (1.0, 3.0))
    torch.testing.assert_close(thrice, 3.0 * once, atol=1e-12, rtol=1e-9)


def test_the_critic_sees_real_data_and_the_generator_none() -> None:
    batch = pairs(64)
    other = replace(batch, x1=batch.x1 + 1.0)
    plain = Nets(online=ORACLE, frozen={TEACHER: ORACLE}, companions={FAKE: WRONG})
    for game, player, nets, matters in (
        (JUDGED, FAKE, judged_nets(JUDGED), True),
        (JUDGED, ONLINE, judged_nets(JUDGED), False),
        (GAME, FAKE, plain, False),
        (GAME, ONLINE, plain, False),
    ):
        ours = game.loss(player, nets, batch, moment(64)).total
        theirs = game.loss(player, nets, other, moment(64)).total
        assert torch.equal(ours, theirs) is not matters


def test_the_critic_trains_the_fake_score_too() -> None:
    """Heads and trunk belong to one player."""
    nets = judged_nets(JUDGED)
    terms = JUDGED.loss(FAKE, nets, pairs(64), moment(64)).terms
    fake = nets.companions[FAKE]
    assert isinstance(fake, JudgingScore)
    assert isinstance(fake.velocity, Velocity)
    net = fake.velocity.net
    assert isinstance(net, SmallMap)
    through = torch.autograd.grad(terms["critic"].sum(), net.first.weight)[0]
    assert through.abs().max() > 0.0


def test_each_network_is_evaluated_once_on_generated_samples() -> None:
    fake, teacher = ObservedMap(WRONG), ObservedMap(ORACLE)
    nets = Nets(online=ORACLE, frozen={TEACHER: teacher}, companions={FAKE: fake})
    GAME.loss(FAKE, nets, pairs(64), moment(64))
    assert (teacher.rows, fake.rows) == ([], [64])
    GAME.loss(ONLINE, nets, pairs(64), moment(64))
    assert (teacher.rows, fake.rows) == ([64], [64, 64])
    assert torch.equal(teacher.calls[0].x, fake.calls[1].x)


@pytest.mark.parametrize("player", [ONLINE, FAKE])
def test_the_noise_of_the_path_is_not_the_generators(player: str) -> None:
    fake, n = ObservedMap(WRONG), 20_000
    nets = Nets(online=ORACLE, frozen={TEACHER: ORACLE}, companions={FAKE: fake})
    batch, zero = pairs(n), torch.zeros(n, dtype=torch.float64)
    GAME.loss(player, nets, batch, moment(n))
    (call,) = fake.calls
    t = call.s[:, None]
    fresh = (call.x - t * ORACLE.jump(batch.noise, zero, zero + 1.0)) / (1.0 - t)
    assert (fresh * batch.noise).mean(0).abs().max() <= 4.0 / n**0.5


def test_the_generator_keeps_no_graph_in_the_turn_of_the_fake_score() -> None:
    online = AffineMap(ORACLE, size=2)
    nets = Nets(online=online, frozen={TEACHER: ORACLE}, companions={FAKE: WRONG})
    assert GAME.loss(FAKE, nets, pairs(64), moment(64)).total.grad_fn is None


def test_the_fake_score_learns_by_weighted_flow_matching() -> None:
    """SNR + 1 / sigma_data^2 of denoised samples, with sigma_data = 1/2."""
    nets = Nets(online=ORACLE, frozen={TEACHER: ORACLE}, companions={FAKE: WRONG})
    now = moment(64)
    weighted = GAME.loss(FAKE, nets, pairs(64), moment(64)).total
    plain = replace(GAME, weighting=Unweighted()).loss(FAKE, nets, pairs(64), moment(64)).total
    t = now.rng.uniform(64, dtype=torch.float64)
    snr = (t / (1.0 - t)) ** 2
    torch.testing.assert_close(weighted, (1.0 - t) ** 2 * (snr + 4.0) * plain)


def test_times_stay_in_the_range_of_the_teacher() -> None:
    domain = Domain(kind=DomainKind.DIAGONAL, t_lo=0.2, t_hi=0.7)
    teacher = ObservedMap(ORACLE, domain=domain)
    nets = Nets(online=ORACLE, frozen={TEACHER: teacher}, companions={FAKE: WRONG})
    GAME.loss(ONLINE, nets, pairs(256), moment(256))
    assert teacher.calls[0].s.min() == 0.2
    assert teacher.calls[0].s.max() == 0.7


def test_the_generator_moves_after_every_fifth_step_of_the_fake_score() -> None:
    moves = [GAME.players(moment(8, step=step)) for step in range(10)]
    assert moves == ([(FAKE,)] * 4 + [(FAKE, ONLINE)]) * 2


Make = Callable[[], object]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: DMD2(fake_steps=0), r"method\.fake_steps must be at least 1, got 0"),
        (lambda: DistanceScale(floor=0.0), "distance scale needs a finite floor above 0, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Make, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()


def test_only_the_jump_that_is_trained_is_promised() -> None:
    assert GAME.domain.admits(0.0, 1.0)
    assert not GAME.domain.admits(0.0, 0.5)
