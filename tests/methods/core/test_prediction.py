"""Predictions of noise, data and their rotation are one velocity."""

import pytest
import torch
from torch import Tensor

from onestep.methods.core.flow_map import Domain
from onestep.methods.core.prediction import (
    AbstractPrediction,
    AngularPrediction,
    DataPrediction,
    NoisePrediction,
    variance_preserving_scale,
)
from onestep.methods.nets.preconditioning import Preconditioned
from onestep.methods.oracle import GaussianMap
from onestep.tests.methods.contract import SmallMap
from onestep.tests.methods.exactness import ORACLE

each_prediction = pytest.mark.parametrize(
    "prediction", [NoisePrediction(), DataPrediction(), AngularPrediction()], ids=repr
)


def points() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0.01, 0.99, 60, dtype=torch.float64)
    return torch.randn(60, 2, generator=generator, dtype=torch.float64), t


def means(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the noise and the data at a point, for the oracle's data, in closed form."""
    mean, std = ORACLE.mean, ORACLE.std
    time = t[:, None]
    pull = (x - time * mean) / ((1.0 - time) ** 2 + (std * time) ** 2)
    return (1.0 - time) * pull, mean + time * std**2 * pull


def said(prediction: AbstractPrediction, x: Tensor, t: Tensor) -> Tensor:
    """What the best network of this kind says."""
    noise, data = means(x, t)
    scale = (t.square() + (1.0 - t).square()).rsqrt()[:, None]
    match prediction:
        case NoisePrediction():
            return noise
        case DataPrediction():
            return data
        case _:
            return scale * (t[:, None] * noise - (1.0 - t[:, None]) * data)


@each_prediction
def test_the_velocity_of_the_best_prediction_is_the_oracles(prediction: AbstractPrediction) -> None:
    x, t = points()
    found = prediction.velocity(said(prediction, x, t), x, t)
    torch.testing.assert_close(found, ORACLE.velocity(x, t), atol=1e-12, rtol=1e-12)


@each_prediction
def test_the_velocity_means_the_prediction_again(prediction: AbstractPrediction) -> None:
    x, t = points()
    found = prediction.of(ORACLE.velocity(x, t), x, t)
    torch.testing.assert_close(found, said(prediction, x, t), atol=1e-12, rtol=1e-12)


def test_the_anchors_of_the_card() -> None:
    data = GaussianMap(mean=[0.7], std=[0.5])
    x, t = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    v = data.velocity(x, t)
    assert v.item() == pytest.approx(-0.263414634, abs=1e-9)
    assert DataPrediction().of(v, x, t).item() == pytest.approx(0.815609756, abs=1e-9)
    assert NoisePrediction().of(v, x, t).item() == pytest.approx(1.079024390, abs=1e-9)


def test_an_angular_prediction_is_a_preconditioned_network_for_unit_data() -> None:
    torch.manual_seed(0)
    inner = SmallMap(shape=(2,), domain=Domain()).double()
    net = Preconditioned(shape=(2,), domain=Domain(), net=lambda **_: inner, sigma_data=1.0)
    x, t = points()
    z = variance_preserving_scale(t)[:, None] * x
    found = AngularPrediction().velocity(-inner.velocity(z, t), x, t)
    torch.testing.assert_close(found, net.velocity(x, t), atol=1e-12, rtol=1e-12)


def test_the_noise_gives_a_velocity_near_the_data_that_the_data_do_not() -> None:
    """At EDM's least level, in single precision; errors beside the velocity in double."""
    x, _ = points()
    t = torch.full((60,), 1.0 / 1.002, dtype=torch.float64)
    want = ORACLE.velocity(x, t)

    def error(prediction: AbstractPrediction) -> float:
        words = said(prediction, x, t).float()
        found = prediction.velocity(words, x.float(), t.float())
        return (found - want).abs().max().item()

    assert error(NoisePrediction()) < 2e-6
    assert error(AngularPrediction()) < 2e-6
    assert error(DataPrediction()) > 1e-5


@pytest.mark.parametrize(
    ("prediction", "domain", "words"),
    [
        (NoisePrediction(), Domain(), "begin above t = 0, got 0"),
        (DataPrediction(), Domain(t_lo=0.1), "end below t = 1, got 1"),
    ],
    ids=repr,
)
def test_times_without_a_velocity_are_refused(
    prediction: AbstractPrediction, domain: Domain, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        prediction.check(domain)
    AngularPrediction().check(domain)
    prediction.check(Domain(t_lo=0.1, t_hi=0.9))
