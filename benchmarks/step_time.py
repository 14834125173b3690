"""Time and memory of a MeanFlow step over a flow-matching step: same network, same batch, in turns.

    python benchmarks/step_time.py             measure and judge
    python benchmarks/step_time.py --judge     judge the stored numbers again

A quarter of the rows lies off the diagonal. Each round takes one step of every kind in turn, and
the ratio of each kind is the median over rounds of its time over flow matching's in that round.
Memory is the most that torch's allocator holds within a step, above what it held before.
The error of a derivative is measured against float64 at the same weights. Results go to
benchmarks/results/step_time.json and to docs/method_cost.md.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from onestep.benchmarks import method_cost_page
from onestep.benchmarks.record import Bars, at_most, run
from onestep.methods.core.calculus import AbstractDerivative, ForwardMode
from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import FlowMap
from onestep.methods.core.method import AbstractMethod
from onestep.methods.core.record import Batch, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.core.times import SortedTimes
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.mean_flow import MeanFlow
from onestep.platform.build import build
from onestep.platform.configuration import compose
from onestep.platform.training.derivative_costs import measure, recommend
from onestep.platform.training.peak_memory import peak_bytes

ROUNDS = 25
DIAGONAL = 0.75
MOST = {
    "exact_ratio": 1.3,
    "recommended_ratio": 1.2,
    "exact_memory_ratio": 1.2,
    "recommended_memory_ratio": 1.2,
}


def network(name: str, shape: tuple[int, ...]) -> tuple[FlowMap, str]:
    node = compose("train", [f"net={name}"])["net"]
    torch.manual_seed(0)
    net = build(node, FlowMap, shape=shape, classes=10, domain=MeanFlow().domain)
    with torch.no_grad():
        for parameter in net.parameters():  # the head starts at zero, which hides all gradients
            parameter.add_(0.02 * torch.randn_like(parameter))
    count = sum(p.numel() for p in net.parameters())
    return net, f"{node['_target_'].rsplit('.', 1)[1]} {name}, {count / 1e6:.2f} M parameters"


def noise(shape: tuple[int, ...], rows: int) -> Batch:
    rng = Rng.seeded(1)
    return Batch(
        x1=rng.normal(rows, *shape),
        x0=rng.normal(rows, *shape),
        condition=Condition(label=rng.integers(rows, below=10)),
        index=torch.arange(rows),
    )


def step(method: AbstractMethod, net: FlowMap, batch: Batch, k: int) -> float:
    now = Moment(step=k, total=10**6, rng=Rng.seeded(0, step=k))
    begin = time.perf_counter()
    net.zero_grad(set_to_none=True)
    method.loss(Nets(online=net), batch, now).total.mean().backward()
    return time.perf_counter() - begin


def memory(method: AbstractMethod, net: FlowMap, batch: Batch) -> int:
    net.zero_grad(set_to_none=True)  # a step that releases gradients would seem to take less
    return peak_bytes(lambda: step(method, net, batch, 0), torch.device("cpu"))


def compare(name: str, shape: tuple[int, ...], rows: int) -> dict[str, object]:
    net, title = network(name, shape)
    costs = measure(net, shape, 10)
    cheap = recommend(costs)
    derivatives: dict[str, AbstractDerivative] = {
        "exact": ForwardMode(),
        "recommended": build(cheap.node, AbstractDerivative),
    }
    times = SortedTimes(diagonal=Constant(value=DIAGONAL))
    methods: dict[str, AbstractMethod] = {"flow_matching": FlowMatching()}
    for kind, derivative in derivatives.items():
        methods[kind] = replace(MeanFlow(times=times), derivative=derivative)
    batch = noise(shape, rows)
    seconds: dict[str, list[float]] = {kind: [] for kind in methods}
    for k in range(ROUNDS + 2):
        for kind, method in methods.items():
            taken = step(method, net, batch, k)
            if k >= 2:  # the first rounds warm up
                seconds[kind].append(taken)
    ratios = {
        kind: [a / b for a, b in zip(seconds[kind], seconds["flow_matching"], strict=True)]
        for kind in derivatives
    }
    most = {kind: memory(method, net, batch) for kind, method in methods.items()}
    errors = {cost.name: cost.error for cost in costs}
    result = {
        "network": title,
        "rows": rows,
        "shape": list(shape),
        "flow_matching_s": statistics.median(seconds["flow_matching"]),
        "exact_ratio": statistics.median(ratios["exact"]),
        "exact_error": errors["forward mode"],
        "recommended": cheap.name,
        "recommended_ratio": statistics.median(ratios["recommended"]),
        "recommended_error": cheap.error,
        "flow_matching_bytes": most["flow_matching"],
        "exact_memory_ratio": most["exact"] / most["flow_matching"],
        "recommended_memory_ratio": most["recommended"] / most["flow_matching"],
        "quartiles_exact": statistics.quantiles(ratios["exact"], n=4),
        "quartiles_recommended": statistics.quantiles(ratios["recommended"], n=4),
    }
    print(
        f"{title}: exact {result['exact_ratio']:.2f}x, {cheap.name} "
        f"{result['recommended_ratio']:.2f}x with relative error {cheap.error:.1e}; memory "
        f"{result['exact_memory_ratio']:.2f}x and {result['recommended_memory_ratio']:.2f}x",
        flush=True,
    )
    return result


def measure_all() -> dict[str, Any]:
    cases = [
        ("mlp_digits", (1, 8, 8), 256),
        ("unet_digits", (1, 8, 8), 128),
        ("unet_mnist", (1, 28, 28), 16),
        ("dit_tiny", (1, 8, 8), 128),
    ]
    results = [compare(*case) for case in cases]
    return {"off_diagonal_share": 1 - DIAGONAL, "cases": results}


def bars(numbers: Mapping[str, Any]) -> Bars:
    return [
        at_most(case[ratio], most, network=case["network"], ratio=ratio)
        for case in numbers["cases"]
        for ratio, most in MOST.items()
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    run("step_time", measure_all, bars)
    method_cost_page.write()
