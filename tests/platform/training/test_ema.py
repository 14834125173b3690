import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.platform.training.ema import MovingAverages, average_into


class Weights(FlowMap):
    """A map with two weights and no other use."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__(domain=Domain())
        self.a = nn.Parameter(torch.tensor([a], dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor([b, -b], dtype=torch.float64))

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        del s, t, condition
        return self.a * x


def set_to(net: Weights, value: float) -> None:
    with torch.no_grad():
        net.a.fill_(value)
        net.b.fill_(value)


def test_after_a_half_life_half_of_the_average_stays() -> None:
    online = Weights(1.0, 2.0)
    averages = MovingAverages(online, [64.0], ramp=1e9)
    set_to(online, 0.0)
    for step in range(8):
        averages.update(online, samples=(step + 1) * 8, batch_size=8)
    (net,) = averages.nets
    assert isinstance(net, Weights)
    assert net.a.item() == pytest.approx(0.5, rel=1e-12)
    assert net.b.tolist() == pytest.approx([1.0, -1.0], rel=1e-12)


def test_the_batch_size_does_not_change_the_law() -> None:
    found = []
    for batch_size in (1, 16):
        online = Weights(1.0, 1.0)
        averages = MovingAverages(online, [20.0], ramp=1e9)
        set_to(online, 0.0)
        for step in range(48 // batch_size):
            averages.update(online, samples=(step + 1) * batch_size, batch_size=batch_size)
        found.append(next(averages.nets[0].parameters()).item())
    assert found[0] == pytest.approx(2.0 ** (-48 / 20), rel=1e-12)
    assert found[1] == pytest.approx(found[0], rel=1e-12)


def test_an_average_follows_a_constant_drift_at_the_lag_of_its_width() -> None:
    """The closed form of a geometric series: lag = decay / (1 - decay) steps."""
    online = Weights(0.0, 0.0)
    averages = MovingAverages(online, [4.0], ramp=1e9)
    for step in range(200):
        set_to(online, step + 1.0)
        averages.update(online, samples=step + 1, batch_size=1)
    decay = 0.5**0.25
    lag = 200.0 - next(averages.nets[0].parameters()).item()
    assert lag == pytest.approx(decay / (1.0 - decay), rel=1e-9)


def test_early_averages_are_no_wider_than_the_ramp() -> None:
    averages = MovingAverages(Weights(0.0, 0.0), [1000.0], ramp=0.05)
    early = averages.decay(0, samples=100, batch_size=10)
    late = averages.decay(0, samples=100_000, batch_size=10)
    assert early == pytest.approx(0.5 ** (10 / 5))
    assert late == pytest.approx(0.5 ** (10 / 1000))
    assert averages.decay(0, samples=20_000, batch_size=10) == late


def test_several_widths_are_kept_at_once_and_come_back() -> None:
    online = Weights(1.0, 1.0)
    averages = MovingAverages(online, [10.0, 1000.0], ramp=1e9)
    set_to(online, 0.0)
    averages.update(online, samples=10, batch_size=10)
    narrow, wide = (next(net.parameters()).item() for net in averages.nets)
    assert narrow == pytest.approx(0.5)
    assert wide == pytest.approx(0.5 ** (1 / 100))
    other = MovingAverages(online, [10.0, 1000.0], ramp=1e9)
    other.load(averages.state())
    assert [next(net.parameters()).item() for net in other.nets] == [narrow, wide]


def test_averages_are_copies_without_gradients() -> None:
    online = Weights(1.0, 1.0)
    (net,) = MovingAverages(online, [10.0], ramp=1.0).nets
    set_to(online, 5.0)
    assert next(net.parameters()).item() == 1.0
    assert not any(p.requires_grad for p in net.parameters())
    assert not net.training


@pytest.mark.parametrize(("decay", "expected"), [(0.0, 3.0), (1.0, 1.0), (0.25, 2.5)])
def test_a_decay_is_the_share_that_stays(decay: float, expected: float) -> None:
    average, online = Weights(1.0, 1.0), Weights(3.0, 3.0)
    average_into(average, online, decay)
    assert average.a.item() == expected
    assert average.b.tolist() == [expected, -expected]
