import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.grid import ListGrid
from onestep.methods.core.guidance_scale import AtScale
from onestep.methods.core.noise import draw_noise
from onestep.methods.core.sampler import Renoise
from onestep.platform.registry.errors import ModelNotTrusted
from onestep.serving.engine import MAX_IMAGES, MAX_SEED, Draw, Engine
from onestep.serving.errors import RequestRefused
from onestep.serving.image import encode_png, to_uint8
from onestep.tests.serving.model import (
    DIAGONAL,
    GRID,
    MEAN,
    SHAPE,
    STD,
    UNET_NODE,
    gaussian,
    record_of,
    unet,
)


@pytest.fixture
def engine() -> Engine:
    return Engine(gaussian(), record_of(), bucket=4)


def draw(*, seed: int = 0, n: int = 1, label: int = 3, steps: int = 1) -> Draw:
    return Draw(label=label, n=n, seed=seed, steps=steps)


def decoded(png: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return flat.reshape(image.height, image.width, len(image.getbands()))


@pytest.mark.parametrize("steps", [1, 3, 64])
def test_the_served_oracle_returns_m_plus_c_x0(engine: Engine, steps: int) -> None:
    (images,) = engine.sample([draw(seed=5, n=9, steps=steps)])
    x0 = draw_noise(9, SHAPE, seed=5)[0]
    torch.testing.assert_close(images, MEAN + STD * x0, atol=1e-5, rtol=0)


def test_a_velocity_is_served_by_heun_and_converges_to_m_plus_c_x0() -> None:
    served = Engine(gaussian(domain=DIAGONAL), record_of(domain=DIAGONAL))
    (images,) = served.sample([draw(steps=served.default_steps, n=4)])
    x0 = draw_noise(4, SHAPE, seed=0)[0]
    torch.testing.assert_close(images, MEAN + STD * x0, atol=2e-2, rtol=0)
    assert served.default_steps == 64


def test_a_straight_velocity_is_served_with_one_step_by_default() -> None:
    straight = replace(DIAGONAL, is_straight=True)
    assert Engine(gaussian(domain=straight), record_of(domain=straight)).default_steps == 1


def test_images_are_bitwise_the_same_alone_and_in_company() -> None:
    engine = Engine(unet(), record_of(net=UNET_NODE), bucket=4)
    mine = draw(seed=11, n=3, label=2)
    (alone,) = engine.sample([mine])
    others = [draw(seed=s, n=n, label=s % 4) for s, n in ((1, 1), (2, 5), (3, 2))]
    for place in range(4):
        company = [*others[:place], mine, *others[place:]]
        assert torch.equal(engine.sample(company)[place], alone)


def sized(net: FlowMap, **options: Any) -> tuple[Engine, list[int]]:
    """An engine, and the rows of each forward that it runs."""
    sizes: list[int] = []
    net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    return Engine(net, record_of(net=UNET_NODE), **options), sizes


def test_a_few_rows_run_in_the_next_power_of_two_and_all_in_one_bucket_if_strict() -> None:
    draws = [draw(n=9, steps=2), draw(n=1)]
    engine, sizes = sized(unet(), bucket=6)
    engine.sample(draws)
    assert sizes == [6, 4, 6, 4]
    assert engine.buckets == (1, 2, 4, 6)
    engine, sizes = sized(unet(), bucket=6, strict=True)
    engine.sample(draws)
    assert sizes == [6, 6, 6, 6]


def test_an_engine_that_is_not_compiled_is_warmed_by_its_largest_forward_alone() -> None:
    warmed, sizes = sized(unet(), bucket=6)
    warmed.warm_up()
    assert sizes == [6]


def test_between_buckets_an_image_differs_in_its_last_digits_at_most() -> None:
    engine = Engine(unet(), record_of(net=UNET_NODE), bucket=16)
    mine = draw(seed=11, label=2, steps=3)
    (alone,) = engine.sample([mine])
    for n in (1, 3, 12):
        beside = engine.sample([mine, draw(n=n)])[0]
        torch.testing.assert_close(beside, alone, atol=1e-5, rtol=0.0)
        assert (to_uint8(beside).int() - to_uint8(alone).int()).abs().max() <= 1


def test_a_strict_engine_gives_the_same_bits_in_any_company_of_any_steps() -> None:
    engine = Engine(unet(), record_of(net=UNET_NODE), bucket=4, strict=True)
    mine = draw(seed=11, n=2, label=2, steps=3)
    (alone,) = engine.sample([mine])
    company = [draw(seed=1, n=5, steps=2), mine, draw(seed=2, steps=1)]
    assert torch.equal(engine.sample(company)[1], alone)


def test_requests_of_different_guidance_share_a_forward() -> None:
    engine, sizes = sized(AtScale(unet(guided=True), scale=2.0), bucket=4)
    own, two, four = (
        replace(draw(seed=3), guidance=engine.accept("3", seed=3, guidance=scale).guidance)
        for scale in (None, 2.0, 4.0)
    )
    engine.sample([own, two, four])
    assert sizes == [4]
    images = engine.sample([own, two, four])
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[1], images[2])
    (alone,) = engine.sample([four])
    torch.testing.assert_close(images[2], alone, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("scale", [0.5, 101.0, float("nan"), float("inf")])
def test_a_scale_out_of_range_is_refused(scale: float) -> None:
    engine = Engine(AtScale(unet(guided=True), scale=1.0), record_of(net=UNET_NODE))
    with pytest.raises(RequestRefused, match=r"guidance must be in 1\.\.100, got ") as caught:
        engine.accept("1", seed=0, guidance=scale)
    assert caught.value.param == "guidance"


def test_a_model_without_a_scale_takes_none(engine: Engine) -> None:
    with pytest.raises(RequestRefused, match="left out for a model that takes no scale, got 2"):
        engine.accept("1", seed=0, guidance=2.0)


def test_image_k_does_not_depend_on_how_many_are_asked_for(engine: Engine) -> None:
    (few,) = engine.sample([draw(n=2)])
    (many,) = engine.sample([draw(n=11)])
    assert torch.equal(few, many[:2])


def test_seeds_and_labels_change_the_images() -> None:
    engine = Engine(unet(), record_of(net=UNET_NODE))
    images = engine.sample([draw(seed=s, label=c) for s in (0, 1) for c in (0, 1)])
    for i, one in enumerate(images):
        for other in images[i + 1 :]:
            assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("prompt", "label"), [("3", 3), (" 0 ", 0), ("three", 3), ("Two", 2), ("01", 1)]
)
def test_a_label_is_a_number_or_a_name(engine: Engine, prompt: str, label: int) -> None:
    assert engine.accept(prompt, seed=0).label == label


