"""Flow generator matching: its gradient identity at Gaussians, its forms, and whose turn it is."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import pytest
import torch
from torch import Tensor

from onestep.methods.core.flow_map import Domain, DomainKind, Velocity
from onestep.methods.core.game import ONLINE
from onestep.methods.core.generator_form import (
    AbstractGeneratorForm,
    InverseDistillation,
    ScoreIdentity,
)
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.method import TEACHER
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.sampler import Jumps
from onestep.methods.flow_generator_matching import (
    FAKE,
    FlowGeneratorMatching,
)
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.contract import Exact
from onestep.tests.methods.exactness import ORACLE, WRONG
from onestep.tests.methods.game_contract import GameContract, Turn
from onestep.tests.methods.observed import AffineMap, ObservedMap

GAME: Final = FlowGeneratorMatching()
WITH_DATA: Final = FlowGeneratorMatching(form=InverseDistillation(alpha=0.8, beta=0.9))
EXACT: Final = ScoreIdentity(alpha=0.5)
"""The form whose gradient is that of the distance of the two flows."""

OFFSET, SCALE = 0.3, 0.9
DATA: Final = GaussianMap(mean=[1.0], std=[0.5])
MADE: Final = GaussianMap(mean=[OFFSET], std=[SCALE])
"""What the generator z -> OFFSET + SCALE z makes."""


class TestFlowGeneratorMatching(GameContract):
    players = (ONLINE, FAKE)
    through = frozenset({TEACHER})
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
    def game(self) -> FlowGeneratorMatching:
        return GAME


class TestFlowGeneratorMatchingWithRealData(GameContract):
    """Real data move the fake velocity's minimum away from the generator's flow, unless it makes
    what the data are."""

    players = (ONLINE, FAKE)
    through = frozenset({TEACHER})
    exactness = (
        (
            Turn(game=WITH_DATA, others={FAKE: ORACLE}),
            Exact(control=Turn(game=WITH_DATA, others={FAKE: WRONG})),
        ),
        (
            Turn(game=WITH_DATA, player=FAKE, others={ONLINE: ORACLE}),
            Exact(control=Turn(game=WITH_DATA, player=FAKE, others={ONLINE: WRONG})),
        ),
    )

    @pytest.fixture
    def game(self) -> FlowGeneratorMatching:
        return WITH_DATA


def moment(n: int, step: int = 0) -> Moment:
    return Moment(step=step, total=10, rng=Rng.seeded(5, step=step), batch_size=n)


Integrand = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Of x, u and t, all as rows, and of the law (offset, scale) of the generator."""


def integral(integrand: Integrand, law: Tensor) -> Tensor:
    """Mean over z, fresh noise and uniform t, by quadrature; exact in z and the noise."""
    node, weight = np.polynomial.hermite_e.hermegauss(8)
    time, share = np.polynomial.legendre.leggauss(80)
    nodes, times = torch.from_numpy(node), torch.from_numpy((time + 1.0) / 2.0)
    weights = torch.from_numpy(weight / weight.sum())
    z, x0, t = (part.reshape(-1) for part in torch.meshgrid(nodes, nodes, times, indexing="ij"))
    all_weights = torch.einsum("i,j,k->ijk", weights, weights, torch.from_numpy(share / 2.0))
    x1 = law[0] + law[1] * z
    x = (1.0 - t) * x0 + t * x1
    values = integrand(x[:, None], (x1 - x0)[:, None], t, law)
    return (all_weights.reshape(-1) * values).sum()


def gradient(integrand: Integrand) -> list[float]:
    law = torch.tensor([OFFSET, SCALE], dtype=torch.float64, requires_grad=True)
    found: list[float] = torch.autograd.grad(integral(integrand, law), law)[0].tolist()
    return found


def surrogate(form: AbstractGeneratorForm) -> Integrand:
    """A form at the generator's exact velocity, whose values carry no gradient of their own."""

    def integrand(x: Tensor, u: Tensor, t: Tensor, law: Tensor) -> Tensor:
        del law
        return form.generator(DATA.velocity(x, t), MADE.velocity(x, t), u)

    return integrand


def distance(x: Tensor, u: Tensor, t: Tensor, law: Tensor) -> Tensor:
    """|v_teacher - v_generator|^2, whose v_generator follows the law."""
    del u
    offset, scale = law
    spread = (1.0 - t) ** 2 + (scale * t) ** 2
    own = offset + ((scale**2 * t - (1.0 - t)) / spread)[:, None] * (x - t[:, None] * offset)
    return (DATA.velocity(x, t) - own).square().sum(1)


def test_the_gradient_is_that_of_the_distance_of_both_flows() -> None:
    expected = gradient(distance)
    assert expected == pytest.approx([-2.19911, 1.25664], abs=1e-5)
    for form in (EXACT, InverseDistillation(alpha=1.0, beta=1.0)):
        assert gradient(surrogate(form)) == pytest.approx(expected, abs=1e-10)


