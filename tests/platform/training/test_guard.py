"""A guarded run trains as any other, and one that is lost is stopped or goes back, bit for bit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from onestep.platform.experiment import Experiment
from onestep.platform.guardian import Guardian
from onestep.platform.home import Home
from onestep.platform.registry.store import Registry
from onestep.platform.training import checkpoint
from onestep.platform.training.assembly import assemble
from onestep.platform.training.errors import CheckpointMismatch, TrainingDiverged, TrainingLost
from onestep.platform.training.guard import Guard, returns_in
from onestep.platform.training.launch import launch
from onestep.platform.training.place import Place
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.run_note import RunNote
from onestep.platform.training.watcher import Silence
from onestep.platform.training.worker import work
from onestep.tests.platform.training.group import (
    Died,
    assert_equal,
    distance,
    learning_of,
    run_group,
    state_at,
    train,
    train_here,
)
from onestep.tests.platform.training.guarding import (
    die_going_back,
    measure_with_a_broken_follower,
)
from onestep.tests.platform.training.launching import experiment as launched
from onestep.tests.platform.training.recipe import (
    BATCH,
    FLOW_MATCHING,
    GAME,
    HALVES,
    MEAN_FLOW,
    SHORTCUT,
    STEEP,
    recipe,
)
from onestep.tests.platform.training.watching import Meddler

STEPS: Final = 12
TIMES: Final = 2.0**16
DROPPING: Final = {
    "_target_": "onestep.methods.nets.dit.DiT",
    "patch": 4,
    "width": 16,
    "depth": 1,
    "head_width": 8,
    "dropout": 0.5,
}
SPIKE: Final = {
    "_target_": "onestep.methods.core.schedule.Piecewise",
    "values": [1.0, TIMES],
    "boundaries": [0.5],
}
"""From the seventh step on, the learning rate is far too high."""
ROUND: Final = {"every": BATCH}
BACK: Final = {**ROUND, "retries": 1, "lr_factor": 1.0 / TIMES}


def spiked(guardian: Mapping[str, Any], **training: Any) -> dict[str, Any]:
    """A run whose rounds 7 and 8 are bad, which is too late for a checkpoint after step 8."""
    kept = {"checkpoint_every": 4 * BATCH, "keep_checkpoints": 9, "log_every": 100 * BATCH}
    return recipe(
        MEAN_FLOW,
        steps=STEPS,
        training={**kept, **training},
        learning_rate=SPIKE,
        guardian=dict(guardian),
    )


def without(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state without the guardian's part of it."""
    return {name: part for name, part in state.items() if name != "guardian"}


