"""EDM's network has the weights of EDM's file, says what EDM's says, and fits or is refused."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from onestep.methods.core.calculus import ForwardMode
from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.dropout import dropout_masks
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.rng import Rng
from onestep.methods.nets import edm_unet, edm_unet_block
from onestep.methods.nets.edm_unet import EDMUNet
from onestep.methods.nets.preconditioning import Preconditioned
from onestep.tests.methods.nets.contract import LABEL, ROWS, AnyNetContract, wakened

SIZES: dict[str, Any] = {
    "width": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention_levels": (1,),
    "dropout": 0.0,
}
SHAPE = (2, 8, 8)
LEVELS = Domain(kind=DomainKind.DIAGONAL, t_lo=1.0 / 81.0, t_hi=1.0 / 1.002)


class TestEDMUNet(AnyNetContract):
    shape = SHAPE

    def build(self, *, classes: int = 0) -> FlowMap:
        return EDMUNet(shape=self.shape, domain=Domain(t_lo=0.1), classes=classes, **SIZES)

    def conditioned(self) -> tuple[FlowMap, Condition]:
        return self.build(classes=3), Condition(label=LABEL)

    def test_it_is_not_told_the_end_time(self) -> None:
        x, _, s, t = self.draw(torch.float32)
        net = wakened(self.build())
        assert torch.equal(net(x, s, t), net.velocity(x, s))

    def test_under_autocast_it_is_near_and_the_level_is_not_rounded(self) -> None:
        net = wakened(self.build(classes=3))
        assert isinstance(net, EDMUNet)
        x, _, s, t = self.draw(torch.float32)
        exact = net.model._embedding(s, LABEL)
        with torch.autocast("cpu", torch.bfloat16):
            found = net(x, s, t)
            assert torch.equal(net.model._embedding(s, LABEL), exact)
        want = net(x, s, t)
        assert found.isfinite().all()
        assert (found - want).norm() < 0.05 * want.norm()


SIGMA = torch.tensor([0.05, 0.5, 20.0], dtype=torch.float64)
GIVEN = torch.tensor([1, NULL_LABEL, 0])
SAID = torch.tensor(
    [
        [-0.1575928, -0.0649185, 0.3799347, 0.7360835],
        [-0.1739655, 0.0345218, 0.4704699, 0.6360661],
        [-0.1891257, 0.1310934, 0.5090512, 0.5979999],
    ],
    dtype=torch.float64,
)
"""Every 40th number that EDM's network says, its weights and its input those below."""
DENOISED = torch.tensor(
    [
        [0.695757, 0.1297995, 0.5284778, 0.7332227],
        [0.1225487, 0.4994884, 0.0160149, 0.3980284],
        [-0.0934225, 0.0481226, 0.2653747, 0.2983496],
    ],
    dtype=torch.float64,
)
"""Every 40th number of the image that EDM's denoiser makes of it."""


def filled(net: EDMUNet) -> EDMUNet:
    """The network with a wave in each weight; the stem is weak, so that an epsilon counts."""
    with torch.no_grad():
        for place, (name, weight) in enumerate(sorted(net.named_parameters())):
            index = torch.arange(weight.numel(), dtype=torch.float64).reshape(weight.shape)
            wave = torch.sin(1.7 * index.square() + place)
            if weight.ndim > 1:
                wave = wave / math.sqrt(weight[0].numel() / 2)
            if "norm" in name and name.endswith("weight"):
                wave = 1.0 + 0.5 * wave
            weight.copy_(0.01 * wave if "8x8_conv." in name else wave)
    return net.requires_grad_(False)


def preconditioned() -> Preconditioned:
    net = Preconditioned(
        shape=SHAPE, domain=LEVELS, classes=3, net=lambda **data: filled(EDMUNet(**data, **SIZES))
    )
    return net.double()


def unit_state() -> Tensor:
    index = torch.arange(3 * math.prod(SHAPE), dtype=torch.float64).reshape(3, *SHAPE)
    return math.sqrt(2.0) * torch.cos(0.37 * index.square())