@pytest.mark.parametrize(
    ("names", "asked", "label"),
    [
        (("one", "zero", "3", "0"), 0, 0),
        (("one", "zero", "3", "0"), 3, 3),
        (("one", "zero", "3", "0"), "0", 3),
        (("one", "zero", "3", "0"), "2", 2),
        (("A", "B", "a", "b"), "a", 2),
        (("A", "B", "a", "b"), "b", 3),
        (("A", "B", "a", "C"), "c", 3),
    ],
)
def test_a_number_is_never_a_name_and_every_name_can_be_asked_for(
    names: tuple[str, ...], asked: str | int, label: int
) -> None:
    assert Engine(gaussian(), record_of(label_names=names)).label(asked) == label


def test_a_name_that_two_have_but_for_case_is_refused() -> None:
    engine = Engine(gaussian(), record_of(label_names=("Ab", "aB", "c", "d")))
    with pytest.raises(RequestRefused, match="must be a class label, got 'ab'"):
        engine.label("ab")


@pytest.mark.parametrize("prompt", ["4", "-1", "", "seven", "1.0", "3" * 5000, "\u0663", "../etc"])
def test_other_labels_are_refused_with_the_allowed_ones(engine: Engine, prompt: str) -> None:
    with pytest.raises(RequestRefused, match=r"allowed: 0\.\.3 or zero, one, two, three") as caught:
        engine.accept(prompt, seed=0)
    assert caught.value.param == "prompt"
    assert len(str(caught.value)) < 300


def test_a_model_without_classes_takes_no_prompt() -> None:
    engine = Engine(gaussian(classes=0), record_of(classes=0, label_names=()))
    accepted = engine.accept("", seed=0, n=2)
    assert accepted.label is None
    assert engine.sample([accepted])[0].shape == (2, *SHAPE)
    with pytest.raises(RequestRefused, match="must be empty"):
        engine.accept("3", seed=0)


@pytest.mark.parametrize(
    ("param", "n", "seed", "size", "steps"),
    [
        ("n", 0, 0, None, None),
        ("n", MAX_IMAGES + 1, 0, None, None),
        ("seed", 1, -1, None, None),
        ("seed", 1, MAX_SEED + 1, None, None),
        ("size", 1, 0, "16x16", None),
        ("steps", 1, 0, None, 0),
        ("steps", 1, 0, None, 65),
    ],
)
def test_values_out_of_range_are_refused(
    engine: Engine, param: str, n: int, seed: int, size: str | None, steps: int | None
) -> None:
    with pytest.raises(RequestRefused, match=f"^{param} must be .*, got ") as caught:
        engine.accept("1", seed=seed, n=n, size=size, steps=steps)
    assert caught.value.param == param