def test_the_value_is_the_distance_too() -> None:
    law = torch.tensor([OFFSET, SCALE], dtype=torch.float64)
    expected = integral(distance, law).item()
    assert expected > 0.5
    assert integral(surrogate(EXACT), law).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(1.0, (-1.57080, 0.89760)), (1.2, (-1.31947, 0.75398)), (0.0, (-2.82743, 1.61568))],
)
def test_another_share_of_the_first_part_is_another_gradient(
    alpha: float, expected: tuple[float, float]
) -> None:
    """Each half of alpha takes L_1's gradient (-0.62832, 0.35904) away once more."""
    found = gradient(surrogate(ScoreIdentity(alpha=alpha)))
    assert found == pytest.approx(expected, abs=2e-5)


def test_the_gradient_of_the_game_is_that_of_the_identity() -> None:
    """200 000 samples, 4 standard errors over 40 chunks."""
    game = FlowGeneratorMatching(form=EXACT)
    online = AffineMap(MADE, size=1)
    with torch.no_grad():
        online.offset.fill_(OFFSET)
        online.matrix.fill_(SCALE - 1.0)
    nets = Nets(online=online, frozen={TEACHER: DATA}, companions={FAKE: MADE})
    found = []
    for chunk in range(40):
        now = moment(5000, step=chunk)
        x0 = Rng.seeded(9, step=chunk).normal(5000, 1, dtype=torch.float64)
        batch = Batch(x1=torch.zeros_like(x0), x0=x0, index=torch.arange(5000))
        mean = game.loss(ONLINE, nets, batch, now).total.mean()
        offset, matrix = torch.autograd.grad(mean, [online.offset, online.matrix])
        found.append(torch.cat([offset, matrix.reshape(1)]))
    chunks = torch.stack(found)
    error = chunks.std(0) / len(chunks) ** 0.5
    assert error.max() <= 0.05
    away = (chunks.mean(0) - torch.tensor([-2.19911, 1.25664])).abs()
    assert (away <= 4.0 * error).all()


def pairs(n: int) -> Batch:
    x0, x1 = ORACLE.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


@pytest.mark.parametrize("player", [ONLINE, FAKE])
def test_the_noise_of_the_path_is_not_the_generators(player: str) -> None:
    """The gradient at these Gaussians would not tell."""
    fake = ObservedMap(WRONG)
    nets = Nets(online=ORACLE, frozen={TEACHER: ORACLE}, companions={FAKE: fake})
    batch = pairs(20_000)
    GAME.loss(player, nets, batch, moment(20_000))
    (call,) = fake.calls
    zero = torch.zeros(20_000, dtype=torch.float64)
    t = call.s[:, None]
    noise = (call.x - t * ORACLE.jump(batch.noise, zero, zero + 1.0)) / (1.0 - t)
    correlation = (noise * batch.noise).mean(0)
    assert correlation.abs().max() <= 4.0 / 20_000**0.5
    assert (noise.square().mean(0) - 1.0).abs().max() <= 4.0 * (2.0 / 20_000) ** 0.5


def test_the_fake_velocity_learns_by_flow_matching_on_what_is_made() -> None:
    """Its loss is the plain one on generated samples, with the same times and noise."""
    nets = Nets(online=WRONG, frozen={TEACHER: ORACLE}, companions={FAKE: ORACLE})
    batch = pairs(64)
    got = GAME.loss(FAKE, nets, batch, moment(64)).total
    zero = torch.zeros(64, dtype=torch.float64)
    now = moment(64)
    now.rng.uniform(64, dtype=torch.float64)  # the times, which flow matching draws first too
    plain = Batch(
        x1=WRONG.jump(batch.noise, zero, zero + 1.0),
        x0=now.rng.normal(64, 2, dtype=torch.float64),
        index=batch.index,
    )
    want = FlowMatching().loss(Nets(online=ORACLE), plain, moment(64)).total
    torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


def test_the_generator_keeps_no_graph_in_the_turn_of_the_fake_velocity() -> None:
    online = AffineMap(ORACLE, size=2)
    nets = Nets(online=online, frozen={TEACHER: ORACLE}, companions={FAKE: WRONG})
    assert GAME.loss(FAKE, nets, pairs(64), moment(64)).total.grad_fn is None
    assert GAME.loss(ONLINE, nets, pairs(64), moment(64)).total.grad_fn is not None


@pytest.mark.parametrize("alpha", [0.5, 0.94])
def test_all_forms_are_one_at_the_exact_flow(alpha: float) -> None:
    """Equal velocities leave no loss and no gradient in any of them."""
    v = Rng.seeded(1).normal(32, 2, dtype=torch.float64)
    u = Rng.seeded(2).normal(32, 2, dtype=torch.float64).requires_grad_()
    for form in (ScoreIdentity(alpha=alpha), InverseDistillation(alpha=alpha, beta=0.96)):
        loss = form.generator(v, v, u)
        assert loss.abs().max() == 0.0
        assert torch.autograd.grad(loss.sum(), u)[0].abs().max() == 0.0


