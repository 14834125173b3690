"""What users see while an alias moves, processes are killed, and too much is asked.

python benchmarks/serving_faults.py             measure and judge; takes minutes
python benchmarks/serving_faults.py --judge     judge the stored numbers again

Two replicas behind HAProxy, on the cores that the clients use too; for the restart two ingresses on
a cluster of their own.
"""

import asyncio
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx

from onestep.benchmarks.client_load import TRIES, Answer, Load, ask
from onestep.benchmarks.deployed import deployed
from onestep.benchmarks.record import Bars, at_least, at_most, run
from onestep.benchmarks.served import (
    HAPROXY,
    Served,
    body_of,
    fill_registry,
    megabytes,
    served,
    wrk,
)
from onestep.platform.registry.store import Registry
from onestep.serving.settings import AppSettings

REPLICAS: Final = 2
CLIENTS: Final = 16
FLIP_S: Final = 20.0
KILL_S: Final = 12.0
INGRESS_S: Final = 30.0
RESTART_S: Final = 75.0
INGRESSES: Final = 2
OVERLOAD_S: Final = 60.0
MAX_WAITING: Final = 32
TIMES: Final = 4
STEPS: Final = 8
PAUSE_MS: Final = 200
PROBES: Final = 4
_SETTLES_S: Final = 60.0
_RELOADS_S: Final = 5.0
"""HAProxy is told of the last replica after all are ready, and then closes idle connections."""


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="1s-") as name:
        folder = Path(name)
        registry = fill_registry(folder, versions=2)
        overrides = (f"serve.replicas={REPLICAS}", f"serve.max_waiting={MAX_WAITING}")
        with served(folder, HAPROXY, *overrides) as service:
            time.sleep(_RELOADS_S)
            found = {"flip": flip(service, registry)}
            print(found, flush=True)
            for name, tries in (("replica_killed", 1), ("replica_killed_retried", TRIES)):
                found[name] = killed(service, "Generator", tries=tries, seconds=KILL_S)
                print(name, found[name], flush=True)
                settle(service)
            found["overload"] = overload(service, folder)
            print(found["overload"], flush=True)
            found["ingress_killed"] = killed(service, "Ingress", tries=TRIES, seconds=INGRESS_S)
            print(found["ingress_killed"], flush=True)
        found["restart"] = restarted(folder, overrides)
        return found


def under_load(
    service: Served, act: Callable[[], float], *, tries: int, seconds: float
) -> tuple[list[Answer], float]:
    """All answers while something is done to the service a third in, and when it was done."""

    async def both() -> tuple[list[Answer], float]:
        load = Load()
        task = asyncio.create_task(
            load.run(service.url, clients=CLIENTS, tries=tries, seconds=seconds)
        )
        await asyncio.sleep(seconds / 3)
        at = await asyncio.to_thread(act)
        return await task, at

    return asyncio.run(both())


def flip(service: Served, registry: Registry) -> dict[str, Any]:
    """The alias that is served moves to another version."""

    def promote() -> float:
        registry.promote("digits/2", "champion", why="better")
        return time.monotonic()

    answers, at = under_load(service, promote, tries=1, seconds=FLIP_S)
    new = [one.ended for one in answers if one.model == "digits/2"]
    old = [one.ended for one in answers if one.model == "digits/1"]
    return {
        **counted(answers, at),
        "first_new_s": round(min(new) - at, 3),
        "last_old_s": round(max(old) - at, 3),
    }


def killed(service: Served, name: str, *, tries: int, seconds: float) -> dict[str, Any]:
    """One process of the service is killed."""

    def kill() -> float:
        victim = service.processes(f"ServeReplica:onestep:{name}")[0]
        victim.send_signal(signal.SIGKILL)
        return time.monotonic()

    answers, at = under_load(service, kill, tries=tries, seconds=seconds)
    gap = _longest_gap(answers, at)
    return {**counted(answers, at), "in_flight": CLIENTS, "longest_gap_s": gap}


