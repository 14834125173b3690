import pytest
import torch

from onestep.platform.training.peak_memory import peak_bytes

CPU = torch.device("cpu")
MIB = 1 << 20


def hold(*mebibytes: int) -> list[torch.Tensor]:
    return [torch.empty(size * MIB, dtype=torch.uint8) for size in mebibytes]


def test_what_is_held_at_once_counts_together() -> None:
    assert peak_bytes(lambda: hold(3, 5), CPU) == 8 * MIB


def test_what_has_been_released_no_longer_counts() -> None:
    def one_after_the_other() -> None:
        for size in (3, 5, 2):
            hold(size)

    assert peak_bytes(one_after_the_other, CPU) == 5 * MIB


def test_nothing_is_said_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    peak_bytes(lambda: hold(1), CPU)
    assert capfd.readouterr() == ("", "")


def test_what_was_held_before_does_not_count() -> None:
    before = hold(16)
    assert peak_bytes(lambda: before[0].add_(1), CPU) < 64, "the number that is added"


def test_a_backward_pass_needs_the_activations_of_the_forward_pass() -> None:
    """Three products of n x n keep their inputs; without a graph two matrices are enough."""
    n = 256
    weights = [torch.randn(n, n, requires_grad=True) for _ in range(3)]
    x, size = torch.randn(n, n), 4 * n * n

    def forward() -> torch.Tensor:
        y = x
        for weight in weights:
            y = y @ weight
        return y

    with torch.no_grad():
        assert peak_bytes(forward, CPU) == 2 * size
    assert peak_bytes(forward, CPU) == 3 * size
    assert peak_bytes(lambda: forward().sum().backward(), CPU) > 5 * size
    assert [weight.grad is not None for weight in weights] == [True] * 3


@pytest.mark.gpu
def test_a_gpu_counts_alike() -> None:
    device = torch.device("cuda")
    peak = peak_bytes(lambda: torch.empty(8 * MIB, dtype=torch.uint8, device=device), device)
    assert peak == 8 * MIB