def said(net: FlowMap) -> Tensor:
    s = 1.0 / (1.0 + SIGMA)
    return net(unit_state(), s, s, Condition(label=GIVEN)).flatten(1)[:, ::40]


def test_it_says_what_the_network_of_the_authors_says() -> None:
    """Numbers computed once with the network of NVlabs/edm, in double precision but its attention.

    Its SongUNet with 8 channels, channel_mult [1, 2], one block, attention at 4 x 4, three classes
    and its augmentation's nine labels, which it was not given.
    """
    torch.testing.assert_close(said(preconditioned().net), SAID, atol=1e-6, rtol=0.0)


def test_within_its_preconditioning_it_denoises_as_theirs_does() -> None:
    """Numbers computed once with the EDMPrecond of NVlabs/edm, in single precision."""
    s = 1.0 / (1.0 + SIGMA)
    x = unit_state() * ((s / 2.0).square() + (1.0 - s).square()).sqrt()[:, None, None, None]
    v = preconditioned().velocity(x, s, Condition(label=GIVEN))
    denoised = (x + (1.0 - s)[:, None, None, None] * v).flatten(1)[:, ::40]
    torch.testing.assert_close(denoised, DENOISED, atol=2e-6, rtol=0.0)


def exchanged(weight: Tensor) -> Tensor:
    return torch.cat(weight.chunk(2, dim=1)[::-1], dim=1)


def apart(weight: Tensor) -> Tensor:
    """Queries, keys and values that lie side by side, one kind after the other."""
    return weight.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)


@pytest.mark.parametrize(
    ("constant", "value"),
    [("_SUM", 1.0), ("_EPS", 1e-5), ("_LONGEST_PERIOD", 1e3), ("_MAX_GROUPS", 1)],
)
def test_the_numbers_tell_a_wrong_constant(
    constant: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = edm_unet if constant == "_LONGEST_PERIOD" else edm_unet_block
    monkeypatch.setattr(module, constant, value)
    assert (said(preconditioned().net) - SAID).abs().max() > 1e-4


def test_the_numbers_tell_a_change_of_any_weight() -> None:
    for name, _ in preconditioned().net.named_parameters():
        net = preconditioned().net
        weight = net.get_parameter(name)
        weight.copy_(weight.flip(0))
        assert (said(net) - SAID).abs().max() > 1e-3, name


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("map_label.weight", lambda weight: weight / math.sqrt(3.0)),
        ("map_label.bias", torch.zeros_like),
        ("map_layer0.weight", exchanged),
        ("enc.4x4_block0.qkv.weight", apart),
        ("dec.4x4_in1.affine.weight", torch.zeros_like),
    ],
)
def test_the_numbers_tell_a_wrong_layout(part: str, change: Any) -> None:
    net = preconditioned().net
    weight = net.get_parameter(f"model.{part}")
    weight.copy_(change(weight))
    assert (said(net) - SAID).abs().max() > 1e-4


