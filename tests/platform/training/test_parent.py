"""Parents of another path, or that never lost a label, are refused before the first stage runs."""

from dataclasses import replace

import pytest

from onestep.methods.core.method import AbstractLearner
from onestep.methods.core.path import TrigonometricPath
from onestep.methods.flow_matching import FlowMatching
from onestep.platform.build import build
from onestep.platform.configuration import compose
from onestep.platform.data.digits import Digits
from onestep.platform.registry.record import ModelRecord
from onestep.platform.training.parent import require_data, require_lost_labels_of
from onestep.platform.training.sequence import StageSequence
from onestep.tests.platform.training.catalogue import CATALOGUE

TRIGONOMETRIC = "method.path._target_=onestep.methods.core.path.TrigonometricPath"
GUIDED_BY_ITSELF = "teacher_guidance@method.guidance=labels"
NEVER = "method.label_dropout.probability=0"


def plan(stages: str, **changes: str) -> dict[str, list[str]]:
    """A sequence of the catalogue, of which some stages have one override more."""
    found: dict[str, list[str]] = compose("train", [f"stages={stages}"])["stages"]
    return {name: [*lines, *filter(None, [changes.get(name)])] for name, lines in found.items()}


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_method_says_on_which_path_its_map_is(name: str) -> None:
    node = compose("train", [f"method={name}"])["method"]
    learner = build(node, AbstractLearner)
    assert learner.domain.path == "linear"
    if "path" in node and "endpoint" not in node:
        other = replace(learner, path=TrigonometricPath())  # type: ignore[type-var]
        assert other.domain.path == "trigonometric"
        assert not other.domain.is_straight


@pytest.mark.parametrize(
    "name",
    [
        "consistency_distillation",
        "consistency_trajectory",
        "continuous_distillation",
        "align_your_flow",
        "dmd2",
        "flow_generator_matching",
        "flow_map_matching",
        "progressive_distillation",
    ],
)
def test_a_student_of_the_linear_path_refuses_a_teacher_of_another(name: str) -> None:
    stages = plan(f"eight_gaussians_{name}", teacher=TRIGONOMETRIC)
    with pytest.raises(
        ValueError,
        match=r"needs a teacher of the path linear, got teacher of the path trigonometric$",
    ):
        StageSequence.of(stages).check()


def test_every_frozen_model_has_to_be_of_the_path_of_the_method() -> None:
    stages = plan("eight_gaussians_flow_guided_distillation", flow=TRIGONOMETRIC)
    with pytest.raises(ValueError, match="needs a weak of the path linear, got flow of the path t"):
        StageSequence.of(stages).check()


@pytest.mark.parametrize("name", ["flow_map_matching", "dmd2"])
def test_a_student_may_share_the_path_of_its_teacher(name: str) -> None:
    stages = plan(f"eight_gaussians_{name}", teacher=TRIGONOMETRIC, student=TRIGONOMETRIC)
    assert len(StageSequence.of(stages).check()) == 2


def test_pairs_may_be_made_on_any_path() -> None:
    stages = plan("eight_gaussians_reflow", teacher=TRIGONOMETRIC)
    assert len(StageSequence.of(stages).check()) == len(stages)


@pytest.mark.parametrize("stage", ["teacher", "flow"])
def test_guided_pairs_need_a_teacher_that_lost_labels(stage: str) -> None:
    StageSequence.of(plan("digits_instaflow")).check()
    with pytest.raises(
        ValueError, match=rf"pairs\.guidance reads {stage} without its condition.*above 0, got 0$"
    ):
        StageSequence.of(plan("digits_instaflow", **{stage: NEVER})).check()


def test_a_teacher_that_guides_itself_must_have_lost_labels() -> None:
    student = ["data=digits", "method=align_your_flow", "parents.teacher={teacher}"]
    teacher = ["data=digits", "method=flow_matching"]
    stages = {"teacher": teacher, "student": [*student, GUIDED_BY_ITSELF, "+net.guided=true"]}
    StageSequence.of(stages).check()
    with pytest.raises(ValueError, match="guidance reads teacher without its condition"):
        StageSequence.of(stages | {"teacher": [*teacher, NEVER]}).check()


EIGHT = "data=eight_gaussians"


@pytest.mark.parametrize(
    ("teacher", "student", "words"),
    [
        (["method=edm"], ["method=flow_map_matching"], r"diagonal on \[0, 1\], got teacher with"),
        (["method=ddpm"], ["method=align_your_flow"], r"diagonal on \[0, 1\], got teacher with"),
        (
            ["method=continuous_consistency"],
            ["method=flow_map_matching", "matching@method.matching=progressive"],
            r"triangle on \[0, 1\], got teacher with domain to_data",
        ),
        (
            ["method=continuous_consistency"],
            ["method=progressive_distillation"],
            r"tiling of 2 steps on \[0, 1\], got teacher with domain to_data",
        ),
    ],
    ids=["edm", "ddpm", "jumps of others", "one jump"],
)
def test_a_teacher_is_refused_where_it_says_nothing_before_the_first_stage_runs(
    teacher: list[str], student: list[str], words: str
) -> None:
    stages = {
        "teacher": [EIGHT, *teacher],
        "student": [EIGHT, *student, "parents.teacher={teacher}"],
    }
    with pytest.raises(ValueError, match=f"the method asks its teacher for domain {words}"):
        StageSequence.of(stages).check()


@pytest.mark.parametrize("teacher", ["edm", "ddpm"])
@pytest.mark.parametrize("student", ["dmd2", "flow_generator_matching"])
def test_a_teacher_of_any_range_serves_where_times_are_moved_into_it(
    teacher: str, student: str
) -> None:
    stages = {
        "teacher": [EIGHT, f"method={teacher}"],
        "student": [EIGHT, f"method={student}", "parents.teacher={teacher}"],
    }
    assert len(StageSequence.of(stages).check()) == 2


def test_classes_have_to_agree_where_both_know_some() -> None:
    digits = Digits()
    for classes in (0, 10):
        require_data("teacher", shape=(1, 8, 8), classes=classes, source=digits)
    with pytest.raises(ValueError, match="the teacher knows 3 classes, the data have 10"):
        require_data("teacher", shape=(1, 8, 8), classes=3, source=digits)


def record(method: dict[str, object], **changes: object) -> ModelRecord:
    values = ModelRecord(
        name="digits",
        method=method,
        net={"_target_": "onestep.methods.nets.mlp.MLP"},
        shape=(1, 8, 8),
        domain=FlowMatching().domain.to_dict(),
        data_digest="ab",
        seed=0,
    )
    return replace(values, **changes)  # type: ignore[arg-type]


def test_a_record_that_leaves_the_dropout_out_has_that_of_its_class() -> None:
    require_lost_labels_of("pairs.guidance", "digits/1", record(node("flow_matching.FlowMatching")))
    for silent in ("reflow.ReFlow", "slim_flow.SlimFlow"):
        with pytest.raises(ValueError, match="reads digits/1 without its condition"):
            require_lost_labels_of("pairs.guidance", "digits/1", record(node(silent)))


def test_weights_from_elsewhere_are_taken_as_they_are() -> None:
    origin = {"licence": "MIT", "source": "somewhere", "sha256": "0" * 64}
    outside = record(node("reflow.ReFlow"), origin=origin)
    require_lost_labels_of("pairs.guidance", "digits/1", outside)


def node(method: str) -> dict[str, object]:
    return {"_target_": f"onestep.methods.{method}"}
