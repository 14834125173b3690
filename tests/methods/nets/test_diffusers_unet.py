"""A network of diffusers is the velocity that diffusers samples by, and fits or is refused."""

import importlib.util
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.diffusion_clock import (
    AbstractDiffusionClock,
    DiscreteClock,
    DiscreteCosineClock,
)
from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.prediction import (
    AbstractPrediction,
    AngularPrediction,
    DataPrediction,
    NoisePrediction,
)
from onestep.methods.nets.diffusers_unet import DiffusersUNet
from onestep.methods.nets.diffusion import DiffusionVelocity

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="needs the extra diffusers"
)

SHAPE = (1, 8, 8)
SIZES: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
}
INSIDE = Domain(kind=DomainKind.DIAGONAL, t_lo=0.001, t_hi=0.999)
CLOCKS: dict[str, AbstractDiffusionClock] = {
    "linear": DiscreteClock(),
    "scaled_linear": DiscreteClock(beta_first=0.00085, beta_last=0.012, is_rooted=True),
    "squaredcos_cap_v2": DiscreteCosineClock(),
}
PREDICTIONS: dict[str, AbstractPrediction] = {
    "epsilon": NoisePrediction(),
    "sample": DataPrediction(),
    "v_prediction": AngularPrediction(),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def inner(*, classes: int = 0, **sizes: Any) -> DiffusersUNet:
    return DiffusersUNet(
        shape=SHAPE, domain=INSIDE, classes=classes, config=SIZES | sizes
    ).requires_grad_(False)


def noise(rows: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=dtype)


def readings(*numbers: int) -> Tensor:
    """What a diffusion with a thousand levels tells its network at levels of the library."""
    return 1.0 - (torch.tensor(numbers, dtype=torch.float64) + 1.0) / 1000.0


@pytest.mark.parametrize("schedule", CLOCKS)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_step_along_the_velocity_is_a_step_of_ddim(schedule: str, kind: str) -> None:
    """In double precision, up to the single one of the library's schedule: 1e-4 of the state."""
    clock, net = CLOCKS[schedule], inner().double()
    velocity = DiffusionVelocity(
        shape=SHAPE, domain=INSIDE, net=lambda **_: net, prediction=PREDICTIONS[kind], clock=clock
    )
    first, last = (0.00085, 0.012) if schedule == "scaled_linear" else (1e-4, 0.02)
    import diffusers  # takes seconds

    ddim = diffusers.DDIMScheduler(
        beta_start=first,
        beta_end=last,
        beta_schedule=schedule,
        prediction_type=kind,
        clip_sample=False,
    )
    ddim.set_timesteps(20)
    z = noise(1)
    for number in (990, 700, 400, 100, 60):
        said = net.unet(z, torch.tensor(number)).sample
        want = ddim.step(said, number, z).prev_sample
        begin, end = (
            clock.time(torch.tensor([(k + 1) / 1000], dtype=torch.float64))
            for k in (number, number - 50)
        )
        x = z / scale(begin)
        found = scale(end) * (x + (end - begin) * velocity.velocity(x, begin))
        assert (found - want).norm() < 1e-4 * want.norm(), number


def scale(t: Tensor) -> Tensor:
    """A state of the diffusion over that on the linear path."""
    return (t.square() + (1.0 - t).square()).rsqrt()


def test_it_is_told_the_number_of_the_level() -> None:
    net = inner().double()
    z = noise(4)
    numbers = (0, 1, 500, 999)
    at = readings(*numbers)
    want = net.unet(z, torch.tensor(numbers)).sample
    torch.testing.assert_close(net(z, at, at), want, atol=1e-6, rtol=0.0)
    assert (net(z, readings(*[5] * 4), at) - want).abs().max() > 1e-3


def test_labels_are_told_and_the_last_embedding_is_for_none() -> None:
    net = inner(classes=3)
    assert net.unet.config.num_class_embeds == 4
    z, at = noise(4, torch.float32), readings(10, 10, 10, 10).float()
    label = torch.tensor([0, 1, 2, NULL_LABEL])
    want = net.unet(z, torch.full((4,), 10), class_labels=torch.tensor([0, 1, 2, 3])).sample
    told = net(z, at, at, Condition(label=label))
    torch.testing.assert_close(told, want, atol=1e-4, rtol=0.0)
    untold = net(z, at, at)
    torch.testing.assert_close(untold, net(z, at, at, Condition(label=label).null()))
    torch.testing.assert_close(untold[3], told[3])
    assert (untold[:3] - told[:3]).flatten(1).norm(dim=1).min() > 1e-3


def test_it_refuses_a_condition_that_it_would_ignore() -> None:
    net, z, at = inner(), noise(1, torch.float32), readings(10).float()
    with pytest.raises(ValueError, match="takes no class labels"):
        net(z, at, at, Condition(label=torch.tensor([0])))
    with pytest.raises(ValueError, match="takes no guidance scale"):
        net(z, at, at, Condition(guidance=torch.ones(1)))


def test_under_autocast_it_is_finite_and_near() -> None:
    net, z, at = inner(), noise(3, torch.float32), readings(0, 500, 999).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = net(z, at, at)
    want = net(z, at, at)
    assert (found - want).norm() < 0.05 * want.norm()


@pytest.mark.parametrize(
    ("sizes", "classes", "words"),
    [
        ({"sample_size": 32}, 0, "has sample_size 32, the data are 8 x 8"),
        ({"sample_size": [8, 4]}, 0, r"has sample_size \[8, 4\], the data are 8 x 8"),
        ({"in_channels": 3}, 0, "has in_channels 3, the data 1"),
        ({"out_channels": 2}, 0, "has out_channels 2, the data 1"),
        ({"num_class_embeds": None}, 10, "num_class_embeds None, data of 10 classes need 11, the"),
        ({"num_class_embeds": 10}, 10, "num_class_embeds 10, data of 10 classes need 11, the last"),
        ({"num_class_embeds": 11}, 0, "num_class_embeds 11, data of 0 classes need None$"),
        ({"time_embedding_type": "fourier"}, 0, "needs time_embedding_type positional, got 'four"),
        ({"class_embed_type": "timestep"}, 0, "needs class_embed_type None, got 'timestep'"),
        (
            {"_class_name": "UNet2DConditionModel"},
            0,
            "config of a UNet2DModel, got that of UNet2DC",
        ),
        ({"width": 8}, 0, "cannot be built from its config: .*unexpected keyword argument 'width'"),
        ({"norm_num_groups": 3}, 0, "cannot be built from its config: num_channels .8. must be"),
        (
            {
                "block_out_channels": [8] * 5,
                "down_block_types": ["DownBlock2D"] * 5,
                "up_block_types": ["UpBlock2D"] * 5,
            },
            0,
            "takes images whose sides are multiples of 16, got 8 x 8",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_refused(
    sizes: dict[str, Any], classes: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        inner(classes=classes, **sizes)
    assert "\n" not in str(refused.value)


def test_data_that_are_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="UNet2DModel takes images of shape"):
        DiffusersUNet(shape=(2,), domain=INSIDE, config=SIZES)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'onestep\[diffusers\]'"):
        inner()


def test_published_sizes_are_taken_as_they_are() -> None:
    """The config.json of google/ddpm-cifar10-32; Ho et al. 2020 count 35.7 million weights."""
    config = {
        "_class_name": "UNet2DModel",
        "_diffusers_version": "0.0.4",
        "act_fn": "silu",
        "attention_head_dim": None,
        "block_out_channels": [128, 256, 256, 256],
        "center_input_sample": False,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "in_channels": 3,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-06,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 32,
        "time_embedding_type": "positional",
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    }
    with torch.device("meta"):
        net = DiffusersUNet(shape=(3, 32, 32), domain=INSIDE, config=config)
        at = torch.full((1,), 0.5)
        assert net(torch.zeros(1, 3, 32, 32), at, at).shape == (1, 3, 32, 32)
    assert sum(weight.numel() for weight in net.parameters()) == pytest.approx(35.7e6, abs=0.1e6)


def test_it_stands_inside_a_velocity_on_a_machine_without_memory_for_it() -> None:
    """The cost of a run is counted on tensors without memory."""
    with torch.device("meta"):
        net = DiffusionVelocity(
            shape=SHAPE,
            domain=INSIDE,
            net=partial(DiffusersUNet, config=SIZES),
            prediction=NoisePrediction(),
            clock=DiscreteClock(),
        )
        t = torch.full((2,), 0.5)
        assert net.velocity(torch.zeros(2, *SHAPE), t).shape == (2, *SHAPE)
