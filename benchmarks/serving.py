"""Images per second and latency of the service, beside its engine, LitServe and BentoML.

python benchmarks/serving.py             measure and judge; takes minutes
python benchmarks/serving.py --judge     judge the stored numbers again

One replica of one thread (serve=throughput) holds a U-Net of 1.07 million parameters, and its
forwards run in a process of their own that keeps to one core, as LitServe's do; wrk and all else of
a server mostly have the other. One contestant runs at a time, all in each round, and medians of the
rounds are told. The engine alone makes full batches and their npy files, in a process of its own,
right before and right after each server has its most clients: what a server has of the engine's
images per second is told against these two, since a machine that others share is faster in one
minute than in the next.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from onestep.benchmarks.record import Bars, at_least, at_most, more_than, run
from onestep.benchmarks.served import (
    HAPROXY,
    PYTHON,
    THROUGHPUT,
    Served,
    bentoml,
    body_of,
    environment,
    fill_registry,
    install_peers,
    litserve,
    served,
    wrk,
)

ROUNDS: Final = 3
SECONDS: Final = 4.0
CLIENTS: Final = (1, 8, 32)
MOST: Final = "npy 32"
FULL: Final = "16"
"""Rows of the engine's full batch."""
LIT: Final = "LitServe"
BENTO: Final = "BentoML"
LEAST_OF_ENGINE: Final = 0.9
LEAST_PNG: Final = 0.75
MOST_FORWARDS: Final = 2.0
MOST_MS: Final = 3.0
BENTO_BODY: Final = '{"requests": [%s]}'
ENGINE: Final = """
import json, statistics, sys, time
from onestep.benchmarks.peer_engine import BUCKET, engine, files
made, k, found = engine(), 0, {}
for rows in (1, BUCKET):
    times, end = [], time.perf_counter() + float(sys.argv[1])
    while time.perf_counter() < end:
        asked = [{"labels": 3, "seed": k + i, "format": "npy"} for i in range(rows)]
        begin = time.perf_counter()
        files(made, asked)
        times.append(time.perf_counter() - begin)
        k += rows
    rate = rows * len(times) / sum(times)
    found[rows] = {"per_second": rate, "ms": 1e3 * statistics.median(times)}
print(json.dumps(found))
"""


def engine_alone(folder: Path) -> dict[str, dict[str, float]]:
    """Images per second and milliseconds of a forward, by rows."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ENGINE, str(SECONDS / 2)],
        env=environment(folder, PYTHON),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, float]] = json.loads(ended.stdout.splitlines()[-1])
    return found


def measure() -> dict[str, Any]:
    peers = Path(tempfile.gettempdir()) / "onestep_peers"
    install_peers(peers)
    found: dict[str, _Found] = {}
    with tempfile.TemporaryDirectory(prefix="1s-") as name:
        folder = Path(name)
        fill_registry(folder)
        for _ in range(ROUNDS):
            servers: dict[str, AbstractContextManager[Served]] = {
                HAPROXY: served(folder, HAPROXY, THROUGHPUT),
                LIT: litserve(folder, peers),
                PYTHON: served(folder, PYTHON, THROUGHPUT),
                BENTO: bentoml(folder, peers),
            }
            for server, starting in servers.items():
                with starting as service:
                    _measure(server, service, folder, found.setdefault(server, _Found()))
    return {
        "rounds": ROUNDS,
        "seconds": SECONDS,
        "load_after": round(os.getloadavg()[0], 2),
        "engine": _middle_of_engine([one for each in found.values() for one in each.engine]),
        "of_the_engine": {server: _spread(each.shares) for server, each in found.items()},
        "servers": {
            server: {cell: _middle(rounds) for cell, rounds in each.cells.items()}
            for server, each in found.items()
        },
    }


@final
@dataclass
class _Found:
    """What the rounds say of a server, and of the engine beside it."""

    cells: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    engine: list[dict[str, Any]] = field(default_factory=list)

    @property
    def shares(self) -> list[float]:
        """Images per second over those of the engine right before and right after."""
        rates = [one[FULL]["per_second"] for one in self.engine]
        around = [(a + b) / 2 for a, b in zip(rates[::2], rates[1::2], strict=True)]
        return [
            cell["per_second"] / rate for cell, rate in zip(self.cells[MOST], around, strict=True)
        ]


def _measure(server: str, service: Served, folder: Path, found: _Found) -> None:
    for form in ("npy", "png") if server in (HAPROXY, PYTHON) else ("npy",):
        one = body_of(form)
        body = BENTO_BODY.replace("%s", one) if server == BENTO else one
        url = f"{service.url}/v1/generate"
        wrk(url, clients=max(CLIENTS), seconds=1.0, body=body, folder=folder)
        for clients in CLIENTS:
            cell = f"{form} {clients}"
            if cell == MOST:
                found.engine.append(engine_alone(folder))
            rates = wrk(url, clients=clients, seconds=SECONDS, body=body, folder=folder)
            if cell == MOST:
                found.engine.append(engine_alone(folder))
            found.cells.setdefault(cell, []).append(rates)
            print(time.strftime("%H:%M:%S"), server, cell, rates, flush=True)
    print(server, [round(share, 3) for share in found.shares], flush=True)


def _spread(values: list[float]) -> dict[str, Any]:
    """The median, and the smallest and the largest."""
    return {
        "median": round(statistics.median(values), 3),
        "range": [round(min(values), 3), round(max(values), 3)],
    }


def _middle(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians, and the smallest and the largest throughput."""
    middle: dict[str, Any] = {
        name: round(statistics.median(one[name] for one in rounds), 2) for name in rounds[0]
    }
    rates = [one["per_second"] for one in rounds]
    return middle | {
        "failed": sum(one["failed"] for one in rounds),
        "range": [min(rates), max(rates)],
    }


def _middle_of_engine(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for rows in rounds[0]:
        rates = [one[rows]["per_second"] for one in rounds]
        found[rows] = {
            "per_second": round(statistics.median(rates), 1),
            "ms": round(statistics.median(one[rows]["ms"] for one in rounds), 2),
            "range": [round(min(rates), 1), round(max(rates), 1)],
        }
    return found


def bars(numbers: Mapping[str, Any]) -> Bars:
    engine, servers = numbers["engine"], numbers["servers"]
    shares = {server: each["median"] for server, each in numbers["of_the_engine"].items()}
    most_ms = MOST_FORWARDS * engine["1"]["ms"] + MOST_MS
    failed = sum(cell["failed"] for server in servers.values() for cell in server.values())
    return [
        at_least(shares[HAPROXY], LEAST_OF_ENGINE, number="of_the_engine"),
        *(
            more_than(round(shares[HAPROXY] / shares[peer], 3), 1.0, number=f"of_{peer.lower()}")
            for peer in (LIT, BENTO)
        ),
        at_most(servers[HAPROXY]["npy 1"]["p50_ms"], most_ms, number="p50_ms_of_one_client"),
        at_least(
            round(
                servers[HAPROXY]["png 32"]["per_second"] / servers[HAPROXY][MOST]["per_second"], 3
            ),
            LEAST_PNG,
            number="png_of_npy",
        ),
        at_most(failed, 0, number="failed"),
    ]


if __name__ == "__main__":
    run("serving", measure, bars)