# Probes.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": SHORTCUT},
        {"method": GAME},
        {"data": HALVES},
        {"data": {"_target_": "onestep.platform.data.digits.Digits"}, "net": DROPPING},
    ],
    ids=["mean_flow", "target", "game", "labels", "dropout"],
)
def test_a_run_with_probes_has_the_bits_of_one_without(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    plain = recipe(MEAN_FLOW, steps=6) | changes
    torch.manual_seed(1)
    bare, _ = train_here(plain, tmp_path / "bare")
    guarded, reporter = train_here(plain | {"guardian": ROUND}, tmp_path / "guarded")
    assert_equal(without(guarded), bare)
    rounds = [row for row in reporter.rows if "guardian/motion" in row]
    assert [row["step"] for row in rounds] == [1, 2, 3, 4, 5, 6]
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train_here(plain | {"guardian": ROUND}, tmp_path / "again")
    assert torch.equal(torch.rand(3), expected), "the global stream of numbers is left alone"


def test_rounds_come_as_often_as_asked_and_with_every_checkpoint(tmp_path: Path) -> None:
    training = {"checkpoint_every": 3 * BATCH}
    values = recipe(FLOW_MATCHING, steps=8, training=training, guardian={"every": 4 * BATCH})
    _, reporter = train_here(values, tmp_path)
    assert [row["step"] for row in reporter.rows if "guardian/motion" in row] == [3, 4, 6, 8]


def test_the_loss_of_a_round_is_the_median_since_the_last_one(tmp_path: Path) -> None:
    values = recipe(FLOW_MATCHING, steps=6, guardian={"every": 3 * BATCH})
    _, reporter = train_here(values, tmp_path)
    losses = [row["loss/online"] for row in reporter.rows if "loss/online" in row]
    medians = [r["guardian/loss_online"] for r in reporter.rows if "guardian/loss_online" in r]
    assert medians == [sorted(losses[:3])[1], sorted(losses[3:])[1]]


def test_both_players_of_a_game_are_watched(tmp_path: Path) -> None:
    _, reporter = train_here(recipe(GAME, steps=2, guardian=ROUND), tmp_path)
    assert {"guardian/loss_online", "guardian/loss_judge"} <= set().union(*reporter.rows)


def test_an_average_that_remembers_its_start_is_not_asked_whether_it_has_begun() -> None:
    def progress(**training: Any) -> float:
        values = recipe(FLOW_MATCHING, steps=10, training=training, guardian=ROUND)
        return Guard(Experiment.from_dict(values), Place()).progress(5 * BATCH)

    assert progress(ema_half_lives=[1e6], ema_ramp=0.05) == 0.5
    assert progress(ema_half_lives=[1.0], ema_ramp=1e6) == 0.5
    assert progress(ema_half_lives=[1e6], ema_ramp=0.5) == 0.0


# Stopping.


def test_a_lost_run_is_stopped_with_what_was_measured(tmp_path: Path) -> None:
    reporter = MemoryReporter()
    said = (
        r"the run is lost after 256 samples: guardian/one_step is \S+, above 3; "
        r"lower optimizer.lr, clip gradients by training.clip_norm, or set guardian.every=0$"
    )
    with pytest.raises(TrainingLost, match=said):
        work(spiked(ROUND), place=Place(), reporter=reporter, folder=tmp_path)
    bad = [row["step"] for row in reporter.rows if row.get("guardian/one_step", 0.0) > 3.0]
    assert bad == [7, 8]
    assert [path.name for path in reporter.checkpoints] == ["step-0000000004"]


def test_a_run_goes_on_after_a_stop_without_its_guardian(tmp_path: Path) -> None:
    with pytest.raises(TrainingLost):
        train_here(spiked(ROUND), tmp_path)
    plain = spiked({})
    left = checkpoint.latest(tmp_path / "checkpoints")
    resumed, _ = train_here(plain, tmp_path, left)
    whole, _ = train_here(plain, tmp_path / "whole")
    assert_equal(resumed, whole)


# Going back.


def test_a_lost_run_goes_back_to_its_checkpoint_with_a_lower_learning_rate(tmp_path: Path) -> None:
    state, reporter = train_here(spiked(BACK), tmp_path)
    (gone,) = returns_in(state)
    why = gone.pop("why")
    assert gone == {"step": 8, "to": 4, "lr_factor": 1.0 / TIMES}
    assert "lost after 256 samples" in why
    told = [row for row in reporter.rows if "guardian/returns" in row]
    assert told == [
        {
            "step": 8,
            "guardian/returns": 1.0,
            "guardian/returned_to": 4.0,
            "guardian/lr_factor": 1.0 / TIMES,
        }
    ]
    # The same walk by hand.
    expected = learning_of(spiked({}))
    for _ in range(4):
        expected.advance()
    expected.slowed = 1.0 / TIMES
    while expected.step < STEPS:
        expected.advance()
    assert_equal(without(state), expected.state())
    names = [path.name for path in reporter.checkpoints]
    assert names == ["step-0000000004", "step-0000000008", "step-0000000012"]


def test_a_run_that_is_lost_at_first_begins_again(tmp_path: Path) -> None:
    fast = recipe(MEAN_FLOW, steps=6, lr=2.0**300, guardian={**BACK, "lr_factor": 2.0**-307})
    again, reporter = train_here(fast, tmp_path)
    slow, _ = train_here(recipe(MEAN_FLOW, steps=6, lr=2.0**-7), tmp_path / "slow")
    for part in ("online", "averages"):
        assert_equal(again[part], slow[part])
    (gone,) = returns_in(again)
    assert gone["to"] == 0
    assert reporter.rows[-2]["step"] == 6


@pytest.mark.parametrize("shown", [(), (7, 9)])
def test_no_state_that_a_round_doubts_is_kept_to_go_back_to(
    shown: tuple[int, ...], tmp_path: Path
) -> None:
    training, reporter = {"checkpoint_every": 7 * BATCH}, MemoryReporter()
    values = spiked(BACK, **training)
    last = work(values, place=Place(), reporter=reporter, folder=tmp_path, shown=shown)
    assert last is not None
    (gone,) = returns_in(state_at(last))
    assert (gone["step"], gone["to"]) == (8, 0)
    # Where that is asked for one is seen all the same, in a folder that no run goes on from.
    seen = [
        (int(path.name.removeprefix("step-")), path.parent.name) for path in reporter.checkpoints
    ]
    doubted, not_due = [(7, "shown")] * bool(shown), [(9, "shown")] * bool(shown)
    assert seen == [*doubted, (7, "checkpoints"), *not_due, (12, "checkpoints")]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    # Where nothing goes back, checkpoints are as they were.
    with pytest.raises(TrainingLost):
        work(spiked(ROUND, **training), place=Place(), reporter=reporter, folder=tmp_path / "stop")
    assert checkpoint.latest(tmp_path / "stop" / "checkpoints").name == "step-0000000007"


def test_a_run_goes_back_to_the_same_checkpoint_when_others_were_shown(tmp_path: Path) -> None:
    values = spiked(BACK, checkpoint_every=5 * BATCH)
    ends, returns = list[dict[str, Any]](), list[Any]()
    for name, shown in (("plain", ()), ("shown", (4, 6))):
        reporter, folder = MemoryReporter(), tmp_path / name
        last = work(values, place=Place(), reporter=reporter, folder=folder, shown=shown)
        assert last is not None
        ends.append(state_at(last))
        returns.append(returns_in(ends[-1]))
    assert returns[1] == returns[0]
    assert [one["to"] for one in returns[0]] == [5]
    assert_equal(ends[1], ends[0])


def test_a_state_may_be_shown_between_two_rounds(tmp_path: Path) -> None:
    values = recipe(FLOW_MATCHING, steps=8, guardian={"every": 4 * BATCH})
    reporter = MemoryReporter()
    work(values, place=Place(), reporter=reporter, folder=tmp_path, shown=(3,))
    assert next(path.name for path in reporter.checkpoints) == "step-0000000003"


def test_a_run_that_is_lost_again_is_stopped_after_its_last_return(tmp_path: Path) -> None:
    values = spiked({**BACK, "retries": 2, "lr_factor": 0.9})
    reporter = MemoryReporter()
    with pytest.raises(TrainingLost, match=r"guardian.every=0; it had gone back 2 times$"):
        work(values, place=Place(), reporter=reporter, folder=tmp_path)
    factors = [r["guardian/lr_factor"] for r in reporter.rows if "guardian/lr_factor" in r]
    assert factors == pytest.approx([0.9, 0.81])


def test_numbers_that_are_none_send_a_run_back_too(tmp_path: Path) -> None:
    method = {**STEEP, "at": 2}
    values = recipe(method, steps=4, guardian={**BACK, "lr_factor": 0.5})
    with pytest.raises(TrainingDiverged, match=r"at step 3; .*; it had gone back 1 times"):
        train_here(values, tmp_path)


# Resuming.


def last_of(folder: Path) -> dict[str, Any]:
    last = checkpoint.latest(folder / "checkpoints")
    assert last is not None
    return state_at(last)


def test_two_workers_go_back_together_and_resume_bitwise(tmp_path: Path) -> None:
    """Killed while they go back, and again once a checkpoint knows of it."""
    values = spiked(BACK)
    run_group(train, 2, values, tmp_path / "whole")
    whole = last_of(tmp_path / "whole")
    assert [gone["to"] for gone in returns_in(whole)] == [4]
    alone, _ = train_here(values, tmp_path / "alone")
    assert distance(alone["online"], whole["online"]) < 1e-10

    killed = tmp_path / "killed"
    with pytest.raises(Died, match="-9"):
        run_group(die_going_back, 2, values, killed)
    left = checkpoint.latest(killed / "checkpoints")
    assert left is not None
    assert left.name == "step-0000000004"
    assert returns_in(state_at(left)) == []
    run_group(train, 2, values, killed, left)
    assert_equal(last_of(killed), whole)
    after = tmp_path / "alone" / "checkpoints" / "step-0000000008"
    resumed, _ = train_here(values, tmp_path / "after", after)
    assert_equal(resumed, alone)


def test_all_workers_go_by_what_the_leading_one_measures() -> None:
    values = recipe(MEAN_FLOW, steps=2, guardian=ROUND)
    leader, follower = run_group(measure_with_a_broken_follower, 2, values)
    assert leader == follower
    assert all(value == value for value in leader.values())


def test_a_suspicion_goes_through_a_checkpoint(tmp_path: Path) -> None:
    values = spiked(ROUND, checkpoint_every=7 * BATCH)
    with pytest.raises(TrainingLost):
        train_here(values, tmp_path)
    left = checkpoint.latest(tmp_path / "checkpoints")
    reporter = MemoryReporter()
    with pytest.raises(TrainingLost, match="after 256 samples"):
        work(values, place=Place(), reporter=reporter, folder=tmp_path, resume=left)


# Settings.


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"every": -1}, "at least 0 and lr_factor in"),
        ({"every": 9, "retries": -1}, "at least 0 and lr_factor in"),
        ({"lr_factor": 1.0}, "lr_factor in"),
        ({"lr_factor": 0.0}, "lr_factor in"),
        ({"retries": 1}, "guardian.retries has no effect without probes"),
    ],
)
def test_what_a_guardian_cannot_do_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Guardian(**given)


