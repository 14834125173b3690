"""The sweeps that come with the package: each method has one, and every value in it fits."""

from pathlib import Path
from typing import Final

import optuna
import pytest
import yaml

from onestep.platform.training.assembly import assemble, parts_of
from onestep.sweeps.plan import Plan
from onestep.sweeps.settings import SweepSettings, settings_of
from onestep.sweeps.trial import experiment_of

ROOT: Final = Path(__file__).resolve().parent.parent.parent
METHODS: Final = sorted(path.stem for path in (ROOT / "methods/conf/method").glob("*.yaml"))
FOLDER: Final = ROOT / "sweeps" / "conf" / "sweep"
POINTS: Final = 2
SWEEPS: Final = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def named(name: str) -> SweepSettings:
    """A sweep with names of parents that nobody looks up before a trial."""
    given = parents(settings_of([f"sweep={name}"]).base)
    return settings_of([f"sweep={name}", "sweep.concurrency=1", *given])


def parents(overrides: tuple[str, ...]) -> list[str]:
    """Overrides that name the parents which an experiment lacks."""
    experiment = experiment_of(overrides)
    needs, known = parts_of(experiment).learner.needs, experiment.parents
    given = [f"parents.{role}=x/1" for role in needs.frozen if role not in known.frozen]
    return given if needs.pairs is None else [*given, "parents.pairs=/pairs"]


def test_every_method_has_a_sweep_of_its_name() -> None:
    assert METHODS
    for name in METHODS:
        node = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
        assert node["name"] == name
        assert f"method={name}" in node["base"]


def test_every_sweep_over_images_improves_what_a_gaussian_per_class_does_not_reach() -> None:
    """A Gaussian per class beats one-step models of digits in the sliced distance."""
    for name in SWEEPS:
        settings = settings_of([f"sweep={name}"])
        if "experiment=eight_gaussians_consistency_training" in settings.base:
            continue
        assert {"data=digits", "experiment=digits_short_mean_flow"} & set(settings.base), name
        assert settings.objectives.lead.name == "eval/1nn_deviation", name


@pytest.mark.parametrize("name", SWEEPS)
def test_random_points_of_a_sweep_are_experiments(name: str) -> None:
    settings = settings_of([f"sweep={name}"])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=len(name)))
    points = (settings.space.suggest(study.ask()) for _ in range(100))
    allowed = [point for point in points if settings.space.violated(point) is None]
    assert len(allowed) >= 20, "few points satisfy the constraints"
    for point in allowed[:POINTS]:
        trial = (*settings.base, *settings.space.overrides(point))
        assemble(experiment_of((*trial, *parents(trial))))


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_of_a_sweep_fits(name: str) -> None:
    Plan.of(named(name))
