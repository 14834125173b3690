"""Whether a service grows: python benchmarks/serving_soak.py [--minutes N] [--judge].

Few clients ask for half an hour. Memory is compared between the second tenth of the time, when all
is warm, and the last.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from onestep.benchmarks.client_load import Answer, Load
from onestep.benchmarks.record import RESULTS, Bars, at_least, at_most, judged, machine, save
from onestep.benchmarks.served import HAPROXY, Served, fill_registry, megabytes, served

NAME: Final = "serving_soak"
MINUTES: Final = 30.0
CLIENTS: Final = 2
SAMPLES: Final = 100
MOST_GROWTH: Final = 0.02


def measure(minutes: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="1s-") as name:
        folder = Path(name)
        fill_registry(folder)
        with served(folder, HAPROXY) as service:
            answers, samples = asyncio.run(_soak(service, 60 * minutes))
    totals = [sum(sample.values()) for sample in samples]
    tenth = max(1, len(totals) // 10)
    first, last = totals[tenth : 2 * tenth], totals[-tenth:]
    return {
        "minutes": minutes,
        "requests": len(answers),
        "failed": sum(one.status != 200 for one in answers),
        "megabytes": [round(total) for total in totals],
        "first": samples[tenth],
        "last": samples[-1],
        "growth": round(statistics.mean(last) / statistics.mean(first) - 1, 4),
    }


async def _soak(service: Served, seconds: float) -> tuple[list[Answer], list[dict[str, float]]]:
    load = Load()
    asking = load.run(service.url, clients=CLIENTS, tries=1, seconds=seconds)
    task = asyncio.create_task(asking)
    samples: list[dict[str, float]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(seconds / SAMPLES)
        samples.append(megabytes(service.process))
        print(round(sum(samples[-1].values())), len(load.answers), flush=True)
    return await task, samples


def bars(numbers: Mapping[str, Any]) -> Bars:
    return [
        at_least(numbers["minutes"], MINUTES, number="minutes"),
        at_most(numbers["growth"], MOST_GROWTH, number="growth"),
        at_most(numbers["failed"], 0, number="failed", of=numbers["requests"]),
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
