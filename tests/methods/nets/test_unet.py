import pytest
import torch

from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.nets.unet import UNet
from onestep.tests.methods.nets.contract import NetContract
from onestep.tests.methods.nets.image_contract import ImageNetContract


class TestUNet(NetContract, ImageNetContract):
    shape = (1, 8, 8)

    def build(
        self,
        *,
        classes: int = 0,
        guided: bool = False,
        vocabulary: int = 0,
        dropout: float = 0.0,
    ) -> FlowMap:
        return UNet(
            shape=self.shape,
            domain=Domain(t_lo=0.1),
            classes=classes,
            guided=guided,
            vocabulary=vocabulary,
            dropout=dropout,
            width=8,
            head_width=8,
            embedding_width=16,
            attention_levels=(1,),
        )


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (3, 16, 24)])
def test_it_takes_images_whose_sides_the_levels_divide(shape: tuple[int, int, int]) -> None:
    net = UNet(
        shape=shape,
        domain=Domain(),
        width=4,
        multipliers=(1, 1, 2),
        head_width=8,
        embedding_width=8,
    )
    x, s = torch.randn(2, *shape), torch.rand(2)
    assert net(x, s, s).shape == x.shape


def test_a_side_that_the_levels_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8, got 28 x 28"):
        UNet(shape=(1, 28, 28), domain=Domain(), multipliers=(1, 1, 1, 1))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 6}, "width must be a positive multiple of 4, got 6"),
        ({"multipliers": []}, "multipliers must be one or more"),
        ({"multipliers": [1, 0]}, r"got \[1, 0\]"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"attention_levels": [2]}, r"must lie in 0..1, got \[2\]"),
        ({"embedding_width": 7}, "embedding_width must be even and positive, got 7"),
        ({"head_width": 24}, "head_width must divide the 64 channels of a layer, got 24"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_sizes_are_refused(sizes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(shape=(1, 8, 8), domain=Domain(), **sizes)  # type: ignore[arg-type]
