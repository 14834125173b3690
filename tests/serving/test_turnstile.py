import asyncio
import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onestep.serving.api import build_api
from onestep.serving.engine import Engine
from onestep.serving.keys import add_key
from onestep.serving.request_trace import route_of
from onestep.serving.service import EngineService
from onestep.serving.settings import AppSettings
from onestep.serving.turnstile import Turnstile
from onestep.tests.serving.listening import listening
from onestep.tests.serving.model import gaussian, record_of

GENERATE: Final = "/v1/generate"


@pytest.fixture
def service() -> Iterator[EngineService]:
    made = EngineService(Engine(gaussian(), record_of(), bucket=4), name="c", version="d/3")
    yield made
    made.close()


def test_who_is_turned_away_can_ask_again_on_the_same_connection(service: EngineService) -> None:
    crowd = 7

    def behind(app: ASGIApp) -> ASGIApp:
        return Turnstile(app, paths={GENERATE}, crowd=lambda: crowd)

    with (
        listening(service, behind) as url,
        closing(http.client.HTTPConnection(urlsplit(url).netloc)) as line,
    ):
        # More than the server has read when it answers.
        line.request("POST", GENERATE, body=b" " * 500_000)
        refused = line.getresponse()
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        error = json.loads(refused.read())["error"]
        assert error["message"] == "7 requests wait already; try again in a second"
        sock = line.sock
        line.request("GET", "/v1/models")  # asks for no images
        models = line.getresponse()
        assert (models.status, len(json.loads(models.read())["data"])) == (200, 1)
        crowd = 0
        asked = json.dumps({"labels": 1, "format": "npy"})
        line.request("POST", GENERATE, body=asked, headers={"Content-Type": "application/json"})
        assert line.getresponse().status == 200
        assert line.sock is sock


def test_nothing_of_who_is_turned_away_is_read_and_other_paths_are_let_in() -> None:
    reached: list[str] = []
    sent: list[Message] = []

    async def inside(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        reached.append(f"{scope['method']} {scope['path']}")

    async def unread() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    async def visit() -> None:
        turnstile = Turnstile(inside, paths={GENERATE}, crowd=lambda: 7)
        for method, path in (("POST", GENERATE), ("POST", "/nowhere"), ("GET", GENERATE)):
            scope = {"type": "http", "method": method, "path": path, "headers": []}
            await turnstile(scope, unread, send)
            told.append(route_of(scope))

    told: list[str] = []
    asyncio.run(visit())
    assert reached == ["POST /nowhere", f"GET {GENERATE}"]
    assert [one["status"] for one in sent if "status" in one] == [429]
    assert told == [GENERATE, "unknown", "unknown"]


def test_a_wrong_key_is_told_before_a_full_house(service: EngineService, tmp_path: Path) -> None:
    token = add_key(tmp_path / "keys.yaml", "ada")
    settings = AppSettings(keys=str(tmp_path / "keys.yaml"))

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(build_api(service, settings, crowd=lambda: 3))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            heads = [{"Authorization": f"Bearer {one}"} for one in ("wrong", token)]
            asked = [await client.post(GENERATE, json={}, headers=head) for head in heads]
            return [answer.status_code for answer in asked]

    assert asyncio.run(ask()) == [401, 429]
