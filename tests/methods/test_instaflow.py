"""InstaFlow: its terms and turns, its exact students, and what it shares with rectified flows."""

from dataclasses import dataclass, replace
from typing import Final, final

import pytest
import torch
from torch import Tensor

from onestep.methods.core.adversary import Adversary, ApproximateR1
from onestep.methods.core.coupling import IndependentCoupling
from onestep.methods.core.distance import PseudoHuber
from onestep.methods.core.feature_distance import FeatureDistance
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap, Velocity
from onestep.methods.core.game import ONLINE
from onestep.methods.core.method import TEACHER
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Piecewise
from onestep.methods.core.time_law import AbstractTimeLaw
from onestep.methods.core.times import DiagonalTimes
from onestep.methods.instaflow import CRITIC, InstaFlow
from onestep.methods.oracle import GaussianMap
from onestep.methods.reflow import ReFlow
from onestep.tests.methods.contract import Elsewhere, Exact, SmallMap
from onestep.tests.methods.exactness import Setting
from onestep.tests.methods.game_contract import GameContract, Turn
from onestep.tests.methods.observed import AffineMap, ObservedMap

MEAN, STD = (0.7, -0.2), (0.3, 0.6)
RHO = 0.5
DATA: Final = GaussianMap(mean=MEAN, std=STD, rho=1.0)
"""The flow of pairs (x0, m + c x0), and the student that distils them."""
LOOSE: Final = GaussianMap(mean=MEAN, std=STD, rho=RHO)
"""Pairs that do not decide the data of their noise."""
BLURRED: Final = GaussianMap(mean=MEAN, std=[RHO * c for c in STD], rho=1.0)
"""E[x1 | x0] of loose pairs: m + rho c x0."""
PLAIN: Final = InstaFlow()
PERCEIVED: Final = InstaFlow(perception=FeatureDistance(features=("first", "last"), time=0.7))
JUDGED: Final = replace(
    PERCEIVED,
    adversary=Adversary(
        features={"first": 16},
        width=8,
        penalty=ApproximateR1(weight=0.1),
        generator=Constant(value=0.3),
    ),
)


def small(domain: Domain | None = None, seed: int = 0) -> SmallMap:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SmallMap(shape=(2,), domain=Domain() if domain is None else domain).double()


PAIRED: Final = Setting(data=DATA, frozen={TEACHER: small(seed=1)})


class TestInstaFlow(GameContract):
    """The student of pairs that decide the data is exact; of others it is their mean."""

    players = (ONLINE,)
    exactness = (
        (Turn(game=PLAIN), Exact(setting=PAIRED)),
        (Turn(game=replace(PLAIN, distance=PseudoHuber())), Exact(setting=PAIRED)),
        (Turn(game=PLAIN), Elsewhere(minimiser=BLURRED, setting=Setting(data=LOOSE))),
    )

    @pytest.fixture
    def game(self) -> InstaFlow:
        return PLAIN


class TestInstaFlowWithFeatures(GameContract):
    players = (ONLINE,)
    through = frozenset({TEACHER})
    exactness = ((Turn(game=PERCEIVED), Exact(setting=PAIRED)),)

    @pytest.fixture
    def game(self) -> InstaFlow:
        return PERCEIVED


class TestInstaFlowWithACritic(GameContract):
    """No closed form: the critic's optimum is that of its own small network."""

    players = (ONLINE, CRITIC)
    through = frozenset({TEACHER})

    @pytest.fixture
    def game(self) -> InstaFlow:
        return JUDGED


def moment(n: int, step: int = 5) -> Moment:
    return Moment(step=step, total=10, rng=Rng.seeded(5), batch_size=n)


def pairs(n: int, data: GaussianMap = DATA) -> Batch:
    x0, x1 = data.draw(n, rng=Rng.seeded(1))
    return Batch(x0=x0, x1=x1, index=torch.arange(n))


def nets_of(game: InstaFlow, teacher: FlowMap | None = None) -> Nets:
    online = small(game.domain)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        companions = {name: make(online).double() for name, make in game.needs.companions.items()}
    frozen = {TEACHER: small(seed=1) if teacher is None else teacher}
    return Nets(online=online, frozen=frozen, companions=companions)


def loss(game: InstaFlow, nets: Nets, player: str = ONLINE, step: int = 5) -> Loss:
    return game.loss(player, nets, pairs(64), moment(64, step))