def restarted(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """A file with another setting is deployed, so that Serve restarts all, one after the other."""
    settings = (*overrides, f"serve.ingresses={INGRESSES}")
    with deployed(folder, HAPROXY, *settings) as cluster:
        time.sleep(_RELOADS_S)
        before = {one.pid for one in cluster.service.processes("ServeReplica:onestep:")}

        def deploy() -> float:
            cluster.deploy(*settings, f"serve.stuck_s={2 * AppSettings().stuck_s:g}")
            return time.monotonic()

        answers, at = under_load(cluster.service, deploy, tries=1, seconds=RESTART_S)
        gap = _longest_gap(answers, at)
        left = {one.pid for one in cluster.service.processes("ServeReplica:onestep:Generator")}
        replaced = {"replaced": REPLICAS - len(left & before), "longest_gap_s": gap}
    return {**counted(answers, at), **replaced}


def _longest_gap(answers: Sequence[Answer], at: float) -> float:
    """Seconds from then on in which nobody got an image."""
    ends = sorted(one.ended for one in answers if one.status == 200 and one.ended > at)
    last = max(one.ended for one in answers)
    return round(max(b - a for a, b in pairwise([at, *ends, last])), 2)


def counted(answers: list[Answer], at: float) -> dict[str, Any]:
    """How requests ended, and when those that failed did, from what was done on."""
    lost = [one.ended - at for one in answers if one.status != 200]
    return {
        "requests": len(answers),
        "failed": len(lost),
        "failed_between_s": [round(min(lost), 2), round(max(lost), 2)] if lost else None,
        "statuses": sorted({one.status for one in answers}),
        "sent_again": sum(one.tries > 1 for one in answers),
    }


def settle(service: Served) -> None:
    """Wait until all replicas are there again."""
    deadline = time.monotonic() + _SETTLES_S
    while time.monotonic() < deadline:
        time.sleep(1.0)
        replicas = service.processes("ServeReplica:onestep:Generator")
        if (
            len(replicas) == REPLICAS
            and httpx.get(f"{service.url}/readyz", timeout=10.0).is_success
        ):
            return
    raise RuntimeError(f"{REPLICAS} replicas must be ready within {_SETTLES_S:g} s")


def overload(service: Served, folder: Path) -> dict[str, Any]:
    """So many clients ask, after a pause, that four times what can be done is asked for.

    Images of several evaluations, so that the cores that make them can send so many requests, too.
    What can be done is measured before and after, because other work on the machine comes and goes.
    """
    url, body = f"{service.url}/v1/generate", body_of("npy", steps=STEPS)

    def capacity() -> float:
        return wrk(url, clients=32, seconds=6.0, body=body, folder=folder)["per_second"]

    able = capacity()
    lone = asyncio.run(_probe(service.url, seconds=2.0))
    idle_ms = statistics.median(1e3 * (one.ended - one.began) for one in lone)
    before = sum(megabytes(service.process).values())
    waiting = REPLICAS * (MAX_WAITING + AppSettings().bucket)  # clients that do not ask meanwhile
    clients = round(TIMES * able * PAUSE_MS / 1e3) + waiting

    async def both() -> tuple[dict[str, float], list[Answer]]:
        probing = asyncio.create_task(_probe(service.url, seconds=OVERLOAD_S, clients=PROBES))
        load = await asyncio.to_thread(
            wrk,
            url,
            clients=clients,
            seconds=OVERLOAD_S,
            body=body,
            folder=folder,
            pause_ms=PAUSE_MS,
        )
        return load, await probing

    load, probes = asyncio.run(both())
    began = time.monotonic()
    recovered = asyncio.run(_recovers(service.url, 3 * idle_ms))
    growth = sum(megabytes(service.process).values()) / before - 1
    able_after = capacity()
    refused = sorted(1e3 * (one.ended - one.began) for one in probes if one.status == 429)
    return {
        "clients": clients,
        "seconds": OVERLOAD_S,
        "capacity_before_per_second": able,
        "capacity_after_per_second": able_after,
        "capacity_per_second": round((able + able_after) / 2, 1),
        "offered_per_second": load["sent_per_second"],
        "goodput_per_second": load["per_second"],
        "refused_probes": len(refused),
        "refused_p50_ms": round(statistics.median(refused), 1) if refused else None,
        "refused_p99_ms": round(refused[int(0.99 * (len(refused) - 1))], 1) if refused else None,
        "probe_statuses": sorted({one.status for one in probes}),
        "broken": load["broken"],
        "memory_growth": round(growth, 4),
        "recovered_s": round(recovered - began, 2),
    }


async def _probe(url: str, *, seconds: float, clients: int = 1) -> list[Answer]:
    return await Load(steps=STEPS).run(url, clients=clients, tries=1, seconds=seconds)


async def _recovers(url: str, most_ms: float) -> float:
    """When a request is first answered about as fast as by an idle service."""
    async with httpx.AsyncClient(base_url=url, timeout=30.0) as http:
        end = time.monotonic() + _SETTLES_S
        while (answer := await ask(http, seed=0, tries=1, steps=STEPS)).ended < end:
            if answer.status == 200 and 1e3 * (answer.ended - answer.began) < most_ms:
                break
        return answer.ended


def bars(numbers: Mapping[str, Any]) -> Bars:
    flipped, overloaded = numbers["flip"], numbers["overload"]
    lost, ingress = numbers["replica_killed"], numbers["ingress_killed"]
    restart = numbers["restart"]
    return [
        at_most(flipped["failed"], 0, number="failed_at_flip", of=flipped["requests"]),
        at_most(flipped["first_new_s"], 1.0, number="flip_s"),
        at_most(restart["failed"], 0, number="failed_at_restart", of=restart["requests"]),
        at_least(restart["replaced"], REPLICAS, number="replaced_at_restart"),
        at_most(lost["failed"], lost["in_flight"], number="failed_at_kill", of=lost["requests"]),
        at_most(numbers["replica_killed_retried"]["failed"], 0, number="failed_at_kill_retried"),
        at_most(ingress["longest_gap_s"], 15.0, number="without_ingress_s"),
        at_most(ingress["failed"], 0, number="failed_without_ingress"),
        at_least(
            round(overloaded["offered_per_second"] / overloaded["capacity_per_second"], 3),
            TIMES,
            number="offered_of_capacity",
        ),
        at_least(
            round(overloaded["goodput_per_second"] / overloaded["capacity_per_second"], 3),
            0.9,
            number="goodput_of_capacity",
        ),
        at_most(overloaded["broken"], 0, number="broken_at_overload"),
        at_most(
            len({*overloaded["probe_statuses"]} - {200, 429}), 0, number="neither_made_nor_refused"
        ),
        at_most(overloaded["refused_p99_ms"] or 1e9, 50.0, number="refused_p99_ms"),
        at_most(overloaded["memory_growth"], 0.02, number="memory_growth"),
        at_most(overloaded["recovered_s"], 2.0, number="recovered_s"),
    ]


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    run("serving_faults", measure, bars)
