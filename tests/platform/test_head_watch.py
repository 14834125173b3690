"""A process ends in one sentence when the head of its cluster is gone, and not before."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from onestep.platform.head_watch import LOST, patience_s, watched

PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
SCRIPT = """
import socket, time
from onestep.platform.head_watch import watched

head = socket.create_server(("127.0.0.1", 0))
with watched(f"127.0.0.1:{head.getsockname()[1]}"):
    print("still here")
    head.close()
    THEN
"""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "4")


@pytest.fixture
def head() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(head: socket.socket) -> str:
    return f"127.0.0.1:{head.getsockname()[1]}"


def until(is_so: Callable[[], object], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while not is_so() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(is_so())


@pytest.mark.parametrize("then", ["time.sleep(60)", "raise RuntimeError('an actor is gone')"])
def test_a_process_that_lost_its_head_ends_with_a_sentence_and_a_code_of_its_own(then: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("THEN", then)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == LOST == os.EX_TEMPFAIL
    assert done.stdout == "still here\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("onestep: the head of the Ray cluster at 127.0.0.1:")
    assert "the same command goes on" in line


def test_a_head_that_is_back_in_time_was_not_lost(head: socket.socket) -> None:
    said: list[str] = []
    address = address_of(head)
    with watched(address, end=said.append):
        head.close()
        time.sleep(1.0)  # less than the patience
        with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
            time.sleep(2.5)
    assert said == []


def test_a_head_is_watched_no_longer_when_the_block_is_over(head: socket.socket) -> None:
    said: list[str] = []
    with watched(address_of(head), end=said.append):
        pass
    head.close()
    assert not until(lambda: said, within_s=3.5)


def test_what_is_raised_while_the_head_answers_is_raised_at_once(head: socket.socket) -> None:
    since = time.monotonic()
    with pytest.raises(RuntimeError, match="of its own"), watched(address_of(head)):
        raise RuntimeError("of its own")
    assert time.monotonic() - since < 1.0


def test_a_head_that_cannot_be_reached_from_the_beginning_is_not_watched() -> None:
    said: list[str] = []
    with watched("127.0.0.1:1", end=said.append):
        assert not until(lambda: said, within_s=3.0)


@pytest.mark.parametrize(("rays", "ours"), [("60", 50.0), ("4", 2.0), ("12", 6.0)])
def test_patience_ends_before_that_of_ray(
    rays: str, ours: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATIENCE, rays)
    assert patience_s() == ours
