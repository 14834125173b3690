"""The main job on real data: a teacher, a sweep, three one-step students, a champion over HTTP.

Run it by `make demo`. The stages and their budgets stand in demo.yaml beside this file. With
--publish, table and pictures go into docs/ too.
"""

import argparse
import base64
import hashlib
import io
import json
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import torch
import yaml
from PIL import Image

from onestep.platform.configuration import compose
from onestep.platform.evaluation.comparison import Comparison, gather
from onestep.platform.evaluation.figures import sample_grid, save_png
from onestep.platform.experiment import Experiment
from onestep.platform.home import Home
from onestep.platform.password import hide_passwords
from onestep.platform.ray_instance import ray_instance
from onestep.platform.registry.reference import Alias, ModelVersion
from onestep.platform.registry.store import Registry
from onestep.platform.training.launch import launch
from onestep.platform.training.registration import Trained
from onestep.platform.training.sequence import Stage
from onestep.platform.training.watcher import Console
from onestep.serving.host import Hosted
from onestep.serving.settings import ServeSettings
from onestep.sweeps.search import sweep
from onestep.sweeps.settings import SweepSettings, settings_of

ALIAS = "champion"
PLAN = Path(__file__).with_name("demo.yaml")


def main() -> None:
    """Run all stages, and publish what they made if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--publish", action="store_true", help="copy the results into docs/")
    is_published = parser.parse_args().publish
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("ray").setLevel(logging.ERROR)
    with ray_instance():  # one for the sweep, the two workers and the server
        files = run_stages()
    if is_published:
        publish(files)


def run_stages() -> Sequence[Path]:
    """All stages in order.

    Returns:
        The files that they made.
    """
    plan: dict[str, Any] = yaml.safe_load(PLAN.read_text())
    home = Home.here()
    registry = Registry.at(home)
    out = home.root / "demo"
    stages = Stages(total=len(plan["students"]) + 5)

    teacher = stages.run("teacher, flow matching", lambda: train(plan["teacher"]))
    settings = settings_of(plan["sweep"])
    found = stages.run("sweep, Ray Tune with Optuna", lambda: sweep(settings, say=Console().say))
    won = chosen(settings, found.best_overrides)
    print(f"  the winner trains MeanFlow: {' '.join(won)}")

    students: dict[str, Trained] = {}
    for name, overrides in plan["students"].items():
        filled = [line.replace("{teacher}", str(teacher.reference)) for line in overrides]
        more = won if name == "mean_flow" else []
        students[name] = stages.run(
            f"student, {name}", lambda filled=filled, more=more: train([*filled, *more])
        )

    everyone = {str(t.reference): t.report for t in (teacher, *students.values())}
    comparison = stages.run("comparison", lambda: gather(registry, everyone))
    files = comparison.write(out)
    print(comparison.table)

    best = stages.run(
        f"promotion to {ALIAS}", lambda: promote(registry, plan["promote"], comparison, students)
    )
    files += (stages.run("serving", lambda: serve_digits(out, champion_of(best))),)
    tell(files, best, teacher, found.storage, home)
    return files


class Stages:
    """Prints a line before and after each stage."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._begin = total, 0, time.monotonic()

    def run(self, what: str, work: Callable[[], Any]) -> Any:
        """Do the work of one stage."""
        self._done += 1
        print(f"\n[{self._done}/{self._total}] {what}", flush=True)
        begin = time.monotonic()
        result = work()
        now = time.monotonic()
        print(f"  {now - begin:.0f} s, {now - self._begin:.0f} s in all", flush=True)
        return result


def chosen(settings: SweepSettings, overrides: Sequence[str]) -> list[str]:
    """What a search has chosen, with the lines that put its curriculum in the place of another."""
    swept = settings.space.first
    return [line for line in overrides if line.partition("=")[0] in swept or line[0] in "~+"]


def train(overrides: Sequence[str]) -> Trained:
    """Train one model as `onestep train` does."""
    experiment = Experiment.from_dict(compose("train", overrides), tuple(overrides))
    return launch(experiment, Console("  "))


def promote(
    registry: Registry, rule: dict[str, Any], comparison: Comparison, students: dict[str, Trained]
) -> str:
    """Give the alias to the student that is best by the rule."""
    measured = {}
    for report, trained in zip(comparison.reports[1:], students.values(), strict=True):
        found = report.find(rule["metric"], nfe=rule["nfe"])
        measured[str(trained.reference)] = found
    best = min(measured, key=lambda reference: measured[reference].value)
    why = f"best {rule['metric']} at {rule['nfe']} NFE: {measured[best].value:.3f}"
    registry.promote(best, ALIAS, why=why)
    low, high = measured[best].interval
    bar = measured[best].baselines["gaussian"]
    print(f"  {best}: {why} [{low:.3f}, {high:.3f}]; a Gaussian per class has {bar:.3f}")
    print("  " + registry.lineage(best).render().replace("\n", "\n  "))
    return best


