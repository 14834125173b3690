"""What stands in for the network of LPIPS, whose package and weights are not here."""

from torch import Tensor, nn


class Standin(nn.Module):
    """Takes what LPIPS takes, and gives what it gives: the mean of the first image."""

    def __init__(self, *, net: str, verbose: bool) -> None:
        super().__init__()
        assert (net, verbose) == ("vgg", False)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        assert x.shape == y.shape
        self.seen.append(tuple(x.shape))
        return x.mean((1, 2, 3), keepdim=True)
