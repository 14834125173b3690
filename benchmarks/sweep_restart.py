"""How soon a killed sweep trains again: python benchmarks/sweep_restart.py.

The real command line runs a sweep of two trials at once. When both have a checkpoint, its process
is killed by SIGKILL, and the same command is given again. What counts is the time from there to the
next step of each trial that had not ended. Other load on the machine makes it longer.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

os.environ["OMP_NUM_THREADS"] = "1"

from onestep.benchmarks.budgets import MARK, tree
from onestep.benchmarks.record import Bars, at_least, at_most, run

ROUNDS: Final = 3
CONCURRENCY: Final = 2
MOST_S: Final = 20.0
COMMAND: Final = (
    "sweep",
    "resume=auto",
    "sweep=mean_flow_curriculum",
    "data=digits",
    "net=mlp_digits",
    "training.samples=10000000",
    "training.checkpoint_every=5120",
    "training.log_every=128",
    f"sweep.concurrency={CONCURRENCY}",
)
_PATIENCE_S: Final = 300.0
_POLL_S: Final = 0.05


def measure() -> dict[str, Any]:
    """Kill and begin again, several times, the same sweep."""
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        process = start(home)
        for number in range(ROUNDS):
            wait(lambda: len(kept(home)) == CONCURRENCY, process)
            load = os.getloadavg()[0]
            outlived = end(process, home)
            before = readings(home)
            began = time.perf_counter()
            process = start(home)
            seconds = {
                trial: wait(partial(goes_on, home, trial, count), process) - began
                for trial, count in sorted(before.items())
            }
            rounds.append({"seconds": seconds, "outlived_s": outlived, "load": load})
            print(f"round {number}: {seconds}, load {load:.1f}", flush=True)
        end(process, home)
        trials = sorted(path.name for path in home.glob("sweeps/*/trials/*"))
    return {"command": list(COMMAND), **summary(rounds, trials)}


def summary(rounds: Sequence[Mapping[str, Any]], trials: Sequence[str]) -> dict[str, Any]:
    """What is judged.

    Args:
        rounds: What was seen after each kill.
        trials: Those that were ever begun.
    """
    slowest = [max(one["seconds"].values()) for one in rounds]
    return {
        "rounds": list(rounds),
        "trials": list(trials),
        "median_s": statistics.median(slowest),
        "slowest_s": max(slowest),
    }


def start(
    home: Path,
    command: Sequence[str | Path] = (sys.executable, "-m", "onestep.platform.cli", *COMMAND),
) -> subprocess.Popen[bytes]:
    """A command, in a home of its own that holds what it said."""
    known = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    home.mkdir(exist_ok=True)
    with (home / "said").open("ab") as said:
        return subprocess.Popen(
            command,
            cwd=home,
            env={**known, "ONESTEP_HOME": str(home), MARK: str(home)},
            stdout=said,
            stderr=subprocess.STDOUT,
        )


def end(process: subprocess.Popen[bytes], home: Path) -> float:
    """Kill the command alone, and wait until the processes that it had started are gone.

    Returns:
        How long that took.
    """
    process.send_signal(signal.SIGKILL)
    process.wait()
    since = time.perf_counter()
    while alive := tree(process.pid, str(home)) - {process.pid}:
        if time.perf_counter() > since + _PATIENCE_S:
            raise RuntimeError(f"these outlived the command that started them: {alive}")
        time.sleep(_POLL_S)
    return time.perf_counter() - since


def wait(is_there: Callable[[], bool], process: subprocess.Popen[bytes]) -> float:
    """When something was there."""
    until = time.perf_counter() + _PATIENCE_S
    while not is_there():
        if process.poll() is not None or time.perf_counter() > until:
            raise RuntimeError(f"the sweep does not go on, exit status {process.poll()}")
        time.sleep(_POLL_S)
    return time.perf_counter()


def kept(home: Path) -> list[Path]:
    """The trials that have a checkpoint."""
    return [
        path.parent for path in home.glob("sweeps/*/trials/*/checkpoints") if any(path.iterdir())
    ]


def readings(home: Path) -> dict[str, int]:
    """Losses that each trial has written down, one for each step."""
    files = home.glob("sweeps/*/trials/*/losses.jsonl")
    return {path.parent.name: path.read_bytes().count(b"\n") for path in files}


def goes_on(home: Path, trial: str, count: int) -> bool:
    """Whether a trial has written down more losses than these."""
    return readings(home)[trial] > count


def bars(numbers: Mapping[str, Any]) -> Bars:
    """The slowest trial of every round counts, and the trials are the two that were begun first."""
    return [
        at_most(numbers["slowest_s"], MOST_S, number="slowest_s"),
        at_least(len(numbers["rounds"]), ROUNDS, number="rounds"),
        at_most(len(numbers["trials"]), CONCURRENCY, number="trials"),
    ]


if __name__ == "__main__":
    run("sweep_restart", measure, bars)