def test_only_a_guardian_that_sends_a_run_back_belongs_to_its_recipe(tmp_path: Path) -> None:
    def digest(guardian: Mapping[str, Any], **training: Any) -> str:
        values = recipe(MEAN_FLOW, steps=2, training=training, guardian=dict(guardian))
        return assemble(Experiment.from_dict(values)).recipe("data")

    bare = assemble(Experiment.from_dict(recipe(MEAN_FLOW, steps=2))).recipe("data")
    assert digest(ROUND) == digest({}) == digest(ROUND, checkpoint_every=BATCH) == bare
    others = [BACK, {**BACK, "retries": 2}, {**BACK, "lr_factor": 0.5}, {**BACK, "every": 64}]
    digests = {digest(one) for one in others} | {digest(BACK, checkpoint_every=BATCH)}
    assert len(digests | {bare}) == 6
    train_here(recipe(MEAN_FLOW, steps=2), tmp_path)
    with pytest.raises(CheckpointMismatch):
        train_here(
            recipe(MEAN_FLOW, steps=2, guardian=BACK),
            tmp_path,
            checkpoint.latest(tmp_path / "checkpoints"),
        )


# Records.


def run_of(home: Home) -> Any:
    note = RunNote.of(home.runs / "first")
    assert note is not None
    return Registry.at(home).connection.client.get_run(note.run_id)


