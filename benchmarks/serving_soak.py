"""Whether a service grows: python benchmarks/serving_soak.py [--minutes N] [--judge].

Few clients ask for half an hour, while the alias moves to another version and back every ten
seconds. Memory of all processes, also of the one of the forwards, is compared between the second
tenth of the time, when all is warm, and the last.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from onestep.benchmarks.client_load import Answer, Load
from onestep.benchmarks.record import RESULTS, Bars, at_least, at_most, judged, machine, save
from onestep.benchmarks.served import (
    HAPROXY,
    THROUGHPUT,
    Served,
    fill_registry,
    megabytes,
    served,
)
from onestep.platform.registry.store import Registry

NAME: Final = "serving_soak"
MINUTES: Final = 30.0
CLIENTS: Final = 2
SAMPLES: Final = 100
VERSIONS: Final = 2
FLIP_S: Final = 10.0
LEAST_SHARE: Final = 0.25
MOST_GROWTH: Final = 0.02


def measure(minutes: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="1s-") as name:
        folder = Path(name)
        registry = fill_registry(folder, versions=VERSIONS)
        with served(folder, HAPROXY, THROUGHPUT) as service:
            answers, samples = asyncio.run(_soak(service, registry, 60 * minutes))
    totals = [sum(sample.values()) for sample in samples]
    tenth = max(1, len(totals) // 10)
    first, last = totals[tenth : 2 * tenth], totals[-tenth:]
    return {
        "minutes": minutes,
        "requests": len(answers),
        "failed": sum(one.status != 200 for one in answers),
        "answered_by": dict(sorted(Counter(one.model for one in answers if one.model).items())),
        "megabytes": [round(total) for total in totals],
        "first": samples[tenth],
        "last": samples[-1],
        "growth": round(statistics.mean(last) / statistics.mean(first) - 1, 4),
    }


async def _soak(
    service: Served, registry: Registry, seconds: float
) -> tuple[list[Answer], list[dict[str, float]]]:
    load = Load()
    asking = load.run(service.url, clients=CLIENTS, tries=1, seconds=seconds)
    task = asyncio.create_task(asking)
    flips = asyncio.create_task(_flip(registry))
    samples: list[dict[str, float]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(seconds / SAMPLES)
        samples.append(megabytes(service.process))
        print(round(sum(samples[-1].values())), len(load.answers), flush=True)
    answers = await task
    flips.cancel()
    return answers, samples


async def _flip(registry: Registry) -> None:
    """Moves the alias from each version to the next, until it is cancelled."""
    for version in cycle((*range(2, VERSIONS + 1), 1)):
        await asyncio.sleep(FLIP_S)
        await asyncio.to_thread(registry.promote, f"digits/{version}", "champion", why="its turn")


def bars(numbers: Mapping[str, Any]) -> Bars:
    answered = [numbers["answered_by"].get(f"digits/{k + 1}", 0) for k in range(VERSIONS)]
    return [
        at_least(numbers["minutes"], MINUTES, number="minutes"),
        at_most(numbers["growth"], MOST_GROWTH, number="growth"),
        at_most(numbers["failed"], 0, number="failed", of=numbers["requests"]),
        at_least(
            round(min(answered) / sum(answered), 3), LEAST_SHARE, number="share_of_each_version"
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--judge", action="store_true", help="judge the stored numbers again")
    arguments = parser.parse_args()
    if arguments.judge:
        numbers = json.loads((RESULTS / f"{NAME}.json").read_text())
    else:
        numbers = {"machine": machine(), **measure(arguments.minutes)}
    save(NAME, judged(numbers, bars(numbers)))


if __name__ == "__main__":
    main()
