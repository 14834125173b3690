"""Sweeps on a cluster that is not their own, with trials of several workers and late nodes."""

from pathlib import Path
from typing import Any, Final

import pytest

from onestep.sweeps.record import Outcome, TrialRecord
from onestep.sweeps.study import ended
from onestep.tests.platform.training.test_nodes import needs_mounts
from onestep.tests.sweeps import joining
from onestep.tests.sweeps.test_killing import seen_by, study_of

SCRIPT: Final = Path(joining.__file__)

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def join(what: str, home: Path) -> tuple[dict[str, Any], tuple[TrialRecord, ...]]:
    """What the script saw, which looks that no actor, group or process is left, and the trials."""
    seen = seen_by(SCRIPT, what, home)
    assert seen["last"] == 0, seen
    return seen, ended(study_of(home))


def test_trials_of_several_workers_run_on_a_cluster_and_leave_nothing_there(
    tmp_path: Path,
) -> None:
    _, trials = join("groups", tmp_path / "home")
    assert [one.outcome for one in trials] == [Outcome.FINISHED] * 2
    assert not list((tmp_path / "home").glob("sweeps/*/.seen*")), "the mark is taken away"


@needs_mounts
def test_a_node_that_comes_later_and_has_another_folder_gets_no_trial(tmp_path: Path) -> None:
    _, trials = join("late", tmp_path / "home")
    assert [one.outcome for one in trials] == [Outcome.FINISHED] * 2
    (folder,) = (tmp_path / "home" / "sweeps").glob("[!.]*")
    said = (tmp_path / "home" / "said").read_text()
    assert f"does not see the folder {folder}: " in said
    assert "\ntrial 0 is tried again: FolderNotSeen: node " in said
