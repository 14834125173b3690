"""Models that the tests of serving serve."""

from collections.abc import Mapping
from typing import Any, Final

import torch

from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.nets.unet import UNet
from onestep.methods.oracle import GaussianMap
from onestep.platform.registry.record import ModelRecord

SHAPE: Final = (1, 8, 8)
NAMES: Final = ("zero", "one", "two", "three")
TRIANGLE: Final = Domain()
GRID: Final = Domain(kind=DomainKind.GRID, steps=4)
DIAGONAL: Final = Domain(kind=DomainKind.DIAGONAL)
MEAN: Final = 0.25
STD: Final = 0.2

GAUSSIAN_NODE: Final = {"_target_": "onestep.methods.oracle.GaussianMap", "mean": MEAN, "std": STD}
UNET_NODE: Final = {
    "_target_": "onestep.methods.nets.unet.UNet",
    "width": 8,
    "multipliers": [1, 2],
    "head_width": 8,
}


def record_of(
    *,
    net: Mapping[str, Any] = GAUSSIAN_NODE,
    shape: tuple[int, ...] = SHAPE,
    classes: int = 4,
    label_names: tuple[str, ...] = NAMES,
    domain: Domain = TRIANGLE,
) -> ModelRecord:
    return ModelRecord(
        name="digits",
        method={"_target_": "onestep.methods.mean_flow.MeanFlow"},
        net=net,
        shape=shape,
        classes=classes,
        label_names=label_names,
        domain=domain.to_dict(),
        data_digest="0" * 64,
        seed=0,
    )


def gaussian(
    *, shape: tuple[int, ...] = SHAPE, classes: int = 4, domain: Domain = TRIANGLE
) -> GaussianMap:
    return GaussianMap(mean=MEAN, std=STD, shape=shape, classes=classes, domain=domain)


def unet(*, guided: bool = False) -> FlowMap:
    """A small network with random weights in every layer, for which labels matter."""
    torch.manual_seed(0)
    net = UNet(
        shape=SHAPE,
        classes=4,
        domain=TRIANGLE,
        width=8,
        multipliers=(1, 2),
        head_width=8,
        guided=guided,
    )
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return net
