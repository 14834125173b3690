"""A cluster of two nodes, of which the second sees the run folder or has another in its place."""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onestep.platform.shared_storage import CURE
from onestep.platform.training.nodes import marked, refusal_here

SCRIPT = Path(__file__).with_name("two_nodes.py")

pytestmark = pytest.mark.ray


def can_hide() -> bool:
    """Whether this machine lets a process have mounts of its own."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)
    return tried.returncode == 0


needs_mounts = pytest.mark.skipif(not can_hide(), reason="needs mounts of its own")


def two_nodes(what: str, how: str, folder: Path) -> str:
    """What the script prints; it has a Python of its own, in which nobody has imported Ray."""
    folder.mkdir()
    environment = {name: it for name, it in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment["RAY_raylet_start_wait_time_s"] = "120"  # other tests run beside this one
    done = subprocess.run(
        [sys.executable, SCRIPT, what, how, folder],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(one.name for one in folder.glob(".*")) == [], "the marker is taken away"
    return done.stdout.strip()


@pytest.mark.slow
@needs_mounts
def test_a_node_that_has_another_folder_is_refused(tmp_path: Path) -> None:
    said = two_nodes("check", "own", tmp_path / "run")
    assert said.startswith("ValueError: node ")
    assert said.endswith(f"does not see the folder {tmp_path / 'run'}: {CURE}")


@pytest.mark.slow
@needs_mounts
def test_a_node_that_sees_the_folder_but_may_not_write_into_it_is_refused(tmp_path: Path) -> None:
    said = two_nodes("check", "read-only", tmp_path / "run")
    assert said.endswith(f"cannot write into {tmp_path / 'run'}: Read-only file system")


@pytest.mark.slow
def test_a_node_that_does_not_answer_is_named_in_time(tmp_path: Path) -> None:
    said = two_nodes("time", "stopped", tmp_path / "run")
    assert said.startswith("ValueError: node ")
    assert said.endswith("does not answer within 20 seconds")


@pytest.mark.slow
def test_two_nodes_are_asked_within_two_seconds(tmp_path: Path) -> None:
    assert float(two_nodes("time", "same", tmp_path / "run")) < 2.0


@pytest.mark.slow
def test_nodes_that_see_the_folder_are_accepted_and_train_into_it(tmp_path: Path) -> None:
    assert two_nodes("both", "same", tmp_path / "run").endswith("step-0000000004")


@pytest.mark.slow
@needs_mounts
def test_a_node_that_comes_later_is_told_in_the_same_words(tmp_path: Path) -> None:
    said = two_nodes("train", "own", tmp_path / "run")
    assert said.splitlines()[-1].startswith("FolderNotSeen: node ")
    assert said.endswith(CURE)


@pytest.mark.slow
@needs_mounts
def test_a_node_that_comes_later_and_may_not_write_is_told_in_the_same_words(
    tmp_path: Path,
) -> None:
    said = two_nodes("train", "read-only", tmp_path / "run")
    assert said.endswith(f"cannot write into {tmp_path / 'run'}: Read-only file system")


@pytest.mark.slow
def test_a_mailbox_is_on_the_node_that_reads_it(tmp_path: Path) -> None:
    assert two_nodes("count", "same", tmp_path / "run") == "4"


def test_a_folder_without_the_mark_or_with_an_old_one_is_another_folder(tmp_path: Path) -> None:
    with marked(tmp_path) as (marker, nonce):
        assert refusal_here((marker, nonce)) is None
        assert str(refusal_here((marker, "an earlier one"))).endswith(CURE)
    assert f"the folder {tmp_path}: " in str(refusal_here((marker, nonce)))


def test_a_folder_that_is_seen_has_to_be_written_into_as_well(tmp_path: Path) -> None:
    with marked(tmp_path) as mark:
        assert refusal_here(mark) is None
        assert [one.name for one in tmp_path.iterdir()] == [mark[0].name], "nothing stays"
    seen = Path("/proc/version")  # nobody may write beside it
    said = refusal_here((seen, seen.read_text()))
    assert said is not None
    assert " cannot write into /proc: " in said