def test_a_run_that_is_stopped_says_why_in_its_record(home: Home) -> None:
    lost = launched(MEAN_FLOW, lr=1e9, guardian=ROUND, training={"log_every": 100 * BATCH})
    with pytest.raises(TrainingLost) as stopped:
        launch(lost, Silence())
    run = run_of(home)
    assert run.info.status == "FAILED"
    assert run.data.tags["onestep.lost"] == str(stopped.value)
    assert run.data.metrics["guardian/one_step"] > 3.0


def test_a_run_that_went_back_says_so_in_its_record(home: Home) -> None:
    said = list[str]()
    guardian = {**BACK, "lr_factor": 1e-11}
    fast = launched(MEAN_FLOW, lr=1e9, guardian=guardian, training={"log_every": 100 * BATCH})
    launch(fast, Meddler(said=said.append))
    run = run_of(home)
    assert run.info.status == "FINISHED"
    assert run.data.tags["onestep.returns"] == "1"
    assert run.data.metrics["guardian/returns"] == 1.0
    artifacts = Registry.at(home).connection.client.list_artifacts(run.info.run_id)
    assert "returns.json" in {artifact.path for artifact in artifacts}
    (line,) = (one for one in said if one.startswith("went back"))
    assert "to 0, learning rate times 1e-11: the run is lost after" in line
