"""How far models of one recipe drift from each other, and how far broken ones do.

python benchmarks/canary_drift.py             measure and judge
python benchmarks/canary_drift.py --judge     judge the stored numbers again
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import ray.serve  # noqa: F401  which pydantic warns of unless it is there first
import torch
from torch import Tensor

from onestep.benchmarks.record import Bars, at_least, at_most, run
from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import FlowMap
from onestep.platform.api import Model, train
from onestep.platform.registry.canary import CanaryTerms
from onestep.serving.drift import Drift, measure_drift
from onestep.serving.engine import Engine
from onestep.serving.lot import LOT, LOTS, make_lot

SAMPLES: Final = 40_000
SEEDS: Final = (0, 1, 2)
MAX_DRIFT: Final = CanaryTerms().max_drift
CHANGES: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "half the contrast": lambda x: (x + 1.0) / 2.0 - 1.0,
    "brighter by 0.3": lambda x: (x + 0.3).clamp(-1.0, 1.0),
    "one image for each class": lambda x: x[:10].repeat(len(x) // 10, 1),
}
SMALL: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "noise of 0.2": lambda x: noisy(x, 0.2),
    "noise of 0.5": lambda x: noisy(x, 0.5),
    "brighter by 0.05": lambda x: (x + 0.05).clamp(-1.0, 1.0),
}


class Mislabelled(FlowMap):
    """A map that answers each label by the next one's image."""

    def __init__(self, inner: FlowMap, classes: int) -> None:
        super().__init__(domain=inner.domain)
        self._inner = inner
        self._classes = classes

    def forward(
        self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None = None
    ) -> Tensor:
        assert condition is not None
        assert condition.label is not None
        u: Tensor = self._inner(x, s, t, Condition(label=(condition.label + 1) % self._classes))
        return u


def noisy(x: Tensor, size: float) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return (x + size * torch.randn(x.shape, generator=rng)).clamp(-1.0, 1.0)


def trained(seed: int, samples: int) -> Model:
    return train(
        "data=digits",
        "method=mean_flow",
        f"seed={seed}",
        f"training.samples={samples}",
        "evaluation.samples=100",
        "evaluation.nfes=[1]",
        progress=False,
    )


def images(champion: Engine, canary: Engine) -> tuple[Tensor, Tensor, Tensor]:
    lots = [make_lot(champion, canary, number) for number in range(LOTS)]
    return (
        torch.cat([one.champion for one in lots]),
        torch.cat([one.canary for one in lots]),
        torch.tensor([label for one in lots for label in one.labels]),
    )


def drift(x: Tensor, y: Tensor, labels: Tensor) -> dict[str, float]:
    found: Drift = measure_drift(x, y, labels, rng=torch.Generator().manual_seed(0))
    return asdict(found)


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ONESTEP_HOME"] = str(Path(folder))
        models = [trained(seed, SAMPLES) for seed in SEEDS]
        short = [trained(0, SAMPLES // part) for part in (4, 16)]
    record = models[0].record
    engines = [Engine(model.flow_map, record) for model in (*models, *short)]
    seeds = {
        f"seeds {a} and {b}": drift(*images(engines[a], engines[b]))
        for a, b in combinations(range(len(SEEDS)), 2)
    }
    x, y, labels = images(engines[0], engines[1])
    wrong = Engine(Mislabelled(models[1].flow_map, record.classes), record)
    broken = {
        "a 16th of the training": drift(*images(engines[0], engines[-1])),
        "labels off by one": drift(*images(engines[0], wrong)),
    }
    broken |= {name: drift(x, change(y), labels) for name, change in CHANGES.items()}
    return {
        "images": LOT * LOTS,
        "max_drift": MAX_DRIFT,
        "same_model": drift(x, x, labels),
        "seeds": seeds,
        "broken": broken,
        "unnoticed": {name: drift(x, change(y), labels) for name, change in SMALL.items()}
        | {"a quarter of the training": drift(*images(engines[0], engines[-2]))},
    }


def bars(numbers: Mapping[str, Any]) -> Bars:
    most = max(found["coefficient"] for found in numbers["seeds"].values())
    return [
        at_most(most, MAX_DRIFT / 2, what="coefficient of one recipe, other seed"),
        *(
            at_least(found["coefficient"], MAX_DRIFT, what=f"coefficient, {name}")
            for name, found in numbers["broken"].items()
        ),
        at_most(
            max(found["p_value"] for found in numbers["broken"].values()),
            0.001,
            what="largest p-value of those",
        ),
    ]


if __name__ == "__main__":
    run("canary_drift", measure, bars)
