"""What every network for images must satisfy beside the contract of all networks."""

from abc import ABC, abstractmethod

import pytest
import torch
from torch import Tensor

from onestep.methods.core.calculus import ForwardMode, Function, derivative_along
from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.dropout import dropout_masks, dropout_rows
from onestep.methods.core.flow_map import FlowMap
from onestep.methods.core.rng import Rng
from onestep.tests.methods.nets.contract import ROWS, wakened


class ImageNetContract(ABC):
    shape: tuple[int, ...]

    @abstractmethod
    def build(
        self,
        *,
        classes: int = 0,
        guided: bool = False,
        vocabulary: int = 0,
        dropout: float = 0.0,
    ) -> FlowMap:
        """A small network."""

    @abstractmethod
    def draw(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """State, velocity, start and end times."""

    def with_tokens(self) -> tuple[Function, Tensor, Tensor]:
        """A network of wakened weights given tokens, a state and a direction."""
        net = wakened(self.build(vocabulary=5)).double()
        x, v, s, t = self.draw()
        condition = Condition(tokens=torch.tensor([[3, 1, NULL_LABEL]]).repeat(ROWS, 1))
        return (lambda x: net(x, s, t, condition)), x, v

    def test_a_new_network_is_zero(self) -> None:
        x, _, s, t = self.draw(torch.float32)
        assert not self.build()(x, s, t).any()

    def test_points_in_the_plane_are_refused(self) -> None:
        plane = type(self)()
        plane.shape = (2,)
        with pytest.raises(ValueError, match=r"takes images .* got data of shape \(2,\)"):
            plane.build()

    def test_tokens_matter_in_their_order_and_padding_does_not(self) -> None:
        net = wakened(self.build(vocabulary=5)).double()
        x, _, s, t = self.draw()

        def u(*token: int) -> Tensor:
            return net(x, s, t, Condition(tokens=torch.tensor([token]).repeat(ROWS, 1)))

        assert (u(0, 1) - u(1, 0)).norm() > 1e-4
        assert torch.allclose(u(0, 1), u(0, 1, NULL_LABEL, NULL_LABEL), rtol=0, atol=1e-12)
        assert torch.allclose(u(NULL_LABEL, NULL_LABEL), net(x, s, t), rtol=0, atol=1e-12)

    def test_the_derivative_passes_through_attention_to_tokens(self) -> None:
        u, x, v = self.with_tokens()
        _, du_dx = derivative_along(u, (x,), (v,))
        gap = 1e-5
        difference = (u(x + gap * v) - u(x - gap * v)) / (2 * gap)
        assert (du_dx - difference).norm() < 1e-6 * difference.norm()

    def test_the_derivative_through_tokens_is_the_same_without_a_graph(self) -> None:
        u, x, v = self.with_tokens()
        got = ForwardMode().along(u, (x,), (v,))
        _, want = derivative_along(u, (x,), (v,))
        torch.testing.assert_close(got, want.detach(), atol=1e-11, rtol=1e-11)

    def test_dropout_gives_a_row_the_same_mask_in_every_evaluation(self) -> None:
        net = wakened(self.build(dropout=0.4)).double()
        x, _, s, t = self.draw()
        rows = torch.tensor([4, 1])
        with dropout_masks(Rng.seeded(0), ROWS):
            u = net(x, s, t)
            with dropout_rows(rows):
                again = net(x[rows], s[rows], t[rows])
        assert torch.allclose(u[rows], again, rtol=0, atol=1e-12)
        assert not torch.allclose(u, net.eval()(x, s, t))
