"""A newcomer's first sweep, killed in the middle: python benchmarks/first_sweep.py.

A clone of this checkout's last commit is installed in an empty folder, and its command line sweeps
digits. When half of the trials have ended the command is killed by SIGKILL, and given again. What
counts is the time from the clone to the sweep's page, that its winner lies in the interval of the
winner of the same sweep that nobody kills, and that it is ahead of a Gaussian for each class. The
installation needs the network.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from onestep.benchmarks.record import Bars, at_least, at_most, run
from onestep.benchmarks.sweep_restart import end, start, wait
from onestep.platform.evaluation.benchmark import GAUSSIAN
from onestep.platform.evaluation.report import Report
from onestep.sweeps.objective import OF_IMAGES
from onestep.sweeps.page import PAGE
from onestep.sweeps.report import RECORDS

ROOT: Final = Path(__file__).parent.parent
TRIALS: Final = 8
COMMAND: Final = (
    "sweep",
    "sweep=mean_flow_digits",
    f"sweep.trials={TRIALS}",
    "training.checkpoint_every=51200",
    "resume=auto",
)
MOST_S: Final = 15 * 60.0
_ON_S: Final = 3.0
"""After a trial's report is written, until the kill: the next trials are under way by then."""


def measure() -> dict[str, Any]:
    """Install, sweep, kill, go on; then sweep once more without a kill."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        clone, killed, whole = place / "clone", place / "killed", place / "whole"
        begin = time.perf_counter()
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        subprocess.run(["make", "--quiet", ".venv/.installed"], cwd=clone, check=True)
        installed = time.perf_counter()
        command = (clone / ".venv" / "bin" / "onestep", *COMMAND)
        process = start(killed, command)
        wait(lambda: len(reports(killed)) >= TRIALS // 2, process)
        time.sleep(_ON_S)
        end(process, killed)
        before = reports(killed)
        print(f"killed after {time.perf_counter() - installed:.0f} s", flush=True)
        finish(killed, command)
        ended = time.perf_counter()
        finish(whole, command)
        return {
            "command": list(COMMAND),
            "installation_s": installed - begin,
            "killed_and_resumed_s": ended - installed,
            "uninterrupted_s": time.perf_counter() - ended,
            "ended_before_the_kill": len(before),
            "trained_again": sum(
                written != reports(killed)[one] for one, written in before.items()
            ),
            "pages": len([*killed.glob(f"sweeps/*/{PAGE}")]),
            "killed": trials(killed),
            "whole": trials(whole),
            "gaussian": gaussian(whole),
        }


def finish(home: Path, command: tuple[str | Path, ...]) -> None:
    """Let the command come to its end."""
    process = start(home, command)
    if process.wait():
        raise RuntimeError(f"the sweep failed: {(home / 'said').read_text()[-2000:]}")


def reports(home: Path) -> dict[Path, int]:
    """When the report of each trial that has ended was written."""
    return {path: path.stat().st_mtime_ns for path in home.glob("sweeps/*/trials/*/report.json")}


def trials(home: Path) -> list[dict[str, Any]]:
    """The trials of the sweep, all of them finished, from best to worst."""
    (path,) = home.glob(f"sweeps/*/{RECORDS}")
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return sorted(found, key=value_of)


def value_of(trial: Mapping[str, Any]) -> float:
    """What the sweep makes small."""
    return float(trial["results"][0]["value"])


def gaussian(home: Path) -> float:
    """What a Gaussian for each class has of the number that the sweep improves."""
    number = trials(home)[0]["number"]
    (path,) = home.glob(f"sweeps/*/trials/{number}/report.json")
    measured = Report.from_json(path.read_text()).find(OF_IMAGES, nfe=1)
    return measured.baselines[GAUSSIAN]


def bars(numbers: Mapping[str, Any]) -> Bars:
    """A quarter of an hour, no trial twice, a winner as good as that of the other sweep."""
    seconds = numbers["installation_s"] + numbers["killed_and_resumed_s"]
    value = value_of(numbers["killed"][0])
    best = numbers["whole"][0]["results"][0]
    return [
        at_most(seconds, MOST_S, number="seconds to the page"),
        at_least(numbers["pages"], 1, number="pages"),
        at_least(len(numbers["killed"]), TRIALS, number="trials"),
        at_most(numbers["trained_again"], 0, number="trials that were trained again"),
        at_least(value, best["low"], number="winner, against the interval's lower end"),
        at_most(value, best["high"], number="winner, against the interval's upper end"),
        at_most(value, numbers["gaussian"], number="winner, against a Gaussian for each class"),
    ]


if __name__ == "__main__":
    run("first_sweep", measure, bars)
