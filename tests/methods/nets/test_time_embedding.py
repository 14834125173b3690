import math

import pytest
import torch

from onestep.methods.nets.time_embedding import (
    PeriodicFeatures,
    TimeEmbedding,
    VanishingFeatures,
)


def test_the_features_of_the_length_are_exactly_zero_at_zero() -> None:
    features = VanishingFeatures(max_cycles=4.0)
    assert not features(torch.zeros(3)).any()
    assert features(torch.full((1,), 0.3)).abs().min() > 0


def test_the_features_of_a_tiny_length_keep_their_digits() -> None:
    h = torch.tensor([1e-6])
    single = VanishingFeatures(max_cycles=4.0)(h)
    double = VanishingFeatures(max_cycles=4.0).double()(h.double())
    assert torch.allclose(single.double(), double, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", [PeriodicFeatures, VanishingFeatures])
def test_the_derivative_is_bounded_by_the_fastest_feature(
    kind: type[PeriodicFeatures | VanishingFeatures],
) -> None:
    features = kind(max_cycles=4.0).double()
    s = torch.linspace(0, 1, 2001, dtype=torch.float64)
    _, slope = torch.func.jvp(features, (s,), (torch.ones_like(s),))
    fastest = 2 * math.pi * 4.0
    assert slope.abs().max() <= fastest * (1 + 1e-6)
    assert slope.abs().max() > 0.99 * fastest


def test_the_features_tell_all_start_times_apart() -> None:
    s = torch.linspace(0, 1, 101)
    features = PeriodicFeatures(max_cycles=4.0)(s)
    distance = torch.cdist(features, features) + torch.eye(101)
    assert distance.min() > 0.01


def test_times_in_double_precision_reach_the_sines_undiminished() -> None:
    embedding = TimeEmbedding(8, max_cycles=4.0)
    torch.nn.init.ones_(embedding.length.linear.weight)
    h = torch.tensor([1e-12], dtype=torch.float64)
    s = torch.full((1,), 0.5, dtype=torch.float64)
    length = (s + h) - s
    assert embedding.length(length).abs().min() > 0
