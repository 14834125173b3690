from dataclasses import dataclass

import pytest
import torch

from onestep.platform.data.source import AbstractSource, Dataset, Examples


@dataclass(frozen=True, kw_only=True)
class Small(AbstractSource):
    x: tuple[int, ...] = (0, 128, 255)
    names: tuple[str, ...] = ("even", "odd")
    held_out: int = 1

    @property
    def name(self) -> str:
        return "small"

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, 1, 1)

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.names

    def load(self) -> Dataset:
        x = torch.tensor(self.x, dtype=torch.uint8).reshape(-1, 1, 1, 1)
        label = torch.arange(len(x)) % 2
        cut = len(x) - self.held_out
        return Dataset.of(
            self,
            train=Examples(x=x[:cut], label=label[:cut]),
            held_out=Examples(x=x[cut:], label=label[cut:]),
        )


def test_black_is_minus_one_and_white_is_one_exactly() -> None:
    x, label = Examples(x=torch.arange(256, dtype=torch.uint8)[:, None]).everything()
    assert (x[0].item(), x[255].item()) == (-1.0, 1.0)
    assert label is None
    assert torch.allclose(x[:, 0], torch.linspace(-1, 1, 256), atol=1e-6)


def test_coordinates_are_taken_as_they_are() -> None:
    points = torch.tensor([[0.5, -3.0], [2.0, 1.0], [0.0, 0.0]])
    x, label = Examples(x=points, label=torch.tensor([4, 5, 6])).take(torch.tensor([2, 0]))
    assert x.tolist() == [[0.0, 0.0], [0.5, -3.0]]
    assert label is not None
    assert label.tolist() == [6, 4]


def test_other_number_types_are_refused() -> None:
    with pytest.raises(ValueError, match="must be uint8 or float32"):
        Examples(x=torch.zeros(2, 2, dtype=torch.float64))


def test_labels_that_do_not_fit_the_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="2 examples need as many labels, got 3"):
        Examples(x=torch.zeros(2, 2), label=torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize(
    "other",
    [Small(x=(0, 128, 254)), Small(names=("even", "uneven")), Small(held_out=2)],
    ids=["contents", "label names", "split"],
)
def test_the_digest_covers(other: Small) -> None:
    assert Small().load().digest == Small().load().digest
    assert Small().load().digest != other.load().digest
