"""What keys, limits, bodies, the log and the metrics add to a request, in the event loop.

python benchmarks/http_guard.py             measure and judge
python benchmarks/http_guard.py --judge     judge the stored numbers again
"""

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.serve  # noqa: F401  which pydantic warns of unless it is there first
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onestep.benchmarks.record import Bars, at_most, run
from onestep.serving.body import BodyLimit
from onestep.serving.gate import Gate, KeyGate
from onestep.serving.journal import Journal
from onestep.serving.keys import add_key
from onestep.serving.meter import Meter

ROUNDS = 7
REQUESTS = 2000
MOST_US = {"metrics and id": 50.0, "and log": 120.0, "and body": 150.0, "and keys": 400.0}
"""A forward of the smallest network takes thousands."""
OTHERS = 20


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 300})


async def receive() -> Message:
    return {"type": "http.request", "body": b"x" * 20, "more_body": False}


async def send(message: Message) -> None:
    del message


def layers(keys: Path) -> dict[str, ASGIApp]:
    def journal(app: ASGIApp, *, access_log: bool) -> Journal:
        headers = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        return Journal(app, headers=headers, meter=Meter("local"), access_log=access_log)

    bounded = BodyLimit(answer, max_mb=16, timeout_s=30.0)
    return {
        "nothing": answer,
        "metrics and id": journal(answer, access_log=False),
        "and log": journal(answer, access_log=True),
        "and body": journal(bounded, access_log=True),
        "and keys": journal(KeyGate(bounded, Gate(str(keys))), access_log=True),
    }


async def microseconds(app: ASGIApp, token: str) -> float:
    given = [(b"authorization", f"Bearer {token}".encode()), (b"content-length", b"20")]
    begin = time.perf_counter()
    for _ in range(REQUESTS):
        scope = {"type": "http", "method": "POST", "path": "/v1/generate", "headers": given}
        await app(scope, receive, send)
    return 1e6 * (time.perf_counter() - begin) / REQUESTS


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.yaml"
        token = add_key(keys, "ada", requests_per_minute=100_000)
        for k in range(OTHERS):
            add_key(keys, f"other{k}")
        apps = layers(keys)
        found: dict[str, list[float]] = {name: [] for name in apps}
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            for _ in range(ROUNDS):
                for name, app in apps.items():
                    found[name].append(asyncio.run(microseconds(app, token)))
    return {
        "keys": OTHERS + 1,
        "least_us": {name: min(values) for name, values in found.items()},
        "median_us": {name: statistics.median(values) for name, values in found.items()},
    }


def bars(numbers: Mapping[str, Any]) -> Bars:
    return [
        at_most(numbers["least_us"][name], most, what=name, unit="us")
        for name, most in MOST_US.items()
    ]


if __name__ == "__main__":
    run("http_guard", measure, bars)
