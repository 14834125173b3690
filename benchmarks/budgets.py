"""Time and memory of the two commands that a newcomer runs.

    python benchmarks/budgets.py demo                 `make demo`: <= 8 min, < 6 GiB
    python benchmarks/budgets.py tests                `make test`: <= 10 min
    python benchmarks/budgets.py --judge              judge the stored numbers again
    python benchmarks/budgets.py --show -- COMMAND    measure any command and write nothing

Memory is the sum of the proportional set sizes of the command and all its descendants, read every
two seconds: a page that several processes share counts once. Descendants that have left the tree,
as Ray's do, are known by a mark in their environment. The time is wall-clock after installation.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onestep.benchmarks.record import RESULTS, Bars, at_most, judged, machine, save

COMMANDS = {"demo": ("make", "demo"), "tests": ("make", "test")}
MOST_S = {"demo": 8 * 60.0, "tests": 10 * 60.0}
MOST_GIB = {"demo": 6.0}
POLL_S = 2.0
MARK = "ONESTEP_BUDGETS"
_STAGE = re.compile(r"^\[(\d+)/\d+\] (.+)$")
_STAGE_S = re.compile(r"^  (\d+) s, \d+ s in all$")


def main() -> None:
    """Measure what is asked for, judge and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", metavar="WHAT", help=", ".join(COMMANDS))
    parser.add_argument("--judge", action="store_true", help="judge the stored numbers again")
    parser.add_argument("--show", action="store_true", help="WHAT is a command; write nothing")
    arguments = parser.parse_args()
    if arguments.show:
        print(json.dumps(measure(arguments.what), indent=2))
        return
    if not (arguments.judge or arguments.what) or set(arguments.what) - COMMANDS.keys():
        parser.error(f"WHAT must be of {', '.join(COMMANDS)}, got {arguments.what}")
    path = RESULTS / "budgets.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    commands = dict(stored.get("commands", {}))
    for what in arguments.what:
        commands[what] = {"machine": machine(), **measure(COMMANDS[what])}
    numbers = {"commands": commands}
    save("budgets", judged(numbers, bars(numbers)))


def measure(command: Sequence[str]) -> dict[str, Any]:
    """Run a command, hand on what it prints, and keep its time, memory and stages."""
    mark = f"{os.getpid()}-{time.time_ns()}"
    begin = time.monotonic()
    lines, peak, done = [], [0], threading.Event()
    with subprocess.Popen(
        command, env={**os.environ, MARK: mark}, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as child:
        watcher = threading.Thread(target=_watch, args=(child.pid, mark, peak, done), daemon=True)
        watcher.start()
        assert child.stdout is not None, "it was asked for"
        for line in child.stdout:
            sys.stdout.write(line)
            lines.append(line.rstrip("\n"))
    seconds = time.monotonic() - begin
    done.set()
    watcher.join()
    return {
        "command": list(command),
        "exit_status": child.returncode,
        "seconds": round(seconds, 1),
        "peak_gib": round(peak[0] / 2**30, 3),
        "stages": dict(stages(lines)),
    }


def _watch(root: int, mark: str, peak: list[int], done: threading.Event) -> None:
    while True:
        peak[0] = max(peak[0], sum(pss_of(pid) for pid in tree(root, mark)))
        if done.wait(POLL_S):
            return


def tree(root: int, mark: str) -> set[int]:
    """A process, its descendants, and all whose environment has the mark."""
    parents: dict[int, int] = {}
    found = {root}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        pid = int(folder.name)
        try:
            # The name of the command may hold spaces and brackets; the parent stands behind it.
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(pid)
        except (OSError, ValueError, IndexError):
            continue  # it has ended, or is not ours to look into
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def pss_of(pid: int) -> int:
    """Proportional set size of a process in bytes, 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def stages(lines: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Seconds of each stage that the demo's lines tell."""
    name = ""
    for line in lines:
        if begun := _STAGE.match(line):
            name = begun[2]
        elif name and (ended := _STAGE_S.match(line)):
            yield name, float(ended[1])
            name = ""


def bars(numbers: Mapping[str, Any]) -> Bars:
    """What the budgets say of the commands that were measured."""
    found: Bars = []
    for what, measured in numbers["commands"].items():
        found.append(at_most(measured["exit_status"], 0, command=what, number="exit_status"))
        found.append(at_most(measured["seconds"], MOST_S[what], command=what, number="seconds"))
        if what in MOST_GIB:
            found.append(
                at_most(measured["peak_gib"], MOST_GIB[what], command=what, number="peak_gib")
            )
    return found


if __name__ == "__main__":
    main()