def test_it_has_the_weights_of_the_file_for_cifar10() -> None:
    """As many as the network of NVlabs/edm has beside those of its augmentation, and its names."""
    with torch.device("meta"):
        net = Preconditioned(shape=(3, 32, 32), domain=LEVELS, classes=10, net=EDMUNet)
    weights = net.state_dict()
    assert sum(weight.numel() for weight in net.parameters()) == 55_734_147
    assert len(weights) == 426
    for name, shape in {
        "map_label.weight": (128, 10),
        "map_label.bias": (128,),
        "map_layer0.weight": (512, 128),
        "map_layer1.bias": (512,),
        "enc.32x32_conv.weight": (128, 3, 3, 3),
        "enc.32x32_block0.skip.weight": (256, 128, 1, 1),
        "enc.32x32_block3.conv1.weight": (256, 256, 3, 3),
        "enc.16x16_down.conv0.resample_filter": (1, 1, 2, 2),
        "enc.16x16_down.skip.resample_filter": (1, 1, 2, 2),
        "enc.16x16_down.skip.weight": (256, 256, 1, 1),
        "enc.16x16_block3.qkv.weight": (768, 256, 1, 1),
        "enc.8x8_block0.affine.weight": (256, 512),
        "dec.8x8_in0.proj.bias": (256,),
        "dec.8x8_in1.norm0.weight": (256,),
        "dec.8x8_block4.conv0.weight": (256, 512, 3, 3),
        "dec.16x16_up.conv0.resample_filter": (1, 1, 2, 2),
        "dec.16x16_block4.norm2.bias": (256,),
        "dec.32x32_block4.norm0.weight": (384,),
        "dec.32x32_aux_norm.weight": (256,),
        "dec.32x32_aux_conv.weight": (3, 256, 3, 3),
    }.items():
        assert weights[f"net.model.{name}"].shape == shape, name
    attending = {name.split(".")[3] for name in weights if "qkv" in name}
    assert attending == {f"16x16_block{k}" for k in range(5)} | {"8x8_in0"}


@pytest.mark.parametrize(
    ("domain", "sigma_max", "sigma_min"),
    [
        (LEVELS, 80.0, 0.002),
        (Domain(), 80.0, 0.002),
        (Domain(t_lo=0.001, t_hi=0.9999), 999.0, 1.0 / 9999.0),
        (Domain(t_hi=0.5), 80.0, 1.0),
    ],
    ids=["EDM's", "the whole path", "wider", "the first half"],
)
def test_times_outside_the_domain_are_read_as_its_ends(
    domain: Domain, sigma_max: float, sigma_min: float
) -> None:
    net = EDMUNet(shape=SHAPE, domain=domain, **SIZES)
    s = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    want = torch.tensor([sigma_max, 3.0, 1.0, sigma_min], dtype=torch.float64).log() / 4.0
    torch.testing.assert_close(net._level(s), want, atol=1e-12, rtol=0.0)


def test_its_derivative_is_finite_at_both_ends_of_the_path() -> None:
    net = wakened(EDMUNet(shape=SHAPE, domain=Domain(), **SIZES))
    x, s = (
        torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1)),
        torch.tensor([0.0, 1]),
    )
    tangent = (torch.ones_like(x), torch.ones_like(s), torch.zeros_like(s))
    assert ForwardMode().along(net, (x, s, s), tangent).isfinite().all()


def test_a_new_network_is_nearly_zero() -> None:
    net = EDMUNet(shape=SHAPE, domain=LEVELS, **SIZES)
    s = torch.full((3,), 0.5)
    assert net(unit_state().float(), s, s).abs().max() < 1e-4


def test_it_drops_activations_in_training() -> None:
    net = wakened(EDMUNet(shape=SHAPE, domain=LEVELS, **(SIZES | {"dropout": 0.4})))
    x, s = torch.ones(ROWS, *SHAPE), torch.full((ROWS,), 0.5)
    with dropout_masks(Rng.seeded(0), ROWS):
        first, again = net(x, s, s), net(x, s, s)
    assert torch.equal(first, again)
    assert not torch.allclose(first, net.eval()(x, s, s))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 6}, "width must be a positive multiple of 4, got 6"),
        ({"width": 132}, "whose channels 32 groups divide, got 132; a width"),
        ({"multipliers": []}, "multipliers must be one or more"),
        ({"multipliers": [1, 0]}, r"got \[1, 0\]"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"attention_levels": [2]}, r"must lie in 0..1, got \[2\]"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"multipliers": [1] * 5}, "takes images whose sides are multiples of 16, got 8 x 8"),
    ],
)
def test_wrong_sizes_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        EDMUNet(shape=SHAPE, domain=LEVELS, **(SIZES | sizes))
    assert "\n" not in str(refused.value)


def test_data_that_are_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="EDMUNet takes images of shape"):
        EDMUNet(shape=(2,), domain=LEVELS, **SIZES)
