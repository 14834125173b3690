from functools import partial

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from onestep.methods.nets.norm import GroupNorm, standardised


def draw() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64) + 1.0
    v = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), v


def test_it_is_layer_norm_and_group_norm() -> None:
    x, _ = draw()
    assert torch.allclose(standardised(x), functional.layer_norm(x, (5,)))
    image = torch.randn(2, 16, 3, 3, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(GroupNorm(16)(image), functional.group_norm(image, 4), atol=1e-6)


def test_its_derivatives_in_either_mode_match_differences() -> None:
    x, _ = draw()
    assert gradcheck(standardised, (x,), check_forward_ad=True)
    assert gradgradcheck(standardised, (x,), check_fwd_over_rev=True)


def test_the_gradient_of_its_forward_derivative_matches_differences() -> None:
    x, v = draw()
    assert gradcheck(lambda x: torch.func.jvp(standardised, (x,), (v,))[1] ** 2, (x,))


def test_its_derivative_is_the_same_with_and_without_a_graph() -> None:
    x, v = draw()
    _, with_graph = torch.func.jvp(standardised, (x,), (v,))
    with torch.no_grad():
        _, without = torch.func.jvp(standardised, (x,), (v,))
    assert torch.allclose(with_graph, without, rtol=0, atol=1e-13)


def test_another_epsilon_is_that_of_its_derivatives_too() -> None:
    x, v = draw()
    at = 0.1 * x.detach().requires_grad_()
    weak = partial(standardised, eps=0.1)
    assert torch.allclose(weak(at), functional.layer_norm(at, (5,), eps=0.1))
    assert gradcheck(weak, (at,), check_forward_ad=True)
    assert gradcheck(lambda x: torch.func.jvp(weak, (x,), (v,))[1] ** 2, (at,))
    with torch.no_grad():
        _, without = torch.func.jvp(weak, (at,), (v,))
    assert torch.allclose(torch.func.jvp(weak, (at,), (v,))[1], without, rtol=0, atol=1e-13)


def test_half_precision_is_normalised_in_single() -> None:
    x, _ = draw()
    assert standardised(x.bfloat16()).dtype == torch.float32
