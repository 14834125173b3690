import pytest

from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.nets.dit import DiT
from onestep.tests.methods.nets.contract import NetContract
from onestep.tests.methods.nets.image_contract import ImageNetContract


class TestDiT(NetContract, ImageNetContract):
    shape = (2, 4, 8)

    def build(
        self,
        *,
        classes: int = 0,
        guided: bool = False,
        vocabulary: int = 0,
        dropout: float = 0.0,
    ) -> FlowMap:
        return DiT(
            shape=self.shape,
            domain=Domain(t_lo=0.1),
            classes=classes,
            guided=guided,
            vocabulary=vocabulary,
            dropout=dropout,
            width=16,
            depth=2,
            head_width=8,
        )


def test_a_side_that_the_patch_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 3, got 28 x 28"):
        DiT(shape=(1, 28, 28), domain=Domain(), patch=3)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 7}, "width must be even and positive, got 7"),
        ({"depth": 0}, "patch and depth must be at least 1, got 2 and 0"),
        ({"patch": 0}, "patch and depth must be at least 1, got 0 and 4"),
        ({"head_width": 24}, "head_width must divide the 64 channels of a layer, got 24"),
        ({"dropout": -0.1}, r"dropout must lie in \[0, 1\), got -0.1"),
    ],
)
def test_wrong_sizes_are_refused(sizes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiT(shape=(1, 8, 8), domain=Domain(), **sizes)  # type: ignore[arg-type]