def test_inverse_distillation_without_data_is_the_exact_form() -> None:
    v, w, u = (Rng.seeded(k).normal(32, 2, dtype=torch.float64) for k in (1, 2, 3))
    plain = InverseDistillation(alpha=1.0, beta=1.0)
    torch.testing.assert_close(plain.generator(v, w, u), EXACT.generator(v, w, u))
    squares = (v - u).square().sum(1) - (w - u).square().sum(1)
    torch.testing.assert_close(plain.generator(v, w, u), squares)
    assert torch.equal(plain.generated(w, u), EXACT.generated(w, u))
    assert not plain.uses_data
    other = InverseDistillation(alpha=0.9, beta=0.8).generator(v, w, u)
    assert (other - squares).abs().max() > 0.1


def test_real_data_are_seen_by_the_fake_velocity_alone() -> None:
    fake, teacher = ObservedMap(WRONG), ObservedMap(ORACLE)
    nets = Nets(online=ORACLE, frozen={TEACHER: teacher}, companions={FAKE: fake})
    batch = pairs(64)
    other = replace(batch, x1=batch.x1 + 1.0)
    for game, player, matters in (
        (WITH_DATA, FAKE, True),
        (WITH_DATA, ONLINE, False),
        (GAME, FAKE, False),
        (GAME, ONLINE, False),
    ):
        ours = game.loss(player, nets, batch, moment(64)).total
        theirs = game.loss(player, nets, other, moment(64)).total
        assert torch.equal(ours, theirs) is not matters


def test_the_teacher_rests_in_the_turn_of_the_fake_velocity() -> None:
    fake, teacher = ObservedMap(WRONG), ObservedMap(ORACLE)
    nets = Nets(online=ORACLE, frozen={TEACHER: teacher}, companions={FAKE: fake})
    GAME.loss(FAKE, nets, pairs(64), moment(64))
    assert (teacher.rows, fake.rows) == ([], [64])
    GAME.loss(ONLINE, nets, pairs(64), moment(64))
    assert (teacher.rows, fake.rows) == ([64], [64, 64])


def test_times_stay_in_the_range_of_the_teacher() -> None:
    domain = Domain(kind=DomainKind.DIAGONAL, t_lo=0.2, t_hi=0.7)
    teacher = ObservedMap(ORACLE, domain=domain)
    nets = Nets(online=ORACLE, frozen={TEACHER: teacher}, companions={FAKE: WRONG})
    GAME.loss(ONLINE, nets, pairs(256), moment(256))
    times = teacher.calls[0].s
    assert times.min() == 0.2
    assert times.max() == 0.7


def test_the_generator_moves_after_every_fifth_step_of_the_fake_velocity() -> None:
    moves = [GAME.players(moment(8, step=step)) for step in range(10)]
    assert moves == ([(FAKE,)] * 4 + [(FAKE, ONLINE)]) * 2
    assert FlowGeneratorMatching(fake_steps=1).players(moment(8)) == (FAKE, ONLINE)


def test_the_fake_velocity_starts_as_a_copy_of_its_own() -> None:
    online = AffineMap(MADE, size=1)
    fake = GAME.needs.companions[FAKE](online)
    assert isinstance(fake, Velocity)
    with torch.no_grad():
        online.offset.fill_(1.0)
    assert [bool(p.any()) for p in fake.parameters()] == [False, False]


def test_one_jump_samples_the_generator_and_two_are_refused() -> None:
    noise = Rng.seeded(1).normal(1, 16, 2, dtype=torch.float64)
    online = GaussianMap(mean=[0.7, -0.2], std=[0.3, 0.6], domain=GAME.domain)
    expected = online.mean + online.std * noise[0]
    torch.testing.assert_close(Jumps().sample(online, noise), expected, atol=1e-12, rtol=0.0)
    with pytest.raises(ValueError, match="domain tiling"):
        Jumps(grid=UniformGrid(steps=2)).sample(online, noise)


@pytest.mark.parametrize("alpha", [-0.1, 2.1])
def test_a_share_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"form\.alpha must be in \[0, 2\]"):
        ScoreIdentity(alpha=alpha)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.5), (0.5, 1.1), (1.0, 0.9), (0.9, 1.0)])
def test_shares_of_data_that_make_no_sense_are_refused(alpha: float, beta: float) -> None:
    with pytest.raises(ValueError, match=r"form\.alpha and beta"):
        InverseDistillation(alpha=alpha, beta=beta)


def test_a_game_without_a_fake_velocity_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.fake_steps must be at least 1, got 0"):
        FlowGeneratorMatching(fake_steps=0)