def test_size_is_width_by_height() -> None:
    shape = (3, 4, 6)
    engine = Engine(gaussian(shape=shape), record_of(shape=shape))
    assert engine.size == "6x4"
    assert engine.accept("1", seed=0, size="6x4").n == 1


def test_steps_follow_the_domain() -> None:
    grid = Engine(gaussian(domain=GRID), record_of(domain=GRID))
    assert grid.steps == (1, 2, 4)
    with pytest.raises(RequestRefused, match="got 3; allowed: 1, 2, 4"):
        grid.accept("1", seed=0, steps=3)
    once = Domain(kind=DomainKind.FROM_NOISE)
    assert Engine(gaussian(domain=once), record_of(domain=once)).steps == (1,)
    velocity = Engine(gaussian(domain=DIAGONAL), record_of(domain=DIAGONAL))
    assert velocity.steps == tuple(range(1, 65))


def test_a_consistency_map_draws_fresh_noise_for_each_step() -> None:
    to_data = Domain(kind=DomainKind.TO_DATA)
    engine = Engine(gaussian(domain=to_data), record_of(domain=to_data), bucket=4)
    (once,) = engine.sample([draw(n=500)])
    (twice,) = engine.sample([draw(n=500, steps=2)])
    assert not torch.equal(once, twice)
    # 32000 independent coordinates: the standard error of the mean is STD / 179.
    assert abs(twice.mean().item() - MEAN) < 5 * STD / 179


def test_a_sampler_that_a_model_was_registered_with_is_used_at_its_number_of_steps() -> None:
    inner = {"_target_": "onestep.methods.core.grid.ListGrid", "inner": [0.3]}
    node = {"_target_": "onestep.methods.core.sampler.Renoise", "grid": inner}
    plain = Engine(gaussian(), record_of(), bucket=4)
    own = Engine(gaussian(), replace(record_of(), sampler=node), bucket=4)
    for steps, is_same in ((1, True), (2, False), (3, True)):
        (first,), (second,) = (one.sample([draw(n=2, steps=steps)]) for one in (plain, own))
        assert torch.equal(first, second) is is_same
    (found,) = own.sample([draw(n=2, steps=2)])
    sampler = Renoise(grid=ListGrid(inner=(0.3,)))
    wanted = sampler.sample(gaussian(), draw_noise(2, SHAPE, seed=0, draws=2))
    assert torch.allclose(found, wanted.clamp(-1.0, 1.0), atol=1e-6)


def test_a_sampler_of_more_evaluations_than_are_served_is_refused() -> None:
    grid = {"_target_": "onestep.methods.core.grid.UniformGrid", "steps": 65}
    node = {"_target_": "onestep.methods.core.sampler.Jumps", "grid": grid}
    with pytest.raises(ValueError, match="at most 64 evaluations, got digits with a sampler of 65"):
        Engine(gaussian(), replace(record_of(), sampler=node))


def test_a_sampler_of_another_package_is_not_built() -> None:
    node = {"_target_": "subprocess.Popen"}
    with pytest.raises(ModelNotTrusted, match=r"the sampler of a model 'digits' names subprocess"):
        Engine(gaussian(), replace(record_of(), sampler=node))


@pytest.mark.parametrize("shape", [(2,), (2, 8, 8), (8, 8)])
def test_a_model_that_makes_no_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="makes images"):
        Engine(gaussian(shape=shape), record_of(shape=shape))


def test_a_model_of_tokens_is_refused_also_inside_a_preconditioner() -> None:
    inner = {"_target_": "any.Net", "vocabulary": 5}
    for net in (inner, {"_target_": "any.Preconditioned", "net": inner}):
        with pytest.raises(ValueError, match="takes class labels"):
            Engine(gaussian(), record_of(net=net))


def test_a_bucket_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="bucket must be at least 1, got 0"):
        Engine(gaussian(), record_of(), bucket=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_grey_levels(channels: int) -> None:
    x = torch.linspace(-1.5, 1.5, channels * 24).reshape(1, channels, 4, 6)
    levels = to_uint8(x)
    assert levels.shape == (1, 4, 6, channels)
    assert levels.min() == 0
    assert levels.max() == 255
    assert torch.equal(decoded(encode_png(levels[0])), levels[0])


def test_black_white_and_middle_have_their_levels() -> None:
    x = torch.tensor([-1.0, 1.0, 0.0, -2.0]).reshape(1, 1, 2, 2)
    assert to_uint8(x).flatten().tolist() == [0, 255, 128, 0]
