"""The sweeps that come with the package: each method has one, and every value in it fits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import optuna
import pytest
import torch
import yaml

from onestep.platform.data.source import is_image
from onestep.platform.evaluation.benchmark import GAUSSIAN, Benchmark
from onestep.platform.training.assembly import assemble, parts_of
from onestep.sweeps.earlier import values_of
from onestep.sweeps.objective import OF_IMAGES, OF_POINTS
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


def test_what_sweeps_of_images_improve_is_not_reached_by_noise_or_a_gaussian_per_class(
    tmp_path: Path,
) -> None:
    digits = assemble(experiment_of(("data=digits", "method=mean_flow", "net=mlp_digits"))).source
    bench = Benchmark.prepare(digits.load(), home=tmp_path, samples=200, draws=4)
    noise = torch.randn(800, *digits.shape, generator=torch.Generator().manual_seed(0))
    floor, gaussian = bench.floors[OF_IMAGES], bench.baselines[GAUSSIAN][OF_IMAGES]
    assert gaussian > 1.5 * floor
    assert bench.judge(noise)[OF_IMAGES].value > 10.0 * gaussian


@pytest.mark.parametrize("name", SWEEPS)
def test_random_points_of_a_sweep_are_experiments_that_its_objective_suits(name: str) -> None:
    settings = settings_of([f"sweep={name}"])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=len(name)))
    points = (settings.space.suggest(study.ask()) for _ in range(100))
    allowed = [point for point in points if settings.space.violated(point) is None]
    assert len(allowed) >= 20, "few points satisfy the constraints"
    for point in allowed[:POINTS]:
        trial = (*settings.base, *settings.space.overrides(point))
        shape = assemble(experiment_of((*trial, *parents(trial)))).source.shape
        lead = settings.objectives.on(shape).lead.name
        assert lead == (OF_IMAGES if is_image(shape) else OF_POINTS)


@pytest.mark.parametrize("name", SWEEPS)
def test_points_of_a_sweep_are_read_again_from_the_lines_of_their_trials(name: str) -> None:
    """One of each shape and number of knots of each of its schedules."""
    settings = settings_of([f"sweep={name}"])
    space = settings.space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=len(name)))
    points = [space.suggest(study.ask()) for _ in range(100)]
    names = [f"{key}.{part}" for key in space.schedules for part in ("shape", "knots")]
    by_kind = {tuple(point.get(one) for one in names): point for point in points}
    kinds = {kind for point in points for kind in point.items() if kind[0] in names}
    assert kinds == {
        (one, value)
        for one in names
        if one in space.dimensions
        for value in space.dimensions[one].extremes
    }
    for point in by_kind.values():
        overrides = space.overrides(point)
        found = values_of((*settings.base, *overrides), space)
        assert space.overrides(found) == overrides
        assert found == pytest.approx(point, abs=1e-11)


@pytest.mark.parametrize(
    ("name", "told", "meant"),
    [
        ("ddpm", "net.clock.beta_min", "method.clock.beta_min"),
        ("ddpm", "net.clock.beta_max", "method.clock.beta_max"),
        ("edm", "net.sigma_data", "method.weighting.sigma_data"),
    ],
)
def test_a_network_is_told_the_clock_and_the_spread_that_a_trial_has(
    name: str, told: str, meant: str
) -> None:
    settings = settings_of([f"sweep={name}"])
    for last in settings.space.dimensions[meant].extremes:
        values = {**settings.space.first, meant: last}
        experiment = experiment_of((*settings.base, *settings.space.overrides(values)))
        assert at(experiment.net, told) == at(experiment.method, meant) == last


def at(node: Mapping[str, Any], key: str) -> object:
    """What stands under a key of a part of an experiment."""
    _, *names = key.split(".")
    value: object = node
    for name in names:
        assert isinstance(value, Mapping)
        value = value[name]
    return value


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_of_a_sweep_fits(name: str) -> None:
    Plan.of(named(name))
