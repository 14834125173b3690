"""Thousands of hostile requests over HTTP: python benchmarks/serving_fuzz.py [--judge].

Those of hostile.py, and those that schemathesis makes of the OpenAPI schema, half of them against
it, go to a running service that asks for keys.
"""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import schemathesis

from onestep.benchmarks.by_schema import ask_by_schema
from onestep.benchmarks.hostile import (
    MAX_BODY_MB,
    Hostile,
    Key,
    fault_of,
    hostile,
    keys_for,
)
from onestep.benchmarks.record import Bars, at_least, at_most, run
from onestep.benchmarks.served import PYTHON, fill_registry, served

REQUESTS: Final = 9000
EXAMPLES: Final = 150
CLIENTS: Final = 8
HANGS_S: Final = 30.0
SHOWN: Final = 10


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="1s-") as name:
        folder = Path(name)
        fill_registry(folder)
        tokens = keys_for(folder / "keys.yaml")
        guards = (f"serve.keys={folder / 'keys.yaml'}", f"serve.max_body_mb={MAX_BODY_MB}")
        with served(folder, PYTHON, *guards) as service:
            begin = time.monotonic()
            faults: list[str] = []
            statuses: Counter[str] = Counter()
            asyncio.run(_by_hand(service.url, tokens, faults, statuses))
            print(statuses, faults[:SHOWN], flush=True)
            asked = _by_schema(service.url, tokens["good"], faults, statuses)
            is_ready = httpx.get(f"{service.url}/readyz", timeout=30.0).is_success
    return {
        "by_hand": REQUESTS,
        "by_schema": asked,
        "seconds": round(time.monotonic() - begin, 1),
        "statuses": dict(sorted(statuses.items())),
        "faults": len(faults),
        "shown": faults[:SHOWN],
        "ready_after": is_ready,
    }


async def _by_hand(
    url: str, tokens: Mapping[Key, str], faults: list[str], statuses: Counter[str]
) -> None:
    requests = hostile(REQUESTS, seed=1)
    async with httpx.AsyncClient(base_url=url, timeout=HANGS_S) as http:

        async def work() -> None:
            for one in requests:
                await _send(http, one, tokens, faults, statuses)

        await asyncio.gather(*(work() for _ in range(CLIENTS)))


async def _send(
    http: httpx.AsyncClient,
    one: Hostile,
    tokens: Mapping[Key, str],
    faults: list[str],
    statuses: Counter[str],
) -> None:
    headers = one.headers_with(tokens)
    try:
        answer = await http.request(one.method, one.path, content=one.content, headers=headers)
    except httpx.TransportError as error:
        statuses[type(error).__name__] += 1
        faults.append(f"{one.method} {one.path[:80]} {dict(one.headers)}: {error!r}")
        return
    statuses[str(answer.status_code)] += 1
    media = answer.headers.get("content-type", "")
    if fault := fault_of(answer.status_code, media, answer.content, method=one.method):
        faults.append(f"{one.method} {one.path[:80]} {one.content[:80]!r}: {fault}")


def _by_schema(url: str, token: str, faults: list[str], statuses: Counter[str]) -> int:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    asked = 0

    def ask(case: Any) -> None:
        nonlocal asked
        asked += 1
        answer = case.call(timeout=HANGS_S, headers={"Authorization": f"Bearer {token}"})
        statuses[str(answer.status_code)] += 1
        media = answer.headers.get("content-type", [""])[0]
        if fault := fault_of(answer.status_code, media, answer.content, method=case.method):
            faults.append(f"{case.operation.label}: {fault}")

    ask_by_schema(schema, examples=EXAMPLES, ask=ask)
    return asked


def bars(numbers: Mapping[str, Any]) -> Bars:
    return [
        at_least(numbers["by_hand"] + numbers["by_schema"], 10_000, number="requests"),
        at_most(numbers["faults"], 0, number="faults"),
        at_least(int(numbers["ready_after"]), 1, number="ready_after"),
    ]


if __name__ == "__main__":
    run("serving_fuzz", measure, bars)
