"""LPIPS is itself or is refused in one sentence; a stand-in shows what it is given."""

from collections.abc import Callable

import pytest
import torch

from onestep.methods.consistency_distillation import ConsistencyDistillation
from onestep.methods.consistency_training import ConsistencyTraining
from onestep.methods.consistency_trajectory import ConsistencyTrajectory
from onestep.methods.core.distance import AbstractDistance
from onestep.methods.core.flow_map import Domain
from onestep.methods.core.game import ONLINE, AbstractGame
from onestep.methods.core.method import AbstractMethod
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.flow_guided_distillation import FlowGuidedDistillation
from onestep.methods.improved_reflow import ImprovedReFlow
from onestep.platform.training.lpips import Lpips, LpipsUnavailable, _network
from onestep.tests.methods.contract import SmallMap
from onestep.tests.platform.training.lpips_stand_in import Standin


def test_without_its_package_it_says_so() -> None:
    with pytest.raises(LpipsUnavailable, match=r"lpips, which is not installed|found no file"):
        Lpips()


def test_without_the_weights_of_its_backbone_it_says_so(installed: None) -> None:
    with pytest.raises(LpipsUnavailable, match=r"found no file .*alexnet-owt-7be5be79\.pth"):
        Lpips(backbone="alex")


def test_small_grey_images_are_enlarged_and_have_three_channels(installed: None) -> None:
    x = torch.linspace(-1.0, 1.0, 5 * 64, dtype=torch.float64).reshape(5, 1, 8, 8)
    found = Lpips()(x, -x)
    assert found.shape == (5,)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, x.mean((1, 2, 3)), atol=1e-6, rtol=0.0)
    network = _network("vgg", torch.device("cpu"))
    assert isinstance(network, Standin)
    assert network.seen == [(5, 3, 64, 64)]


def test_large_images_stay_as_they_are(installed: None) -> None:
    x = torch.zeros(2, 3, 96, 128)
    Lpips()(x, x)
    network = _network("vgg", torch.device("cpu"))
    assert isinstance(network, Standin)
    assert network.seen == [(2, 3, 96, 128)]


def test_what_makes_no_sense_is_refused(installed: None) -> None:
    with pytest.raises(ValueError, match="backbones alex, squeeze, vgg, got 'resnet'"):
        Lpips(backbone="resnet")
    with pytest.raises(ValueError, match="side of at least 32, got 8"):
        Lpips(side=8)
    with pytest.raises(ValueError, match=r"1 or 3 channels, got shape \(2,\)"):
        Lpips()(torch.zeros(4, 2), torch.zeros(4, 2))


@pytest.mark.parametrize(
    "build",
    [
        lambda distance: ConsistencyDistillation(distance=distance),
        lambda distance: ConsistencyTraining(distance=distance),
        lambda distance: ConsistencyTrajectory(distance=distance),
        lambda distance: FlowGuidedDistillation(distance=distance),
        lambda distance: ImprovedReFlow(endpoint=distance),
    ],
    ids=["cd", "ct", "ctm", "slim", "rfpp"],
)
def test_methods_that_compare_samples_take_it(
    build: Callable[[AbstractDistance], AbstractMethod | AbstractGame], installed: None
) -> None:
    learner = build(Lpips())
    image = SmallMap(shape=(3, 8, 8), domain=Domain())
    rng = Rng.seeded(1)
    x0, x1 = (rng.normal(4, 3, 8, 8) for _ in range(2))
    batch = Batch(x0=x0, x1=x1, index=torch.arange(4))
    frozen = {role: image for role in learner.needs.frozen}
    nets = Nets(online=image, target=image, frozen=frozen)
    now = Moment(step=0, total=10, rng=Rng.seeded(2), batch_size=4)
    if isinstance(learner, AbstractGame):
        loss = learner.loss(ONLINE, nets, batch, now)
    else:
        loss = learner.loss(nets, batch, now)
    assert loss.total.shape == (4,)
    network = _network("vgg", torch.device("cpu"))
    assert isinstance(network, Standin)
    assert set(network.seen) == {(4, 3, 64, 64)}
    torch.autograd.backward(loss.total.sum())
    assert image.last.weight.grad is not None
