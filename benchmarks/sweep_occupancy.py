"""How well a sweep uses its cores: python benchmarks/sweep_occupancy.py.

A real sweep over curricula on the digits, two trials at once with a core each. From the end of a
trial to the first step of the next one in its place the core waits. Stamps around the parts of each
trial say where the time goes, and samples of all processes how much of the machine the trials get.
Beside other load they are judged by what the others leave: their own processor time over that of
all processes of the sweep and the idle time together.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

os.environ["OMP_NUM_THREADS"] = "1"

from onestep.benchmarks.budgets import tree
from onestep.benchmarks.record import Bars, at_least, at_most, run
from onestep.platform.training.learning import Learning
from onestep.sweeps import search
from onestep.sweeps.after_training import AfterTraining
from onestep.sweeps.record import RUNG, folder_of_trial
from onestep.sweeps.searcher import NUMBER
from onestep.sweeps.settings import settings_of
from onestep.sweeps.stepped import Row
from onestep.sweeps.trial import try_overrides

TRIALS: Final = 8
CONCURRENCY: Final = 2
MOST_S: Final = 3.0
LEAST_BUSY: Final = 0.9
OVERRIDES: Final = [
    "sweep=alpha_flow_curriculum",
    f"sweep.trials={TRIALS}",
    f"sweep.concurrency={CONCURRENCY}",
    "sweep.startup=4",
    "net=mlp_digits",
    "training.samples=150000",
    "training.threads=1",
]
_STAMPS: Final = "stamps.json"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def stamped(config: Mapping[str, Any], *, folder: str, **parts: Any) -> Row:
    """A trial that leaves stamps of its parts in its folder."""
    stamps = {"pid": os.getpid(), "begin": time.time()}

    def stepped(advance: Callable[..., Any]) -> Callable[..., Any]:
        def step(self: Learning) -> Any:
            logs = advance(self)
            stamps.setdefault("first_step", time.time())
            return logs

        return step

    def measured(measure: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **rest: Any) -> Any:
            stamps["trained"] = time.time()
            return measure(*args, **rest)

        return timed

    with _around(Learning, "advance", stepped), _around(AfterTraining, "judge", measured):
        last = try_overrides(config, folder=folder, **parts)
    stamps["end"] = time.time()
    place = folder_of_trial(Path(folder), config[NUMBER], rung=config[RUNG])
    (place / _STAMPS).write_text(json.dumps(stamps))
    return last


@contextmanager
def _around(holder: Any, name: str, wrapped: Callable[[Any], Any]) -> Iterator[None]:
    inner = getattr(holder, name)
    setattr(holder, name, wrapped(inner))
    try:
        yield
    finally:
        setattr(holder, name, inner)


class Samples:
    """Samples of the processor time of the sweep's processes, taken whenever it shows itself."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, dict[int, float]]] = []

    def take(self, lines: Sequence[str]) -> None:
        """Note the time, the idle seconds of all cores, and the seconds of each process."""
        del lines
        idle = sum(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[4:6]))
        found = {pid: _seconds(pid) for pid in tree(os.getpid(), "")}
        self.rows.append((time.time(), idle / _TICKS, found))

    def between(self, since: float, until: float, trials: set[int]) -> dict[str, float]:
        """What was spent in a span: by trials, by the rest of the sweep, and by nobody."""
        rows = [row for row in self.rows if since <= row[0] <= until]
        (t0, idle0, before), (t1, idle1, after) = rows[0], rows[-1]
        spent = {pid: seconds - before.get(pid, 0.0) for pid, seconds in after.items()}
        own = sum(seconds for pid, seconds in spent.items() if pid in trials)
        return {
            "wall_s": t1 - t0,
            "trials_s": own,
            "rest_s": sum(spent.values()) - own,
            "idle_s": idle1 - idle0,
        }


def _seconds(pid: int) -> float:
    """Processor time of a process so far, 0 if it has ended."""
    try:
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(parts[11]) + int(parts[12])) / _TICKS


def gaps(stamps: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """What lies between the end of a trial and the first step of the next one in its place."""
    found = []
    free = sorted(one["end"] for one in stamps)
    for one in sorted(stamps, key=lambda each: each["begin"])[CONCURRENCY:]:
        end = free.pop(0)
        found.append(
            {
                "gap_s": one["first_step"] - end,
                "handed_over_s": one["begin"] - end,
                "got_ready_s": one["first_step"] - one["begin"],
            }
        )
    return found


def measure() -> dict[str, Any]:
    samples = Samples()
    with tempfile.TemporaryDirectory() as home:
        os.environ["ONESTEP_HOME"] = home
        search.try_overrides = stamped  # type: ignore[attr-defined]
        result = search.sweep(settings_of(OVERRIDES), say=print, show=samples.take)
        files = sorted((result.folder / "trials").glob(f"*/{_STAMPS}"))
        stamps = [json.loads(file.read_text()) for file in files]
    since, until = (f([one[key] for one in stamps]) for f, key in ((min, "begin"), (max, "end")))
    return {
        "overrides": OVERRIDES,
        "load_during": round(os.getloadavg()[0], 2),
        "trials": [
            {
                "got_ready_s": one["first_step"] - one["begin"],
                "training_s": one["trained"] - one["first_step"],
                "measuring_s": one["end"] - one["trained"],
            }
            for one in stamps
        ],
        "gaps": gaps(stamps),
        "processes": len({one["pid"] for one in stamps}),
        "spent": samples.between(since, until + 1.0, {int(one["pid"]) for one in stamps}),
    }


def busy(spent: Mapping[str, float]) -> float:
    """Processor time of the trials over that of all cores, whatever else had them."""
    return spent["trials_s"] / (CONCURRENCY * spent["wall_s"])


def bars(numbers: Mapping[str, Any]) -> Bars:
    longest = max(gap["gap_s"] for gap in numbers["gaps"])
    return [
        at_least(len(numbers["trials"]), TRIALS, number="trials"),
        at_most(numbers["processes"], CONCURRENCY, number="processes that trials ran in"),
        at_most(longest, MOST_S, number="seconds from a trial's end to the next one's first step"),
        at_least(
            busy(numbers["spent"]), LEAST_BUSY, number="share of the cores that trials were busy on"
        ),
    ]


if __name__ == "__main__":
    run("sweep_occupancy", measure, bars)
