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

from onestep.serving.api import build_api
from onestep.serving.engine import Engine
from onestep.serving.keys import add_key
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
    with (
        listening(service, lambda app: Turnstile(app, crowd=lambda: crowd)) as url,
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
