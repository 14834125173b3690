"""What holds of images when forwards are made faster."""

import asyncio
import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from onestep.serving.batcher import Batcher
from onestep.serving.engine import Draw, Engine
from onestep.serving.image import to_uint8
from onestep.serving.loading import load_engine
from onestep.serving.settings import AppSettings
from onestep.serving.speed import Speed
from onestep.tests.serving.model import UNET_NODE, record_of, unet

FAST = [
    Speed(channels_last=True),
    Speed(dtype="bfloat16"),
    Speed(dtype="bfloat16", channels_last=True),
]


def engine(speed: Speed | None = None, *, bucket: int = 16) -> Engine:
    return Engine(unet(), record_of(net=UNET_NODE), bucket=bucket, speed=speed)


def draw(*, seed: int = 0, n: int = 1, label: int = 3, steps: int = 2) -> Draw:
    return Draw(label=label, n=n, seed=seed, steps=steps)


def check_promises(fast: Engine, speed: Speed) -> None:
    """The same bits beside any neighbours in a bucket, and nearly the same in another."""
    mine = draw(seed=11, n=3, label=2)
    alone, *_ = fast.sample([mine])
    for place in range(2):
        others = [draw(seed=1, n=1, label=1)]
        company = [*others[:place], mine, *others[place:]]
        assert torch.equal(fast.sample(company)[place], alone)
    (plain,) = engine(bucket=fast.bucket).sample([mine])
    (beside, *_) = fast.sample([mine, draw(n=fast.bucket)])
    if speed.dtype == "float32":
        torch.testing.assert_close(beside, alone, atol=1e-5, rtol=0.0)
        torch.testing.assert_close(plain, alone, atol=1e-5, rtol=0.0)
        assert (to_uint8(beside).int() - to_uint8(alone).int()).abs().max() <= 1
    else:  # a bfloat16 has eight bits, and so the images of this net have hardly more
        assert (beside - alone).abs().max() <= 0.02 * alone.abs().max()
        assert (plain - alone).abs().max() <= 0.05 * alone.abs().max()
        assert not torch.equal(plain, alone)
    assert alone.dtype == torch.float32
    assert alone.is_contiguous()


@pytest.mark.parametrize("speed", FAST, ids=str)
def test_images_keep_their_promises_however_they_are_made(speed: Speed) -> None:
    check_promises(engine(speed), speed)


def test_the_weights_lie_as_the_images_do() -> None:
    net = unet()
    Engine(net, record_of(net=UNET_NODE), speed=Speed(channels_last=True))
    layouts = [
        weight.is_contiguous(memory_format=torch.channels_last)
        for weight in net.parameters()
        if weight.dim() == 4
    ]
    assert layouts
    assert all(layouts)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_a_compiled_engine_compiles_each_bucket_before_it_serves_and_none_after() -> None:
    torch.compiler.reset()
    counters.clear()
    fast = engine(Speed(compile=True), bucket=2)
    fast.warm_up()
    assert counters["stats"]["unique_graphs"] == len(fast.buckets) == 2
    mine = draw(seed=11, label=2)
    first, _ = fast.sample([mine, draw(seed=1)])
    _, second = fast.sample([draw(seed=2, label=1), mine])
    assert torch.equal(first, second)
    (alone,) = fast.sample([mine])
    (plain,) = engine().sample([mine])
    for other in (first, plain):
        torch.testing.assert_close(alone, other, atol=1e-5, rtol=0.0)

    async def serve() -> None:
        batcher = Batcher(fast, max_waiting=9)
        await asyncio.gather(*(batcher.submit(draw(seed=k, n=1 + k % 4)) for k in range(9)))

    asyncio.run(serve())
    assert counters["stats"]["unique_graphs"] == 2


def test_without_a_compiler_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=r"^serve\.compile needs a C\+\+ compiler .*, got none"):
        load_engine(AppSettings(compile=True, tracking_uri="sqlite:////nowhere/mlflow.db"))