def gradient(game: InstaFlow, step: int = 5) -> Tensor:
    nets = nets_of(game)
    parts = torch.autograd.grad(
        loss(game, nets, step=step).total.sum(),
        list(nets.online.parameters()),
        allow_unused=True,
    )
    return torch.cat([part.flatten() for part in parts if part is not None])


def with_weight(value: float) -> InstaFlow:
    assert JUDGED.adversary is not None
    return replace(JUDGED, adversary=replace(JUDGED.adversary, generator=Constant(value=value)))


# The equalities of its card.


@final
@dataclass(frozen=True, kw_only=True)
class AtNoise(AbstractTimeLaw):
    """t = 0 always."""

    def draw(self, n: int, rng: Rng, *, dtype: torch.dtype) -> Tensor:
        del rng
        return torch.zeros(n, dtype=dtype)

    def cdf(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@pytest.mark.parametrize("distance", [PLAIN.distance, PseudoHuber()])
def test_it_is_reflow_at_pure_noise(distance: PseudoHuber) -> None:
    """X(0, 1)(x0) - x1 = v(x0, 0) - (x1 - x0): the one step of a rectified flow, distilled."""
    online = small()
    nets = Nets(online=Velocity(online))
    other = ReFlow(times=DiagonalTimes(law=AtNoise()), distance=distance)
    ours = loss(replace(PLAIN, distance=distance), nets).total
    theirs = other.loss(nets, pairs(64), moment(64)).total
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    parameters = [online.first.weight, online.last.weight]
    for one, another in zip(
        torch.autograd.grad(ours.sum(), parameters),
        torch.autograd.grad(theirs.sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, another, atol=1e-12, rtol=1e-12)


def test_a_linear_student_ends_at_the_map_of_its_teacher() -> None:
    """m + c x0, by gradient descent on 2048 pairs."""
    online, batch = AffineMap(DATA, size=2), pairs(2048)
    for _ in range(300):
        total = PLAIN.loss(ONLINE, Nets(online=online), batch, moment(2048, 0)).total.mean()
        parts = torch.autograd.grad(total, [online.matrix, online.offset])
        with torch.no_grad():
            online.matrix.sub_(parts[0], alpha=0.3)
            online.offset.sub_(parts[1], alpha=0.3)
    wanted = torch.diag(torch.tensor(STD, dtype=torch.float64)) - torch.eye(2).double()
    torch.testing.assert_close(online.matrix.detach(), wanted, atol=1e-9, rtol=0.0)
    mean = torch.tensor(MEAN, dtype=torch.float64)
    torch.testing.assert_close(online.offset.detach(), mean, atol=1e-9, rtol=0.0)


# Terms and their weights.


def test_a_critic_without_weight_changes_no_bit_of_the_students_loss_or_gradient() -> None:
    silent = with_weight(0.0)
    plain, judged = loss(PERCEIVED, nets_of(PERCEIVED)), loss(silent, nets_of(silent))
    assert plain.terms.keys() == judged.terms.keys() == {"reconstruction", "perceptual"}
    for name, term in plain.terms.items():
        assert torch.equal(judged.terms[name], term)
    assert torch.equal(gradient(silent), gradient(PERCEIVED))
    assert (gradient(JUDGED) - gradient(PERCEIVED)).abs().max() > 1e-6


def test_features_without_weight_change_no_bit_either() -> None:
    silent = replace(PERCEIVED, perceptual=Constant(value=0.0))
    assert torch.equal(gradient(silent), gradient(PLAIN))
    assert (gradient(PERCEIVED) - gradient(PLAIN)).abs().max() > 1e-6


def test_the_weights_scale_their_terms() -> None:
    def part(game: InstaFlow, name: str) -> Tensor:
        return loss(game, nets_of(game)).terms[name]

    three = Constant(value=3.0)
    for name, heavy in (
        ("reconstruction", replace(JUDGED, reconstruction=three)),
        ("perceptual", replace(JUDGED, perceptual=three)),
        ("adversarial", with_weight(0.9)),
    ):
        torch.testing.assert_close(part(heavy, name), 3.0 * part(JUDGED, name))


def test_a_curriculum_brings_the_critic_in_after_a_quarter() -> None:
    assert JUDGED.adversary is not None
    late = replace(
        JUDGED,
        adversary=replace(
            JUDGED.adversary, generator=Piecewise(values=(0.0, 0.3), boundaries=(0.25,))
        ),
    )
    found = [("adversarial" in loss(late, nets_of(late), step=step).terms) for step in range(10)]
    assert found == [False] * 3 + [True] * 7
    assert torch.equal(gradient(late, step=2), gradient(PERCEIVED, step=2))
    moves = [late.players(moment(8, step)) for step in range(10)]
    assert moves == [(ONLINE,)] * 2 + [(ONLINE, CRITIC)] * 8
    stands = [late.switches["critic_begins"].positions(moment(8, step)) for step in range(10)]
    assert [one.share for (one,) in stands] == [0.0] * 2 + [1.0] * 8
    assert replace(late, adversary=None).switches == {}


def test_another_distance_may_stand_beside_the_first() -> None:
    """As LPIPS does, which needs no network of ours."""
    both = replace(PLAIN, perception=PseudoHuber(), perceptual=Constant(value=3.0))
    terms, alone = loss(both, nets_of(both)).terms, replace(PLAIN, distance=PseudoHuber())
    expected = 3.0 * loss(alone, nets_of(alone)).terms["reconstruction"]
    torch.testing.assert_close(terms["perceptual"], expected)
    assert torch.equal(terms["reconstruction"], loss(PLAIN, nets_of(PLAIN)).terms["reconstruction"])


# What each turn touches.


def test_each_network_is_evaluated_no_more_than_its_term_needs() -> None:
    for game, player, rows in (
        (PLAIN, ONLINE, 0),
        (with_weight(0.0), ONLINE, 2),
        (JUDGED, ONLINE, 3),
        (JUDGED, CRITIC, 3),
    ):
        teacher = ObservedMap(small(seed=1))
        game = with_observed_names(game)
        loss(game, nets_of(game, teacher), player)
        assert teacher.rows == [64] * rows


def with_observed_names(game: InstaFlow) -> InstaFlow:
    """The same game, reading the parts of a map inside an ``ObservedMap``."""
    if isinstance(game.perception, FeatureDistance):
        names = tuple(f"flow_map.{name}" for name in game.perception.features)
        game = replace(game, perception=replace(game.perception, features=names))
    if game.adversary is not None:
        features = {f"flow_map.{name}": size for name, size in game.adversary.features.items()}
        game = replace(game, adversary=replace(game.adversary, features=features))
    return game


def test_the_critic_sees_the_pairs_and_keeps_no_graph_of_student_and_teacher() -> None:
    nets = nets_of(JUDGED)
    first = loss(JUDGED, nets, CRITIC).total
    other = replace(pairs(64), x1=pairs(64).x1 + 1.0)
    assert not torch.equal(JUDGED.loss(CRITIC, nets, other, moment(64)).total, first)
    held = [*nets.online.parameters(), *nets.frozen[TEACHER].parameters()]
    assert all(part is None for part in torch.autograd.grad(first.sum(), held, allow_unused=True))


def test_the_critic_reads_within_the_range_of_the_teacher() -> None:
    domain = Domain(kind=DomainKind.DIAGONAL, t_lo=0.2, t_hi=0.7)
    teacher = ObservedMap(small(seed=1), domain=domain)
    game = with_observed_names(JUDGED)
    loss(game, nets_of(game, teacher), CRITIC)
    times = torch.cat([call.s for call in teacher.calls])
    assert (times.min(), times.max()) == (0.2, 0.7)


def test_the_teacher_is_asked_for_only_where_it_is_read() -> None:
    assert not PLAIN.needs.frozen
    assert not replace(PLAIN, perception=PseudoHuber()).needs.frozen
    assert PLAIN.needs.pairs is not None
    assert set(PERCEIVED.needs.frozen) == set(JUDGED.needs.frozen) == {TEACHER}
    assert PLAIN.domain == Domain(kind=DomainKind.TILING, steps=1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"coupling": IndependentCoupling()}, "trains on StoredPairs, got coupling Independent"),
        ({"reconstruction": Constant(value=-1.0)}, r"reconstruction must stay in \[0, inf\]"),
        ({"perceptual": Constant(value=-1.0)}, r"method\.perceptual must stay in \[0, inf\]"),
        ({"critic_begins": 1.0}, r"method\.critic_begins must be in \[0, 1\), got 1"),
        ({"generated": Constant(value=2.0)}, "share of generated pairs"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        InstaFlow(**values)  # type: ignore[arg-type]
