import math

import pytest
import torch
from torch import Tensor

from onestep.platform.evaluation.kernel import energy_distance
from onestep.serving.drift import Drift, measure_drift
from onestep.serving.engine import Engine
from onestep.serving.lot import LOT, LOTS, make_lot
from onestep.tests.serving.model import gaussian, record_of, unet

N = 320


def drawn(seed: int, *, mean: float = 0.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(N, 8, generator=rng) + mean


def drift(x: Tensor, y: Tensor, labels: Tensor | None = None) -> Drift:
    given = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
    return measure_drift(x, y, given, rng=torch.Generator().manual_seed(1))


def test_without_labels_it_is_the_energy_distance_but_for_the_pairs() -> None:
    x, y = drawn(0), drawn(1, mean=0.5)
    between = torch.cdist(x.double(), y.double())
    paired = between.diagonal().mean().item()
    mean = (N * N * between.mean().item() - N * paired) / (N * (N - 1))
    exact = energy_distance(x, y) - 2.0 * between.mean().item() + 2.0 * mean
    assert drift(x, y).coefficient == pytest.approx(exact / (2.0 * mean), rel=1e-9)


def test_equal_laws_show_no_drift_and_the_test_is_right_as_often_as_it_says() -> None:
    labels, rng = torch.zeros(N, dtype=torch.int64), torch.Generator().manual_seed(0)
    found = [
        measure_drift(drawn(2 * k), drawn(2 * k + 1), labels, rng=rng, permutations=199)
        for k in range(30)
    ]
    assert max(one.coefficient for one in found) < 0.02
    few = sum(one.p_value <= 0.1 for one in found)
    assert few <= 3 + 4 * math.sqrt(30 * 0.1 * 0.9)
    assert drift(drawn(0), drawn(0)) == Drift(coefficient=0.0, p_value=1.0)


def test_a_shift_is_certain_and_its_size_is_told() -> None:
    x = drawn(0)
    small, large = drift(x, drawn(1, mean=0.3)), drift(x, drawn(1, mean=2.0))
    assert small.p_value == large.p_value == 1 / 5000
    assert 0.0 < small.coefficient < 0.05 < 0.3 < large.coefficient <= 1.0
    assert drift(torch.zeros(4, 2), torch.ones(4, 2)).coefficient == 1.0


def test_mixed_up_labels_are_found_although_all_images_have_the_right_law() -> None:
    labels = torch.arange(N) % 2
    x = drawn(0) + 3.0 * labels[:, None]
    mixed = drawn(1) + 3.0 * (1 - labels[:, None])
    assert drift(x, mixed).p_value > 0.01
    found = drift(x, mixed, labels)
    assert found.p_value == 1 / 5000
    assert found.coefficient > 0.3


def test_two_images_of_one_label_are_the_fewest() -> None:
    with pytest.raises(ValueError, match="two images of one label"):
        drift(drawn(0)[:3], drawn(1)[:3], torch.arange(3))


def test_a_lot_is_the_same_images_for_both_and_tells_two_networks_apart() -> None:
    network = Engine(unet(), record_of())
    oracle = Engine(gaussian(), record_of())
    same = make_lot(oracle, Engine(gaussian(), record_of()), 1)
    assert torch.equal(same.champion, same.canary)
    assert same.labels == (0, 1, 2, 3) * (LOT // 4)
    assert not torch.equal(same.champion, make_lot(oracle, oracle, 2).champion)

    lots = [make_lot(oracle, network, number) for number in range(LOTS)]
    assert all(one.champion_s > 0 and one.canary_s > 0 for one in lots)
    labels = torch.tensor([label for one in lots for label in one.labels])
    x, y = torch.cat([one.champion for one in lots]), torch.cat([one.canary for one in lots])
    assert drift(x, y, labels).coefficient > 0.1


@pytest.mark.parametrize("classes", [0, 1000])
def test_models_without_classes_and_with_many_are_compared(classes: int) -> None:
    names = tuple(map(str, range(classes)))
    record = record_of(classes=classes, label_names=names)
    engine = Engine(gaussian(classes=classes), record, bucket=4)
    labels = make_lot(engine, engine, 0).labels + make_lot(engine, engine, 1).labels
    assert set(labels) == ({0} if classes == 0 else {k * 1000 // 16 for k in range(16)})


def test_an_image_that_is_not_finite_is_told() -> None:
    broken = unet()
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    oracle = Engine(gaussian(), record_of(), bucket=4)
    with pytest.raises(ValueError, match="the canary made an image that is not finite"):
        make_lot(oracle, Engine(broken, record_of(), bucket=4), 0)
