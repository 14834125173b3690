"""Whether the guardian tells lost runs from healthy ones: python benchmarks/guardian.py [RUN].

    python benchmarks/guardian.py                  all runs
    python benchmarks/guardian.py --judge          judge the stored rounds by the rule of today

Short runs, some by the recipes as they are, some broken on purpose, are probed to their ends and
never stopped, so that what became of them is known. Results go to benchmarks/results/guardian.json,
where runs that are not named keep their numbers.
"""

import argparse
import json
import math
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from onestep.benchmarks.recipes import BRIEF, Workshop
from onestep.benchmarks.record import RESULTS, Bars, at_least, at_most, judged, machine, save
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import assemble
from onestep.platform.training.guard import Guard
from onestep.platform.training.health import Health
from onestep.platform.training.place import Place
from onestep.platform.training.sequence import StageSequence
from onestep.platform.training.worker import start

NAME: Final = "guardian"
ROUNDS: Final = 20
"""Rounds of probes in each run."""
_SHORT: Final = ("training.batch_size=128", "training.shards=1", "training.threads=1")
_PLANE: Final = ("training.samples=60000", *_SHORT)
_DIGITS: Final = ("net=mlp_digits", "training.samples=20000", *_SHORT)
_TEACHER: Final = ("experiment=eight_gaussians_flow_matching", "training.samples=120000", *_SHORT)
_DECAY: Final = ("optimizer=adamw", "optimizer.weight_decay=100")
_SPIKE: Final = (
    "~learning_rate",
    "+learning_rate={_target_:onestep.methods.core.schedule.Piecewise,"
    "values:[1.0,200.0],boundaries:[0.5]}",
)
"""The learning rate is two hundred times higher from the middle of the run on."""
_INDEPENDENT: Final = "coupling@method.coupling=independent"
"""Pairs of a neural flow without which all noise goes to the mean of the data."""
RATES: Final = {
    "mean_flow": 1e-3,
    "alpha_flow": 2e-3,
    "consistency_training": 2e-3,
    "flow_matching": 2e-3,
    "self_distillation": 2e-3,
    "shortcut": 2e-3,
}
"""Learning rates of the recipes for eight Gaussians."""
ON_DIGITS: Final = ("mean_flow", "flow_matching", "consistency_training")
LEAST_SAVED: Final = 0.5
"""Share of the samples of lost runs that the guardian has to save."""


def _plane(method: str, *more: str) -> tuple[str, ...]:
    return (f"experiment=eight_gaussians_{method}", *_PLANE, *more)


def _digits(method: str, *more: str) -> tuple[str, ...]:
    return (f"experiment=digits_{method}", *_DIGITS, *more)


def runs() -> dict[str, tuple[str, ...]]:
    """Overrides by run; the name of a broken one says after a colon how it is broken."""
    found = {method: _plane(method) for method in RATES}
    found |= {f"digits {method}": _digits(method) for method in ON_DIGITS}
    found |= {method: _plane(method) for method in ("neural_flow", "dmd2")}
    for times in (30, 100):
        for method, rate in RATES.items():
            found[f"{method}: rate x {times}"] = _plane(method, f"optimizer.lr={times * rate:g}")
    found["dmd2: rate x 100"] = _plane("dmd2", "optimizer.lr=0.1")
    for method in ON_DIGITS[:2]:
        found[f"digits {method}: rate x 100"] = _digits(method, "optimizer.lr=0.1")
    for method in ("mean_flow", "flow_matching"):
        found[f"{method}: decay"] = _plane(method, *_DECAY)
    for method in ("mean_flow", "alpha_flow"):
        found[f"{method}: spike"] = _plane(method, *_SPIKE)
    found["neural_flow: independent"] = _plane("neural_flow", _INDEPENDENT)
    return found


