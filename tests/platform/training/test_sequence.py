"""Sequences of stages: later ones build on earlier ones, and all are checked before the first."""

from pathlib import Path

import pytest

from onestep.platform.registry.store import Registry
from onestep.platform.training.assembly import registry_of
from onestep.platform.training.sequence import Stage, StageSequence
from onestep.platform.training.watcher import Silence
from onestep.tests.platform.training.watching import Meddler

TINY = (
    "data=digits",
    "net=mlp",
    "training.samples=256",
    "training.batch_size=128",
    "training.threads=1",
    "evaluation.nfes=[1]",
    "evaluation.samples=64",
    "pairs.count=128",
    "pairs.steps=2",
    "pairs.real=true",
)
PLAN = {
    "teacher": ("method=flow_matching",),
    "student": ("method=reflow", "parents.teacher={teacher}", "parents.initial={teacher}"),
}


def test_a_stage_must_not_name_a_later_one() -> None:
    stage = Stage(name="student", overrides=("method=reflow", "parents.teacher={teacher}"))
    with pytest.raises(ValueError, match="names the stage 'teacher', earlier stages are none"):
        stage.experiment({})


def test_dictionaries_of_hydra_are_no_names_of_stages() -> None:
    line = "+method.derivative={_target_:onestep.methods.core.calculus.ForwardMode}"
    stage = Stage(name="model", overrides=("method=mean_flow", "~method.derivative", line))
    assert stage.experiment({}).method["derivative"]["_target_"].endswith("ForwardMode")


def test_a_mistake_in_the_last_stage_is_found_before_the_first_one_runs(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    plan = PLAN | {"student": (*PLAN["student"], "method.times.law.nonsense=1")}
    with pytest.raises(ValueError, match="nonsense"):
        StageSequence.of(plan, TINY).run(Silence())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("student", "sentence"),
    [
        (
            ("method=consistency_distillation", "parents.teacher={teacher}"),
            r"the teacher makes data of shape \(2,\), the data have \(1, 8, 8\)",
        ),
        (
            ("method=reflow", "parents.teacher={teacher}"),
            r"the teacher teacher was trained on other data: their shape is \(2,\), that of the ",
        ),
        (("method=mean_flow", "parents.initial={teacher}"), "teacher belongs to another network"),
    ],
    ids=["frozen", "pairs", "initial"],
)
def test_a_teacher_of_other_data_is_refused_before_it_is_trained(
    student: tuple[str, ...], sentence: str, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    small = [line for line in TINY if not line.startswith("data=")]
    plan = {"teacher": ("method=flow_matching", "data=moons"), "student": (*student, "data=digits")}
    with pytest.raises(ValueError, match=sentence):
        StageSequence.of(plan, small).run(Silence())
    assert not any(tmp_path.iterdir())


def test_the_choice_of_stages_is_not_handed_on_to_them() -> None:
    sequence = StageSequence.from_overrides(["stages=digits_reflow", "seed=3"])
    assert [stage.name for stage in sequence.stages] == ["teacher", "student"]
    assert all(stage.overrides[-1] == "seed=3" for stage in sequence.stages)
    assert not any(line.startswith("stages=") for s in sequence.stages for line in s.overrides)


def test_an_override_needs_to_fit_the_stages_alone() -> None:
    """The default experiment, of digits, has no number of samples to generate."""
    lines = ["stages=eight_gaussians_reflow", "data.samples=256"]
    experiments = StageSequence.from_overrides(lines).check()
    assert [each.data["samples"] for each in experiments] == [256, 256]


@pytest.mark.parametrize(
    ("line", "name"), [("run=mine", "mine"), ("run=0", "0"), ("run='first'", "first")]
)
def test_the_name_of_a_run_gives_each_stage_a_folder_of_its_own(line: str, name: str) -> None:
    stages = StageSequence.from_overrides(["stages=digits_reflow", line]).check()
    assert [stage.run for stage in stages] == [f"{name}-teacher", f"{name}-student"]


def interrupt_before_the_student(line: str) -> None:
    if line == "stage student":
        raise InterruptedError


@pytest.mark.slow
def test_a_sequence_that_was_broken_off_goes_on_with_the_teacher_that_it_has_trained(
    home_folder: Path,
) -> None:
    del home_folder  # the environment names it
    lines = ["stages=digits_reflow", "run=first", *TINY]
    interrupting = Meddler(said=interrupt_before_the_student)
    with pytest.raises(InterruptedError):
        StageSequence.from_overrides(lines).run(interrupting)

    for other in ("training.samples=512", "training.ema_served=1"):
        refused = "run first-teacher has ended with other settings and registered digits/1"
        with pytest.raises(ValueError, match=refused):
            StageSequence.from_overrides([*lines, other]).run(Silence())

    done = StageSequence.from_overrides([*lines, "training.log_every=128"]).run(Silence())
    assert list(done) == ["student"]
    registry: Registry = registry_of(StageSequence.of(PLAN, TINY).check()[0])
    assert [str(entry.reference) for entry in registry.list()] == ["digits/1", "digits/2"]
    assert registry.entry("digits/2").record.parents["teacher"] == "digits/1"
    with pytest.raises(ValueError, match="run first-student has ended and registered digits/2"):
        StageSequence.from_overrides(lines).run(Silence())


def test_a_student_is_made_from_its_teachers_pairs(home_folder: Path) -> None:
    del home_folder  # the environment names it
    done = StageSequence.of(PLAN, TINY).run(Silence())
    student = done["student"]
    registry: Registry = registry_of(StageSequence.of(PLAN, TINY).check()[0])
    record = registry.load(str(student.reference)).record
    assert record.parents["teacher"] == record.parents["initial"] == str(done["teacher"].reference)
    assert record.parents["pairs"].startswith("sha256:")


@pytest.mark.slow
def test_each_round_of_reflow_is_straighter_and_names_the_one_before(
    home_folder: Path,
) -> None:
    del home_folder  # the environment names it
    small = ("training.samples=76800", "training.threads=1", "pairs.count=4096", "pairs.steps=10")
    lines = ["stages=checkerboard_reflow_twice", "evaluation.samples=256", "evaluation.nfes=[1]"]
    sequence = StageSequence.from_overrides([*lines, "data.samples=4096", *small])
    done = sequence.run(Silence())
    registry: Registry = registry_of(sequence.check()[0])
    records = {name: registry.entry(str(it.reference)).record for name, it in done.items()}
    for before, after in (("teacher", "first"), ("first", "second")):
        assert records[after].parents["teacher"] == str(done[before].reference)
        assert records[after].parents["initial"] == str(done[before].reference)
    bends = [records[name].metrics["eval/straightness"] for name in ("teacher", "first", "second")]
    assert bends[1] < 0.7 * bends[0]
    assert bends[2] < bends[1]
