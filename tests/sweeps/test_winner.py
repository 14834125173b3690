import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from onestep.sweeps.cost import Cost
from onestep.sweeps.lineage import Lineage
from onestep.sweeps.objective import Number, Objective, Objectives
from onestep.sweeps.record import Outcome, TrialRecord, folder_of_trial
from onestep.sweeps.report import ranked
from onestep.sweeps.winner import KEPT, keep_leaders, leaders_of, revision_of, weights_of

_OBJECTIVES: Final = Objectives(by_label={"quality": Objective(name="eval/w2", nfe=1)})


def trial(number: int, outcome: Outcome, *, rung: int | None = None) -> TrialRecord:
    return TrialRecord(
        number=number,
        overrides=(),
        values={},
        outcome=outcome,
        results=(Number(value=float(number), low=0.0, high=9.0),),
        samples=1,
        cost=Cost(),
        reason="",
        rung=rung,
    )


def test_a_model_has_the_revisions_of_all_that_trained_it_and_of_no_other_trial() -> None:
    trials = [
        replace(trial(number, Outcome.FINISHED), revisions=revisions, lineage=lineage)
        for number, (revisions, lineage) in enumerate(
            [
                (("old",), Lineage(member=0, generation=0, own=())),
                (("other",), Lineage(member=1, generation=0, own=())),
                (("old", "new"), Lineage(member=0, generation=1, own=(), parent=0)),
                ((), None),
            ]
        )
    ]
    assert revision_of(trials[2], trials, unknown="a, b") == "old, new"
    assert revision_of(trials[1], trials, unknown="a, b") == "other"
    assert revision_of(trials[3], trials, unknown="a, b") == "a, b"


def weights_in(folder: Path) -> set[str]:
    kinds = [
        {str(one.parent.relative_to(folder / "trials")) for one in folder.rglob(kind)}
        for kind in ("checkpoints", "snapshots")
    ]
    assert kinds[0] == kinds[1]
    return kinds[0]


def test_only_the_last_rungs_of_whole_leading_trials_keep_their_weights(tmp_path: Path) -> None:
    whole = [trial(number, Outcome.FINISHED, rung=1) for number in range(KEPT + 1)]
    stopped = trial(KEPT + 1, Outcome.STOPPED, rung=0)
    for one in (*whole, stopped):
        for rung in range((one.rung or 0) + 1):
            place = folder_of_trial(tmp_path, one.number, rung=rung)
            for kind in ("checkpoints", "snapshots"):
                (place / kind).mkdir(parents=True)
    running = folder_of_trial(tmp_path, 99, rung=0)
    for kind in ("checkpoints", "snapshots"):
        (running / kind).mkdir(parents=True)
    keep_leaders(tmp_path, [*whole, stopped], _OBJECTIVES)
    assert weights_in(tmp_path) == {*(f"{k}/rung-1" for k in range(KEPT)), "99/rung-0"}


@pytest.mark.parametrize("objectives", [1, 2])
def test_the_best_of_all_is_among_those_that_led_and_those_that_ended_since(
    objectives: int, tmp_path: Path
) -> None:
    wanted = [Objective(name="eval/w2", nfe=1 + place) for place in range(objectives)]
    asked = Objectives(by_label={f"at_{one.nfe}": one for one in wanted})
    rng = random.Random(0)
    for _ in range(50):
        trials = [
            replace(
                trial(number, rng.choice([Outcome.FINISHED, Outcome.FINISHED, Outcome.STOPPED])),
                results=tuple(Number(value=rng.random(), low=0.0, high=9.0) for _ in wanted),
                samples=rng.choice([1, 2]),
            )
            for number in range(12)
        ]
        leaders: list[TrialRecord] = []
        for place, one in enumerate(trials, start=1):
            leaders = keep_leaders(tmp_path, [*leaders, one], asked)
            same = len(trials) if objectives == 1 else 1
            assert leaders[:same] == leaders_of(ranked(trials[:place], asked))[:same]


def test_a_winner_whose_weights_were_taken_away_is_named_with_the_place_where_they_were(
    tmp_path: Path,
) -> None:
    best = trial(3, Outcome.FINISHED)
    place = tmp_path / "trials" / "3" / "checkpoints"
    (place / "step-0000000200").mkdir(parents=True)
    assert weights_of(best, tmp_path).name == "step-0000000200"
    shutil.rmtree(place)
    said = f"trial 3 is the best, but its checkpoints are no longer in {place}: bring them back"
    with pytest.raises(ValueError, match=said):
        weights_of(best, tmp_path)
