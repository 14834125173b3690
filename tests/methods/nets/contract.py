"""What every network must satisfy; a test of a network inherits it and says how to build it."""

from abc import ABC, abstractmethod
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from onestep.methods.core.calculus import ForwardMode, Function, derivative_along
from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.nets.embedding import Embedding
from onestep.methods.nets.time_embedding import VanishingLinear

ROWS = 6
LABEL = torch.tensor([0, 1, 2, NULL_LABEL, 0, 1])

Points = tuple[Tensor, Tensor, Tensor]


def randomised(net: FlowMap) -> FlowMap:
    """The network with noise on all weights but those that keep it independent of t."""
    generator = torch.Generator().manual_seed(3)
    still = {
        id(layer.linear.weight) for layer in net.modules() if isinstance(layer, VanishingLinear)
    }
    with torch.no_grad():
        for weight in net.parameters():
            if id(weight) not in still:
                noise = torch.randn(weight.shape, generator=generator).to(weight.dtype)
                weight += 0.3 * noise / max(1, weight[0].numel()) ** 0.5
    return net


def wakened(net: FlowMap) -> FlowMap:
    """The randomised network, with a dependence on t and on guidance too."""
    randomised(net)
    for layer in net.modules():
        if isinstance(layer, VanishingLinear):
            torch.nn.init.normal_(
                layer.linear.weight, std=0.2, generator=torch.Generator().manual_seed(4)
            )
    return net


