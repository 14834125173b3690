"""Whatever is sent gets an answer that is no failure and tells nothing of the server."""

import asyncio
from collections import Counter
from typing import Any, Final

import httpx
import pytest
import schemathesis
from schemathesis.checks import CHECKS as EVERY_CHECK
from schemathesis.checks import load_all_checks
from schemathesis.generation import GenerationMode

from onestep.benchmarks.by_schema import ask_by_schema
from onestep.benchmarks.hostile import GENERATE, GENERATIONS, Hostile, fault_of, hostile
from onestep.serving.api import build_api
from onestep.serving.engine import Engine
from onestep.serving.service import EngineService
from onestep.serving.settings import AppSettings
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


def app() -> Any:
    engine = Engine(gaussian(), record_of(), bucket=16)
    service = EngineService(engine, name="champion", version="digits/1")
    return build_api(service, AppSettings(access_log=False))


async def answers(requests: list[Hostile]) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        found = []
        for one in requests:
            ask = client.request(
                one.method, one.path, content=one.content, headers=dict(one.headers)
            )
            found.append(await asyncio.wait_for(ask, timeout=20))
        return found


def test_no_hostile_request_makes_the_server_fail_or_tell() -> None:
    requests = list(hostile(REQUESTS, seed=0))
    found = asyncio.run(answers(requests))
    kinds = [one.headers.get("content-type", "") for one in found]
    faults = {
        f"{request}: {fault}"
        for request, answer, kind in zip(requests, found, kinds, strict=True)
        if (fault := fault_of(answer.status_code, kind, answer.content))
    }
    assert faults == set()
    statuses = Counter(answer.status_code for answer in found)
    assert statuses[200] > REQUESTS // 20, "some must get as far as the model"
    assert statuses[422] > REQUESTS // 4


def test_what_the_schema_allows_and_forbids_is_answered_as_the_schema_says() -> None:
    asked: Counter[tuple[str, GenerationMode]] = Counter()

    def ask(case: Any) -> None:
        asked[case.operation.path, case.meta.generation.mode] += 1
        answer = case.call()
        media = answer.headers.get("content-type", [""])[0]
        assert fault_of(answer.status_code, media, answer.content) == ""
        case.validate_response(answer, checks=CHECKS)

    schema = schemathesis.openapi.from_asgi("/openapi.json", app())
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
    ],
)
def test_a_fault_is_seen(status: int, content: bytes) -> None:
    assert fault_of(status, "application/json", content)
    assert not fault_of(422, "application/json", b'{"error": "n must be 1"}')
