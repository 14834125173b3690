"""The recipes at the scale of the papers: all compose, assemble and say what they aim at."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import torch
import yaml

from onestep.methods.core.method import AbstractLearner
from onestep.methods.core.record import Moment
from onestep.methods.core.rng import Rng
from onestep.methods.dmd2 import DMD2
from onestep.platform.build import build
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import Assembly, assemble
from onestep.platform.training.sequence import StageSequence

ROOT: Final = Path(__file__).resolve().parents[2]
CONF: Final = ROOT / "platform" / "conf"
METHODS: Final = sorted(path.stem for path in (ROOT / "methods" / "conf" / "method").glob("*.yaml"))
STAGES: Final = sorted(path.stem for path in (CONF / "stages").glob("cifar10_*.yaml"))
PUBLISHED: Final[Mapping[str, Any]] = yaml.safe_load(
    (ROOT / "benchmarks" / "published_cifar10.yaml").read_text()
)
SMALL: Final = ("flow_guided_distillation", "slim_flow")


def assembled(experiment: Experiment) -> Assembly:
    """The experiment as a dry run assembles it, without memory for its weights."""
    with torch.device("meta"):
        return assemble(experiment)


@cache
def recipe(name: str) -> Experiment:
    """A recipe with names for the models that it needs."""
    values = compose("train", [f"experiment=cifar10_{name}"])
    needs = build(values["method"], AbstractLearner).needs
    roles = set(needs.frozen) | ({"teacher"} if needs.pairs else set())
    parents = {role: f"cifar10/{k}" for k, role in enumerate(sorted(roles), start=1)}
    return Experiment.from_dict({**values, "parents": parents})


def test_each_method_has_a_recipe_and_says_what_it_aims_at() -> None:
    recipes = [path.stem.removeprefix("cifar10_") for path in CONF.glob("experiment/cifar10_*")]
    assert sorted(recipes) == METHODS
    assert sorted(PUBLISHED) == METHODS


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_assembles_with_a_network_of_the_papers_size(name: str) -> None:
    experiment = recipe(name)
    assembly = assembled(experiment)
    assert assembly.name == name
    with torch.device("meta"):
        millions = sum(weight.numel() for weight in assembly.net().parameters()) / 1e6
    low, high = (25, 30) if name in SMALL else (50, 60)
    assert low <= millions <= high
    assert experiment.training.samples >= 6_400_000
    assert experiment.training.batch_size >= 128
    assert assembly.source.classes == (10 if name == "dmd2" else 0)


@pytest.mark.parametrize("name", METHODS)
def test_the_comment_of_a_recipe_says_what_the_table_says(name: str) -> None:
    text = (CONF / "experiment" / f"cifar10_{name}.yaml").read_text()
    found = re.search(r"^# Published: (.*)\.$", text, flags=re.MULTILINE)
    assert found is not None
    entry = PUBLISHED[name]
    if entry is None:
        assert found[1] == "none"
    else:
        note = f", {entry['note']}" if "note" in entry else ""
        words = f"FID {entry['fid']:.2f} at {entry['nfe']} NFE ({entry['source']}{note})"
        assert found[1] == words


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_the_stages_assemble_and_start_from_weights_that_fit(name: str) -> None:
    plan = compose("train", [f"stages={name}"])["stages"]
    with torch.device("meta"):
        experiments = dict(zip(plan, StageSequence.of(plan).check(), strict=True))
        nets = {stage: assembled(it).net().state_dict() for stage, it in experiments.items()}
    for stage, experiment in experiments.items():
        first = experiment.parents.initial
        if first is not None:
            shapes = [{key: w.shape for key, w in nets[it].items()} for it in (first, stage)]
            assert shapes[0] == shapes[1]


def test_each_recipe_that_needs_a_model_has_its_stages() -> None:
    for name in METHODS:
        if any(recipe(name).parents.frozen.values()):
            assert f"cifar10_{name}" in STAGES


def test_adversarial_weights_are_published_beside_means_and_set_beside_sums() -> None:
    """DMD2: 1e-3 and 1e-2 beside means over the dimensions of an image, which the losses sum."""
    learner = assembled(recipe("dmd2")).learner
    assert isinstance(learner, DMD2)
    assert learner.adversary is not None
    dimensions = 3 * 32 * 32
    now = Moment(step=0, total=10, rng=Rng.seeded(0), batch_size=1)
    assert learner.adversary.generator(now) / dimensions == pytest.approx(1e-3)
    assert learner.adversary.critic(now) / dimensions == pytest.approx(1e-2)
    assert recipe("dmd2").training.clip_norm / dimensions == pytest.approx(10.0)


def test_the_ratio_of_gradients_of_ctm_is_taken_at_the_last_layer() -> None:
    assembly = assembled(recipe("consistency_trajectory"))
    with torch.device("meta"):
        *_, weight, _ = (name for name, _ in assembly.net().named_parameters())
    assert assembly.learner.balance.parameter == weight