class AnyNetContract(ABC):
    """What holds of a network that need not be told the end time or a guidance scale."""

    shape: tuple[int, ...]

    @pytest.fixture(autouse=True)
    def _seeded(self) -> None:
        torch.manual_seed(0)

    @abstractmethod
    def build(self, *, classes: int = 0) -> FlowMap:
        """A small network."""

    @abstractmethod
    def conditioned(self) -> tuple[FlowMap, Condition]:
        """A small network that takes all that it can be told, and that for each row."""

    def draw(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(5)
        x = torch.randn(ROWS, *self.shape, generator=generator, dtype=dtype)
        v = torch.randn(ROWS, *self.shape, generator=generator, dtype=dtype)
        s = torch.rand(ROWS, generator=generator, dtype=dtype)
        t = s + (1 - s) * torch.rand(ROWS, generator=generator, dtype=dtype)
        return x, v, s, t

    def along_the_path(self) -> tuple[Function, Points, Points]:
        """A network of wakened weights told all it can be, a point and the path's direction."""
        net, condition = self.conditioned()
        wakened(net).double()
        x, v, s, t = self.draw()
        tangent = (v, torch.ones_like(s), torch.zeros_like(t))
        return (lambda x, s, t: net(x, s, t, condition)), (x, s, t), tangent

    def test_the_derivative_along_the_path_matches_differences(self) -> None:
        u, at, tangent = self.along_the_path()
        _, du_ds = derivative_along(u, at, tangent)
        gap = 1e-5
        ahead, behind = (
            u(*(x + step * w for x, w in zip(at, tangent, strict=True))) for step in (gap, -gap)
        )
        difference = (ahead - behind) / (2 * gap)
        assert (du_ds - difference).norm() < 1e-6 * difference.norm()

    def test_the_derivative_in_single_precision_is_that_in_double(self) -> None:
        net = wakened(self.build())
        found = []
        for dtype in (torch.float32, torch.float64):
            x, v, s, t = (part.to(dtype) for part in self.draw())
            at, tangent = (x, s, t), (v, torch.ones_like(s), torch.zeros_like(t))
            found.append(ForwardMode().along(net.to(dtype), at, tangent).double())
        single, double = found
        assert (single - double).norm() < 1e-3 * double.norm()

    def test_the_derivative_without_a_graph_is_that_with_one(self) -> None:
        """Layers of ours take the value and the tangent of a dual number apart, without a graph."""
        u, at, tangent = self.along_the_path()
        got = ForwardMode().along(u, at, tangent)
        _, want = derivative_along(u, at, tangent)
        torch.testing.assert_close(got, want.detach(), atol=1e-11, rtol=1e-11)

    def test_the_gradient_of_the_derivative_matches_differences(self) -> None:
        net = wakened(self.build()).double()
        x, v, s, t = self.draw()

        def derivative() -> Tensor:
            tangents = (v, torch.ones_like(s), torch.zeros_like(t))
            return derivative_along(net, (x, s, t), tangents)[1].square().mean()

        weights = list(net.parameters())
        gradients = torch.autograd.grad(derivative(), weights, materialize_grads=True)
        step = [g / g.norm().clamp_min(1e-30) for g in gradients]
        slope = sum((g * d).sum() for g, d in zip(gradients, step, strict=True))
        values = []
        for sign in (1.0, -2.0):
            with torch.no_grad():
                for weight, direction in zip(weights, step, strict=True):
                    weight += sign * 1e-5 * direction
            values.append(derivative().detach())
        assert torch.isclose(slope, (values[0] - values[1]) / 2e-5, rtol=1e-5)

    def test_gradients_under_autocast_are_finite(self) -> None:
        net = wakened(self.build(classes=3))
        x, v, s, t = self.draw(torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            u = net(x, s, t)
        (u.float() - v).square().mean().backward()
        assert all(w.grad is not None and w.grad.isfinite().all() for w in net.parameters())

    def test_samples_do_not_talk(self) -> None:
        net = wakened(self.build()).double()
        x, _, s, t = self.draw()
        changed = x.clone()
        changed[0] += 1.0
        before, after = net(x, s, t), net(changed, s, t)
        assert torch.allclose(before[1:], after[1:], rtol=0, atol=1e-12)
        assert not torch.allclose(before[0], after[0])

    def test_no_label_is_the_null_label_and_labels_matter(self) -> None:
        net = wakened(self.build(classes=3))
        x, _, s, t = self.draw(torch.float32)
        label = torch.tensor([0, 1, 2, 0, 1, 2])
        with_label = net(x, s, t, Condition(label=label))
        null = net(x, s, t, Condition(label=label).null())
        assert torch.allclose(null, net(x, s, t), rtol=0, atol=1e-6)
        assert (with_label - null).flatten(1).norm(dim=1).min() > 1e-3

    def test_it_refuses_a_condition_that_it_would_ignore(self) -> None:
        net = self.build()
        x, _, s, t = self.draw(torch.float32)
        with pytest.raises(ValueError, match="takes no class labels"):
            net(x, s, t, Condition(label=torch.zeros(ROWS, dtype=torch.int64)))
        with pytest.raises(ValueError, match="takes no guidance scale"):
            net(x, s, t, Condition(guidance=torch.ones(ROWS)))
        with pytest.raises(ValueError, match="takes no tokens"):
            net(x, s, t, Condition(tokens=torch.zeros(ROWS, 2, dtype=torch.int64)))

    def test_it_runs_on_other_weights_and_keeps_no_state(self) -> None:
        net = wakened(self.build())
        other = {name: 0.9 * weight.detach() for name, weight in net.named_parameters()}
        before = deepcopy(net.state_dict())
        x, _, s, t = self.draw(torch.float32)
        u = torch.func.functional_call(net, other, (x, s, t))
        assert not torch.allclose(u, net(x, s, t))
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
        net.load_state_dict({**before, **other})
        assert torch.equal(u, net(x, s, t))

    def test_it_keeps_its_domain(self) -> None:
        assert self.build().domain == Domain(t_lo=0.1)


class NetContract(AnyNetContract):
    """What holds of a network of two times that can be guided."""

    @abstractmethod
    def build(self, *, classes: int = 0, guided: bool = False) -> FlowMap:
        """A small network."""

    def conditioned(self) -> tuple[FlowMap, Condition]:
        return self.build(classes=3, guided=True), Condition(
            label=LABEL, guidance=torch.linspace(1.0, 4.0, ROWS, dtype=torch.float64)
        )

    def test_a_net_trained_on_the_diagonal_ignores_the_end_time(self) -> None:
        net = randomised(self.build())
        x, v, s, t = self.draw(torch.float32)
        (length,) = (m for m in net.modules() if isinstance(m, VanishingLinear))
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            (net.velocity(x, s) - v).square().mean().backward()
            assert length.linear.weight.grad is not None
            assert not length.linear.weight.grad.any()
            optimizer.step()
        assert torch.equal(net(x, s, t), net.velocity(x, s))

    def test_rows_off_the_diagonal_teach_it_the_end_time(self) -> None:
        net = randomised(self.build())
        x, v, s, t = self.draw(torch.float32)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        (net(x, s, t) - v).square().mean().backward()
        optimizer.step()
        assert (net(x, s, t) - net.velocity(x, s)).abs().max() > 1e-4

    def test_autocast_is_finite_and_leaves_the_times_alone(self) -> None:
        net = wakened(self.build(classes=3))
        x, _, s, t = self.draw(torch.float32)
        (embedding,) = (m for m in net.modules() if isinstance(m, Embedding))
        exact = embedding(s, t - s, None)
        with torch.autocast("cpu", torch.bfloat16):
            u = net(x, s, t)
            assert torch.equal(embedding(s, t - s, None), exact)
        assert u.isfinite().all()
        reference = net(x, s, t)
        assert (u - reference).norm() < 0.05 * reference.norm()

    def test_guidance_of_one_is_no_guidance(self) -> None:
        net = wakened(self.build(guided=True))
        x, _, s, t = self.draw(torch.float32)
        plain = net(x, s, t)
        assert torch.equal(net(x, s, t, Condition(guidance=torch.ones(ROWS))), plain)
        assert not torch.allclose(net(x, s, t, Condition(guidance=torch.full((ROWS,), 2.0))), plain)
