"""Whatever is sent gets an answer that is no failure and tells nothing of the server."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import schemathesis
from schemathesis.checks import CHECKS as EVERY_CHECK
from schemathesis.checks import load_all_checks
from schemathesis.generation import GenerationMode

from onestep.benchmarks.by_schema import ask_by_schema
from onestep.benchmarks.hostile import (
    GENERATE,
    GENERATIONS,
    MAX_BODY_MB,
    Hostile,
    fault_of,
    hostile,
    keys_for,
)
from onestep.serving.api import build_api
from onestep.serving.desk import Desk
from onestep.serving.engine import Engine
from onestep.serving.service import EngineService
from onestep.serving.settings import AppSettings
from onestep.serving.shelf import Shelf
from onestep.serving.split import Split
from onestep.tests.serving.model import gaussian, record_of

REQUESTS: Final = 1500
EXAMPLES: Final = 8
load_all_checks()
CAN_BE_WRONG: Final = (GENERATE, GENERATIONS, "/v1/images/{name}/{version}/{seed}/{k}.{form}")
CHECKS: Final = EVERY_CHECK.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    ]
)


def load(version: str) -> EngineService:
    engine = Engine(gaussian(), record_of(), bucket=16)
    return EngineService(engine, name=version, version=version)


async def answers(requests: list[Hostile], keys: Path) -> list[httpx.Response]:
    """Those of a name on trial, behind keys."""
    tokens = keys_for(keys)
    desk = Desk(Shelf(load, memory_bytes=10**9))
    await desk.serve({"digits@champion": ["digits/1"]})
    await desk.stage("digits/2")
    desk.split("digits@champion", Split(version="digits/2", percent=50.0, shadow=False))
    transport = httpx.ASGITransport(
        build_api(desk, AppSettings(access_log=False, keys=str(keys), max_body_mb=MAX_BODY_MB))
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        found = []
        for one in requests:
            headers = one.headers_with(tokens)
            ask = client.request(one.method, one.path, content=one.content, headers=headers)
            found.append(await asyncio.wait_for(ask, timeout=20))
        return found


def test_no_hostile_request_makes_the_server_fail_or_tell(tmp_path: Path) -> None:
    requests = list(hostile(REQUESTS, seed=0))
    found = asyncio.run(answers(requests, tmp_path / "keys.yaml"))
    kinds = [one.headers.get("content-type", "") for one in found]
    faults = {
        f"{request}: {fault}"
        for request, answer, kind in zip(requests, found, kinds, strict=True)
        if (fault := fault_of(answer.status_code, kind, answer.content, method=request.method))
    }
    assert faults == set()
    statuses = Counter(answer.status_code for answer in found)
    assert statuses[200] > REQUESTS // 20, "some must get as far as the model"
    assert statuses[422] > REQUESTS // 4
    assert all(statuses[status] > 0 for status in (401, 413, 429))
    versions = {answer.headers.get("X-Onestep-Model") for answer in found}
    assert versions >= {"digits/1", "digits/2"}


def test_what_the_schema_allows_and_forbids_is_answered_as_the_schema_says() -> None:
    asked: Counter[tuple[str, GenerationMode]] = Counter()

    def ask(case: Any) -> None:
        asked[case.operation.path, case.meta.generation.mode] += 1
        answer = case.call()
        media = answer.headers.get("content-type", [""])[0]
        assert fault_of(answer.status_code, media, answer.content, method=case.method) == ""
        case.validate_response(answer, checks=CHECKS)

    api = build_api(load("digits/1"), AppSettings(access_log=False))
    schema = schemathesis.openapi.from_asgi("/openapi.json", api)
    ask_by_schema(schema, examples=EXAMPLES, ask=ask)
    assert all(asked[path, mode] > 0 for path in CAN_BE_WRONG for mode in GenerationMode)
    assert asked.total() > 50


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, b"{}"),
        (422, b'{"error": "in /tmp/x"}'),
        (422, b'{"error": "onestep.serving.engine failed"}'),
        (422, b'{"detail": "no"}'),
        (200, b'{"why": "in /tmp/x"}'),
    ],
)
def test_a_fault_is_seen(status: int, content: bytes) -> None:
    assert fault_of(status, "application/json", content)
    assert not fault_of(422, "application/json", b'{"error": "n must be 1"}')
