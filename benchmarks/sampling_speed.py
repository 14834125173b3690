"""Time to sample in one step over 50 Heun steps of the same network.

python benchmarks/sampling_speed.py             measure and judge
python benchmarks/sampling_speed.py --judge     judge the stored numbers again
"""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch

from onestep.benchmarks.record import Bars, at_least, run
from onestep.benchmarks.step_time import network
from onestep.methods.core.condition import Condition
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.noise import draw_noise
from onestep.methods.core.ode import Heun
from onestep.methods.core.sampler import AbstractSampler, Jumps

ROUNDS = 7
LEAST = 40.0


def measure() -> dict[str, Any]:
    cases = []
    for name, shape in (("mlp_digits", (1, 8, 8)), ("unet_digits", (1, 8, 8))):
        net, title = network(name, shape)
        net.eval()
        for rows in (1, 16, 128):
            noise = draw_noise(rows, shape, seed=0)
            condition = Condition(label=torch.arange(rows) % 10)
            samplers: dict[str, AbstractSampler] = {
                "one_step": Jumps(),
                "heun_50": Heun(grid=UniformGrid(steps=50)),
            }
            seconds: dict[str, list[float]] = {kind: [] for kind in samplers}
            for _ in range(ROUNDS + 1):
                for kind, sampler in samplers.items():
                    begin = time.perf_counter()
                    sampler.sample(net, noise, condition)
                    seconds[kind].append(time.perf_counter() - begin)
            ratio = statistics.median(
                slow / fast
                for slow, fast in zip(seconds["heun_50"][1:], seconds["one_step"][1:], strict=True)
            )
            one = statistics.median(seconds["one_step"][1:])
            cases.append({"network": title, "rows": rows, "one_step_s": one, "times_faster": ratio})
            print(f"{title}, {rows} rows: one step {one * 1e3:.2f} ms, {ratio:.0f}x faster")
    return {"cases": cases}


def bars(numbers: Mapping[str, Any]) -> Bars:
    return [
        at_least(case["times_faster"], LEAST, network=case["network"], rows=case["rows"])
        for case in numbers["cases"]
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    run("sampling_speed", measure, bars)
