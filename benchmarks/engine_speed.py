"""What bfloat16 and channels last do to the time of forwards, and to the images.

Compiled engines are left out: they take minutes for each bucket.

python benchmarks/engine_speed.py             measure and judge
python benchmarks/engine_speed.py --judge     judge the stored numbers again
"""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch

from onestep.benchmarks.record import Bars, at_most, run
from onestep.methods.core.flow_map import Domain
from onestep.methods.nets.unet import UNet
from onestep.platform.registry.record import ModelRecord
from onestep.serving.engine import Draw, Engine
from onestep.serving.image import to_uint8
from onestep.serving.speed import Speed

SHAPE = (1, 28, 28)
BUCKETS = (1, 16, 32)
ROUNDS = 9
LEAST_S = 0.02
SPEEDS = {
    "float32": Speed(),
    "channels_last": Speed(channels_last=True),
    "bfloat16": Speed(dtype="bfloat16"),
}


def engine(speed: Speed, bucket: int) -> tuple[Engine, int]:
    torch.manual_seed(0)
    net = UNet(shape=SHAPE, classes=10, domain=Domain(), width=32, multipliers=(1, 2, 2))
    with torch.no_grad():
        for weight in net.parameters():  # the head starts at zero, and would hide all differences
            weight.add_(0.02 * torch.randn_like(weight))
    record = ModelRecord(
        name="digits",
        method={"_target_": "onestep.methods.mean_flow.MeanFlow"},
        net={"_target_": "onestep.methods.nets.unet.UNet"},
        shape=SHAPE,
        classes=10,
        domain=Domain().to_dict(),
        data_digest="0" * 64,
        seed=0,
    )
    size = sum(weight.numel() for weight in net.parameters())
    return Engine(net, record, bucket=bucket, strict=True, speed=speed), size


def draw(n: int) -> Draw:
    return Draw(label=3, n=n, seed=0, steps=1)


def seconds(one: Engine) -> float:
    """Of one request that fills the bucket; the mean of so many that the clock is fine enough."""
    begin, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - begin) < LEAST_S or not count:
        one.sample([draw(one.bucket)])
        count += 1
    return taken / count


def measure() -> dict[str, Any]:
    cases: list[dict[str, Any]] = []
    size = 0
    first: dict[str, torch.Tensor] = {}
    for bucket in BUCKETS:
        engines, loading = {}, {}
        for name, speed in SPEEDS.items():
            begin = time.perf_counter()
            engines[name], size = engine(speed, bucket)
            engines[name].warm_up()
            loading[name] = time.perf_counter() - begin
            print(f"{name} at {bucket} rows is warm after {loading[name]:.1f} s", flush=True)
        taken: dict[str, list[float]] = {name: [] for name in SPEEDS}
        for _ in range(ROUNDS):
            for name, one in engines.items():  # side by side, so that load meets all of them
                taken[name].append(seconds(one))
        images = {name: one.sample([draw(bucket)])[0] for name, one in engines.items()}
        for name, own in images.items():
            first.setdefault(name, own[:1])
            ratios = [a / b for a, b in zip(taken["float32"], taken[name], strict=True)]
            levels = to_uint8(own).int()
            cases.append(
                {
                    "setting": name,
                    "rows": bucket,
                    "median_s": statistics.median(taken[name]),
                    "least_s": min(taken[name]),
                    "times_faster": statistics.median(ratios),
                    "times_faster_of_least": min(taken["float32"]) / min(taken[name]),
                    "warm_after_s": loading[name],
                    "from_float32": (own - images["float32"]).abs().max().item(),
                    "levels_from_float32": int(
                        (levels - to_uint8(images["float32"]).int()).abs().max()
                    ),
                    "from_one_row": (own[:1] - first[name]).abs().max().item(),
                    "levels_from_one_row": int(
                        (levels[:1] - to_uint8(first[name]).int()).abs().max()
                    ),
                }
            )
            print(cases[-1], flush=True)
    return {"parameters": size, "shape": list(SHAPE), "rounds": ROUNDS, "cases": cases}


def bars(numbers: Mapping[str, Any]) -> Bars:
    found: Bars = []
    for case in numbers["cases"]:
        what = {"setting": case["setting"], "rows": case["rows"]}
        if case["setting"] != "bfloat16":
            found += [
                at_most(case["from_float32"], 1e-5, **what, what="from float32"),
                at_most(case["from_one_row"], 1e-5, **what, what="from one row"),
                at_most(case["levels_from_one_row"], 1, **what, what="levels from one row"),
            ]
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    run("engine_speed", measure, bars)
