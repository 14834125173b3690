from functools import partial

import pytest
import torch

from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.nets.mlp import MLP
from onestep.methods.nets.preconditioning import Preconditioned
from onestep.tests.methods.nets.contract import NetContract, randomised, wakened


class TestPreconditionedMLP(NetContract):
    shape = (2,)

    def build(self, *, classes: int = 0, guided: bool = False) -> FlowMap:
        return Preconditioned(
            shape=self.shape,
            classes=classes,
            domain=Domain(t_lo=0.1),
            net=partial(MLP, guided=guided, width=32),
        )

    def test_a_net_trained_on_the_diagonal_ignores_the_end_time(self) -> None:
        net = randomised(self.build())
        assert isinstance(net, Preconditioned)
        x, v, s, t = self.draw(torch.float32)
        (net.velocity(x, s) - v).square().mean().backward()
        torch.optim.Adam(net.parameters(), lr=1e-2).step()
        assert torch.equal(net.net(x, s, t), net.net.velocity(x, s))
        assert not torch.allclose(net(x, s, t), net.velocity(x, s))


def new(sigma_data: float) -> Preconditioned:
    torch.manual_seed(0)
    net = Preconditioned(
        shape=(2,), domain=Domain(), net=partial(MLP, width=16), sigma_data=sigma_data
    )
    return net.double()


def triangle() -> tuple[torch.Tensor, torch.Tensor]:
    grid = torch.linspace(0, 1, 9, dtype=torch.float64)
    s, t = torch.cartesian_prod(grid, grid).unbind(1)
    return s[s <= t], t[s <= t]


@pytest.mark.parametrize("sigma_data", [0.3, 0.5, 1.0, 2.0])
def test_a_new_network_is_the_exact_map_of_centred_gaussian_data(sigma_data: float) -> None:
    s, t = triangle()
    x = torch.randn(len(s), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    std_s = ((1 - s) ** 2 + (sigma_data * s) ** 2).sqrt()
    std_t = ((1 - t) ** 2 + (sigma_data * t) ** 2).sqrt()
    exact = (std_t / std_s)[:, None] * x
    assert torch.allclose(new(sigma_data).jump(x, s, t), exact, rtol=0, atol=1e-13)


def test_its_velocity_is_that_of_edm() -> None:
    net = wakened(new(0.5))
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    x = torch.randn(11, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    variance = ((1 - t) ** 2 + 0.25 * t**2)[:, None]
    residual = net.net(x / variance.sqrt(), t, t)
    skip = (0.25 * t - (1 - t))[:, None] / variance
    edm = skip * x + 0.5 / variance.sqrt() * residual
    assert torch.allclose(net.velocity(x, t), edm, rtol=0, atol=1e-13)


def test_its_velocity_keeps_the_digits_that_the_denoiser_loses_near_the_data() -> None:
    """T4: (D - x) / (1 - t) with EDM's D, in noise levels, is the same but for rounding."""
    net, sd = wakened(new(0.5)), 0.5
    t = torch.linspace(0.05, 0.998, 12, dtype=torch.float64)
    x = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def by_denoiser(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        at = t[:, None]
        noisy, sigma = x / at, (1.0 - at) / at
        spread = (sigma**2 + sd**2).sqrt()
        raw = net.net(noisy / spread, t, t)
        data = sd**2 / spread**2 * noisy + sigma * sd / spread * raw
        return (data - x) / (1.0 - at)

    exact = net.velocity(x, t)
    torch.testing.assert_close(by_denoiser(x, t), exact, atol=1e-11, rtol=1e-11)
    net = net.float()
    x, t = x[-1:].expand(12, 2).float(), torch.full((12,), 0.998)
    x = x * torch.linspace(0.5, 1.5, 12)[:, None]
    exact = net.double().velocity(x.double(), t.double())
    net = net.float()
    ours, theirs = (
        (v.double() - exact).abs().max() for v in (net.velocity(x, t), by_denoiser(x, t))
    )
    assert ours <= 1e-5
    assert theirs >= 20.0 * ours


def test_its_jump_to_data_scales_the_network_as_edm_does() -> None:
    plain, net = new(0.5), wakened(new(0.5))
    s = torch.linspace(0, 1, 11, dtype=torch.float64)
    x = torch.randn(11, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    end = torch.ones_like(s)
    std = ((1 - s) ** 2 + 0.25 * s**2).sqrt()[:, None]
    carried = 0.5 * (1 - s)[:, None] / std * net.net(x / std, s, end)
    assert torch.allclose(net.jump(x, s, end), plain.jump(x, s, end) + carried, rtol=0, atol=1e-13)


def test_a_standard_deviation_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sigma_data must be positive and finite, got 0.0"):
        new(0.0)
