"""The rules of Euler and Heun at a few evaluations of a velocity.

    python benchmarks/few_steps.py             measure and judge
    python benchmarks/few_steps.py --judge     judge the stored numbers again

Trains flow matching on digits for two minutes of one thread, and compares samples of equally many
evaluations with held-out digits. It decides which rule a velocity is sampled by where nobody names
one (methods/core/sampler_choice.py), and the bar is that the rule chosen there is the better one.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onestep.benchmarks.record import Bars, run
from onestep.benchmarks.training import train
from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.ode import Euler, Heun
from onestep.methods.core.sampler import AbstractSampler
from onestep.methods.core.sampler_choice import sampler_for
from onestep.platform.evaluation.benchmark import Benchmark
from onestep.platform.evaluation.sampling import draw_samples

OVERRIDES = [
    "data=digits",
    "net=mlp_digits",
    "method=flow_matching",
    "training.samples=300000",
    "training.threads=1",
]
NFES = (2, 4, 6, 8, 10, 16)
METRICS = ("eval/1nn_accuracy", "eval/sliced_w2")


def measure() -> dict[str, Any]:
    trained = train(OVERRIDES)
    flow_map, dataset = trained.flow_map, trained.dataset
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark.prepare(dataset, home=Path(folder), samples=2000, draws=4, seed=7)
    cases = []
    for nfe in NFES:
        rules: list[AbstractSampler] = [
            Euler(grid=UniformGrid(steps=nfe)),
            Heun(grid=UniformGrid(steps=nfe // 2)),
        ]
        for rule in rules:
            x = draw_samples(
                flow_map,
                rule,
                n=benchmark.draws * benchmark.count,
                shape=dataset.shape,
                seed=benchmark.seed,
                condition=benchmark.asked,
            )
            scores = benchmark.judge(x)
            found = {name: scores[name].value for name in METRICS}
            cases.append({"nfe": nfe, "rule": type(rule).__name__, **found})
            print(f"{nfe:3d} NFE {type(rule).__name__:5s} {found}", flush=True)
    floors = {name: benchmark.floors[name] for name in METRICS}
    return {"overrides": OVERRIDES, "floors": floors, "cases": cases}


def bars(numbers: Mapping[str, Any]) -> Bars:
    found = []
    for nfe in NFES:
        chosen = type(sampler_for(Domain(kind=DomainKind.DIAGONAL), nfe)).__name__
        rules = {case["rule"]: case for case in numbers["cases"] if case["nfe"] == nfe}
        for metric in METRICS:
            best = min(rules, key=lambda rule: rules[rule][metric])
            found.append(
                {
                    "nfe": nfe,
                    "metric": metric,
                    "value": chosen,
                    "bar": f"the better rule, {best}",
                    "reached": chosen == best,
                }
            )
    return found


if __name__ == "__main__":
    run("few_steps", measure, bars)