def measure(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Train to the end, or until a loss is no number, and keep the rounds on the way."""
    experiment = Experiment.from_dict(compose("train", overrides), overrides)
    training, place = experiment.training, Place()
    learning, _ = start(assemble(experiment), place)
    guard = Guard(experiment, place)
    guard.attend(learning, {})
    rounds: list[dict[str, Any]] = []
    probing, begin = 0.0, time.process_time()
    while learning.step < training.steps:
        guard.note(learning.advance(), learning)
        if not guard.is_due(learning.step):
            continue
        before = time.process_time()
        found = guard.measure(learning)
        probing += time.process_time() - before
        samples = learning.step * training.batch_size
        rounds.append({"samples": samples, "progress": guard.progress(samples), "found": found})
        if any(math.isnan(value) for value in found.values()):
            break
    seconds = time.process_time() - begin - probing
    sample_s = seconds / (learning.step * training.batch_size)
    return {
        "overrides": list(overrides),
        "samples": training.samples,
        "core_s": round(seconds + probing, 1),
        "round_in_samples": round(probing / len(rounds) / sample_s),
        "rounds": [_plain(one) for one in rounds],
    }


def _plain(one: Mapping[str, Any]) -> dict[str, Any]:
    """A round as JSON has it: four digits, and words for what is no number."""
    found = {
        name: float(f"{value:.4g}") if math.isfinite(value) else str(value)
        for name, value in one["found"].items()
    }
    return {**one, "progress": round(one["progress"], 4), "found": found}


def verdict(run: Mapping[str, Any]) -> dict[str, Any]:
    """What the rule says of a run, and what became of it."""
    health = Health()
    for one in run["rounds"]:
        found = {name: float(value) for name, value in one["found"].items()}
        health = health.after(found, progress=one["progress"])
        if health.is_lost:
            break
    saved = 1.0 - one["samples"] / run["samples"] if health.is_lost else 0.0
    return {
        "lost_at": one["samples"] if health.is_lost else None,
        "why": health.fault if health.is_lost else "",
        "saved": round(saved, 3),
        "end": _end(run),
    }


def _end(run: Mapping[str, Any]) -> float | None:
    """Distance of the last samples from the data, or None if they are no numbers."""
    last = run["rounds"][-1]["found"]
    best = min(float(last[name]) for name in ("one_step", "many_steps") if name in last)
    return best if math.isfinite(best) else None


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is stored, judged by the rule of today."""
    numbers: dict[str, Any] = {
        name: {**found[name], "verdict": verdict(found[name])} for name in runs() if name in found
    }
    stored = {"runs": numbers}
    return judged(stored, bars(stored))


def is_broken(name: str) -> bool:
    """Whether a run was broken on purpose."""
    return ":" in name


def bars(stored: Mapping[str, Any]) -> Bars:
    """No healthy run is called lost, every broken one is, and most of what it costs is saved."""
    verdicts = {name: run["verdict"] for name, run in stored["runs"].items()}
    broken = [one for name, one in verdicts.items() if is_broken(name)]
    healthy = [one for name, one in verdicts.items() if not is_broken(name)]
    alarms = sum(one["lost_at"] is not None for one in healthy)
    missed = sum(one["lost_at"] is None for one in broken)
    saved = sum(one["saved"] for one in broken) / max(1, len(broken))
    return [
        at_most(alarms, 0, number="false_alarms", of=len(healthy)),
        at_most(missed, 0, number="missed", of=len(broken)),
        at_least(round(saved, 3), LEAST_SAVED, number="saved"),
    ]


def main() -> None:
    """Train the named runs, or all, or judge what is stored."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help=", ".join(runs()))
    parser.add_argument("--judge", action="store_true", help="judge the stored rounds again")
    arguments = parser.parse_args()
    if unknown := set(arguments.runs) - set(runs()):
        parser.error(f"runs are {', '.join(runs())}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    path, about = RESULTS / f"{NAME}.json", machine()
    found = dict(json.loads(path.read_text())["runs"]) if path.exists() else {}
    chosen = () if arguments.judge else arguments.runs or tuple(runs())
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Independent pairs are warned of; what they lead to is what is wanted here.
        warnings.filterwarnings("ignore", "method.coupling is independent")
        teacher = _teacher(Path(folder)) if any(name.startswith("dmd2") for name in chosen) else ""
        for name in chosen:
            more = (f"parents.teacher={teacher}",) if name.startswith("dmd2") else ()
            overrides = (*runs()[name], *more)
            every = Experiment.from_dict(compose("train", overrides)).training.samples // ROUNDS
            found[name] = {"machine": about, **measure((*overrides, f"guardian.every={every}"))}
            print(name, verdict(found[name]), found[name]["core_s"])
            save(NAME, summary(found))
    save(NAME, summary(found))


def _teacher(folder: Path) -> str:
    """A velocity for dmd2, in a home of its own."""
    plan = StageSequence.of({"teacher": list(_TEACHER)}, (BRIEF,))
    made = Workshop(folder).make(plan.stages)
    return str(made["teacher"].trained.reference)


if __name__ == "__main__":
    main()
