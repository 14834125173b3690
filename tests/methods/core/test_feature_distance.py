"""Feature distances: their closed form, what they look through, and where gradients run."""

from typing import Final

import pytest
import torch
from torch import Tensor, nn

from onestep.methods.core.condition import Condition
from onestep.methods.core.feature_distance import FeatureDistance
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.record import Moment
from onestep.methods.core.rng import Rng
from onestep.methods.nets.dit import DiT
from onestep.methods.nets.unet import UNet
from onestep.tests.methods.observed import ObservedMap

DOMAIN: Final = Domain()


class Linear(FlowMap):
    """A map with one part, whose features are linear in the state."""

    def __init__(self, weight: Tensor, *, domain: Domain = DOMAIN) -> None:
        super().__init__(domain=domain)
        self.part = nn.Linear(*weight.T.shape, bias=False).double()
        with torch.no_grad():
            self.part.weight.copy_(weight)

    def forward(
        self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None = None
    ) -> Tensor:
        self.part(x)
        return x


WEIGHT: Final = torch.tensor([[1.0, 2.0], [-0.5, 1.0], [0.3, 0.0]], dtype=torch.float64)
NET: Final = Linear(WEIGHT)
DISTANCE: Final = FeatureDistance(features=("part",))


def now() -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(3))


def samples(n: int = 16, *shape: int) -> tuple[Tensor, Tensor]:
    rng = Rng.seeded(1)
    x, y = (rng.normal(n, *(shape or (2,)), dtype=torch.float64) for _ in range(2))
    return x, y


def test_it_is_the_distance_of_features_on_the_sphere() -> None:
    """2 - 2 cos of the angle between both."""
    x, y = samples()
    f, g = x @ WEIGHT.T, y @ WEIGHT.T
    cosine = (f * g).sum(1) / (f.norm(dim=1) * g.norm(dim=1))
    found = DISTANCE(NET, x, y, None, now())
    torch.testing.assert_close(found, 2.0 - 2.0 * cosine, atol=1e-8, rtol=1e-8)


def test_equal_samples_and_only_such_have_distance_zero() -> None:
    x, y = samples()
    assert not DISTANCE(NET, x, x, None, now()).any()
    found = DISTANCE(NET, x, y, None, now())
    assert (found > 1e-6).all()
    torch.testing.assert_close(DISTANCE(NET, y, x, None, now()), found)


def test_the_length_of_features_does_not_matter() -> None:
    x, y = samples()
    found = DISTANCE(Linear(5.0 * WEIGHT), x, y, None, now())
    torch.testing.assert_close(found, DISTANCE(NET, x, y, None, now()), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(
    ("net", "parts"),
    [
        (UNet(shape=(1, 8, 8), domain=DOMAIN, width=16, multipliers=(1, 2)), ("stem",)),
        (DiT(shape=(1, 8, 8), domain=DOMAIN, width=32, depth=2, head_width=16), ("blocks.1",)),
    ],
)
def test_images_are_compared_at_every_place(net: FlowMap, parts: tuple[str, ...]) -> None:
    """One number for each sample, whatever the network; samples do not talk."""
    distance = FeatureDistance(features=parts)
    net = net.double()
    x, y = samples(4, 1, 8, 8)
    found = distance(net, x, y, None, now())
    assert found.shape == (4,)
    assert (found > 0.0).all()
    alone = distance(net, x[:1], y[:1], None, now())
    torch.testing.assert_close(alone, found[:1], atol=1e-12, rtol=1e-12)
    assert (found <= 4.0).all(), "a mean over places of at most four each"


def test_parts_add_up() -> None:
    net = DiT(shape=(1, 8, 8), domain=DOMAIN, width=32, depth=2, head_width=16).double()
    x, y = samples(4, 1, 8, 8)
    one, other, both = (
        FeatureDistance(features=names)(net, x, y, None, now())
        for names in (("stem",), ("blocks.0",), ("stem", "blocks.0"))
    )
    torch.testing.assert_close(both, one + other)


def test_the_gradient_runs_to_the_first_sample_alone() -> None:
    x, y = (part.requires_grad_() for part in samples())
    net = Linear(WEIGHT)
    net.requires_grad_(False)
    found = DISTANCE(net, x, y, None, now()).sum()
    gradients = torch.autograd.grad(found, [x, y], allow_unused=True)
    assert gradients[0].abs().max() > 0.0
    assert gradients[1] is None


def test_both_are_seen_through_the_same_noise_at_the_same_time() -> None:
    x, y = samples()
    observed = ObservedMap(NET)
    distance = FeatureDistance(features=("flow_map.part",), time=0.6)
    distance(observed, x, y, None, now())
    ours, theirs = observed.calls
    assert (ours.s == 0.6).all()
    assert (theirs.s == 0.6).all()
    torch.testing.assert_close(ours.x - theirs.x, 0.6 * (x - y))
    noise = (ours.x - 0.6 * x) / 0.4
    assert noise.std() > 0.5
    assert torch.equal(distance(observed, x, y, None, now()), distance(observed, x, y, None, now()))


def test_the_network_is_asked_within_its_range() -> None:
    x, y = samples()
    for domain, time in ((Domain(t_hi=0.9), 0.9), (Domain(t_lo=0.8), 0.8)):
        observed = ObservedMap(NET, domain=domain)
        wanted = 1.0 if time == 0.9 else 0.5
        FeatureDistance(features=("flow_map.part",), time=wanted)(observed, x, y, None, now())
        assert (observed.calls[0].s == time).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"features": ()}, "needs at least one part of a network, got none"),
        ({"features": ("a",), "time": 0.0}, r"needs a time in \(0, 1\], got 0"),
        ({"features": ("a",), "time": 1.5}, r"needs a time in \(0, 1\], got 1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FeatureDistance(**values)  # type: ignore[arg-type]


def test_a_part_that_does_not_exist_is_refused() -> None:
    x, y = samples()
    with pytest.raises(ValueError, match=r"features name no part of the network: got .'blocks\.9'"):
        FeatureDistance(features=("blocks.9",))(NET, x, y, None, now())