def champion_of(best: str) -> str:
    """The alias as its model has it: another model may have one of the same name."""
    return str(Alias(alias=ALIAS, name=ModelVersion.parse(best).name))


def serve_digits(out: Path, model: str) -> Path:
    """Host the champion, ask for five images of each digit over HTTP and draw them."""
    rows = []
    with Hosted(ServeSettings.from_dict({"model": model, "port": 0})) as hosted:
        for digit in range(10):
            body = {"model": model, "prompt": str(digit), "n": 5, "seed": digit, "size": "8x8"}
            answer = httpx.post(f"{hosted.url}/v1/images/generations", json=body, timeout=60)
            answer.raise_for_status()
            rows.append([decode(image["b64_json"]) for image in answer.json()["data"]])
        print(f"  10 requests of 5 images each, answered by {hosted.version} at {hosted.url}")
    by_column = torch.stack([torch.stack(row) for row in rows], dim=1).flatten(0, 1)
    path = out / "served.png"
    save_png(sample_grid({"answered over HTTP, one step each": by_column}, columns=10), path)
    return path


def decode(text: str) -> torch.Tensor:
    """The image in [-1, 1] of a base64 PNG."""
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        grey = image.convert("L")
        flat = torch.frombuffer(bytearray(grey.tobytes()), dtype=torch.uint8)
        return (flat.float() / 127.5 - 1.0).reshape(1, grey.height, grey.width)


def tell(
    files: Sequence[Path], best: str, teacher: Trained, optuna_storage: str, home: Home
) -> None:
    """Say where everything is and how to go on."""
    champion = champion_of(best)
    print("\nWhat there is to look at")
    for file in files:
        print(f"  {file}")
    print(
        f"""
How to go on
  . .venv/bin/activate
  onestep serve {champion:<35} host {best} at http://127.0.0.1:8000
  onestep registry lineage {champion}
  onestep compare {teacher.reference} {best}
  onestep train experiment=digits_mean_flow         20 minutes to better digits
  mlflow ui --backend-store-uri {hide_passwords(home.tracking_uri)}
  pip install optuna-dashboard && optuna-dashboard {hide_passwords(optuna_storage)}"""
    )


def composed(plan: dict[str, Any]) -> dict[str, Any]:
    """What decides the results of a plan: its stages as they are composed, and its search."""
    from onestep.benchmarks.record import recipe_of  # stands in the checkout alone

    settings = settings_of(plan["sweep"])
    stages = {"teacher": plan["teacher"], "trials": settings.base, **plan["students"]}
    search = settings.to_dict()
    elsewhere = ("name", "base", "storage", "address", "wandb")
    search = {part: value for part, value in search.items() if part not in elsewhere}
    decisive = {"search": search, "promote": plan["promote"]}
    for name, overrides in stages.items():
        experiment = Stage(name=name, overrides=tuple(overrides)).experiment({"teacher": "teacher"})
        rest = {part: experiment.to_dict()[part] for part in ("parents", "pairs", "evaluation")}
        decisive[name] = recipe_of(experiment) | rest
    return decisive


def plan_digest() -> str:
    """What decides the results of the demo, in short."""
    plan = composed(yaml.safe_load(PLAN.read_text()))
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]


def publish(files: Sequence[Path]) -> None:
    """Copy the table and the pictures to where the README shows them."""
    docs = PLAN.parent.parent / "docs"
    (docs / "images").mkdir(exist_ok=True)
    for file in files:
        if file.suffix == ".png":
            shutil.copy(file, docs / "images" / file.name)
        elif file.suffix == ".md":
            head = (
                "# Results of the demo\n\nWritten by `python examples/demo.py --publish`, after a "
                f"minute or two of training each, with the plan `{plan_digest()}`.\n"
                "A model above the row *Gaussian per class* in 1nn_accuracy, 1nn_deviation or "
                "frechet_features has not yet learned more than that row. The last two also see "
                "noise on top of data, which deceives the accuracy; the last one chooses the "
                "champion.\n\n"
            )
            (docs / "results.md").write_text(head + file.read_text())


if __name__ == "__main__":
    main()
