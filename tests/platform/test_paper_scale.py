"""The recipes at the scale of the papers: all compose, assemble and say what they aim at."""

import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import torch

from onestep.methods.core.grid import KarrasGrid
from onestep.methods.core.method import AbstractLearner
from onestep.methods.core.record import Moment
from onestep.methods.core.rng import Rng
from onestep.methods.dmd2 import DMD2
from onestep.platform.build import build
from onestep.platform.commands.train import resolved
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import Assembly, assemble
from onestep.platform.training.sequence import StageSequence

ROOT: Final = Path(__file__).resolve().parents[2]
CONF: Final = ROOT / "platform" / "conf"
METHODS: Final = sorted(path.stem for path in (ROOT / "methods" / "conf" / "method").glob("*.yaml"))
STAGES: Final = sorted(path.stem for path in (CONF / "stages").glob("cifar10_*.yaml"))
SMALL: Final = ("flow_guided_distillation", "slim_flow")
CLIPPED: Final = (
    "ddpm",
    "instaflow",
    "neural_flow",
    "progressive_distillation",
    "reflow",
    *SMALL,
)
"""Recipes of papers that clip the gradients of means."""


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


def test_each_method_has_a_recipe() -> None:
    recipes = [path.stem.removeprefix("cifar10_") for path in CONF.glob("experiment/cifar10_*")]
    assert sorted(recipes) == METHODS


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


FIGURE: Final = r"FID \d+\.\d\d at (?P<nfe>\d+) NFE \(arXiv:\d{4}\.\d{5}(, .+)?\)"


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_says_what_its_paper_reports_or_why_there_is_no_figure(name: str) -> None:
    assert re.fullmatch(rf"none: .+|{FIGURE}", recipe(name).published)


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_is_evaluated_where_its_figure_is(name: str) -> None:
    """Within one evaluation: EDM's sampler spares the last of an even number."""
    experiment = recipe(name)
    if found := re.fullmatch(FIGURE, experiment.published):
        nfe = int(found["nfe"])
        assert {nfe, nfe + 1} & set(experiment.evaluation.nfes)


def test_a_velocity_that_is_trained_as_edm_aims_at_edms_figure() -> None:
    edm, velocity = recipe("edm"), recipe("flow_matching")
    for part in ("times", "weighting"):
        assert velocity.method[part] == edm.method[part]
    assert (velocity.net, velocity.optimizer) == (edm.net, edm.optimizer)
    assert (velocity.learning_rate, velocity.training) == (edm.learning_rate, edm.training)
    figure = "FID 1.97 at 35 NFE (arXiv:2206.00364, "
    assert all(it.published.startswith(figure) for it in (edm, velocity))


@pytest.fixture(scope="module")
def home(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    root = tmp_path_factory.mktemp("dry")
    shutil.copy(empty_database, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("ONESTEP_HOME", str(root))
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("name", METHODS)
def test_a_dry_run_of_a_recipe_tells_its_cost_and_what_it_aims_at(name: str) -> None:
    shown = resolved(recipe(name), {}, is_measured=False)
    assert shown["published"] == recipe(name).published
    summary = shown["summary"]
    assert summary["compute"]["flops_per_sample"] > 0
    assert summary["compute"]["flops_in_all"] > 0
    assert summary["memory"]["activations_estimated"] > 0
    assert summary["time"]["hours_at_least"] > 0.0
    needs = build(recipe(name).method, AbstractLearner).needs  # type: ignore[type-abstract]
    assert ("pairs" in summary["compute"]) == (needs.pairs is not None)


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


@pytest.mark.parametrize("name", CLIPPED)
def test_a_norm_at_which_gradients_of_means_are_clipped_is_that_of_sums(name: str) -> None:
    """1 beside means over the dimensions of an image, which the losses sum."""
    assert recipe(name).training.clip_norm / (3 * 32 * 32) == pytest.approx(1.0)


def test_the_fake_score_sees_times_as_far_apart_as_the_noise_levels_of_the_paper() -> None:
    """Even in Karras's coordinate, without 2 % at each end; the logit of a time is -ln sigma."""
    grid = KarrasGrid(steps=1000).times(0.0, 1.0)
    logits = torch.logit(torch.tensor(grid[20:981], dtype=torch.float64))
    law = recipe("dmd2").method["times"]["law"]
    assert law["mean"] == pytest.approx(logits.mean().item(), abs=0.01)
    assert law["std"] == pytest.approx(logits.std().item(), abs=0.01)


@pytest.mark.parametrize("name", [it for it in METHODS if "with LPIPS" in recipe(it).published])
def test_a_recipe_whose_figure_is_one_of_lpips_says_how_to_have_it(name: str) -> None:
    text = (CONF / "experiment" / f"cifar10_{name}.yaml").read_text()
    lines = re.findall(r"(?<=[ \n])(?:perception@)?method\.[\w.]+=\w+", text)
    assert [line for line in lines if line.startswith("perception@")]
    asked = (f"experiment=cifar10_{name}", *lines)
    targets = [
        node["_target_"]
        for node in compose("train", asked)["method"].values()
        if isinstance(node, dict)
    ]
    assert "onestep.platform.training.lpips.Lpips" in targets


@pytest.mark.parametrize("name", ["alpha_flow", "soflow"])
def test_the_offset_of_a_mean_is_that_of_a_sum_over_all_dimensions(name: str) -> None:
    """1e-3 beside means over the dimensions of an image, which the losses sum."""
    weighting = recipe(name).method["weighting"]
    assert weighting["offset"] / (3 * 32 * 32) == pytest.approx(1e-3)


def test_the_ratio_of_gradients_of_ctm_is_taken_at_the_last_layer() -> None:
    assembly = assembled(recipe("consistency_trajectory"))
    with torch.device("meta"):
        *_, weight, _ = (name for name, _ in assembly.net().named_parameters())
    assert assembly.learner.balance.parameter == weight
