import io
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import httpx
import numpy as np
import pytest
from ray import serve

from onestep.platform.registry.store import Registry
from onestep.serving.app import build_application
from onestep.serving.host import APP_NAME, Hosted
from onestep.serving.loading import locate
from onestep.serving.settings import ServeSettings
from onestep.tests.serving.model import SHAPE
from onestep.tests.serving.registry import NETWORK, ORACLE, register_broken
from onestep.tests.serving.waiting import until

ALIAS = "digits@champion"
PROMISED_S = 1.0
BUSY = 5  # how much slower a machine that does other things may be


def ask_until(stop: Event, url: str) -> list[tuple[float, int, str]]:
    """When each answer came, its status, and the version that it names."""
    answers = []
    with httpx.Client(base_url=url, timeout=30.0) as client:
        while not stop.is_set():
            body = {"model": ALIAS, "prompt": "1", "seed": 3}
            answer = client.post("/v1/images/generations", json=body)
            version = answer.json().get("model", "") if answer.is_success else answer.text
            answers.append((time.monotonic(), answer.status_code, version))
    return answers


def readiness_until(stop: Event, url: str) -> list[tuple[int, str]]:
    """What the server says of its readiness, each answer once in a row."""
    said: list[tuple[int, str]] = []
    while not stop.wait(0.05):
        try:
            answer = httpx.get(f"{url}/readyz", timeout=10.0)
        except httpx.TransportError:
            continue
        if not said or said[-1] != (answer.status_code, answer.text):
            said.append((answer.status_code, answer.text))
    return said


@contextmanager
def stopping() -> Iterator[Event]:
    """An event that is set at the end, whatever happens."""
    event = Event()
    try:
        yield event
    finally:
        event.set()


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def card(url: str) -> dict[str, Any]:
    (found,) = [c for c in httpx.get(f"{url}/v1/models").json()["data"] if c["id"] == ALIAS]
    return dict(found)


@pytest.mark.slow
@pytest.mark.ray
def test_an_alias_moves_under_load_without_a_failed_request_and_a_broken_one_does_not(
    uri: str,
) -> None:
    registry, broken, port = Registry(uri), register_broken(uri), free_port()
    values = {"models": [ALIAS, NETWORK], "replicas": 2, "tracking_uri": uri, "bucket": 4}
    settings = ServeSettings.from_dict({**values, "port": port})
    with ThreadPoolExecutor(5) as pool, stopping() as stop:
        readiness = pool.submit(readiness_until, stop, f"http://127.0.0.1:{port}")
        with Hosted(settings) as hosted:
            url = hosted.url
            assert hosted.versions == {ALIAS: NETWORK, NETWORK: NETWORK}
            assert [c["id"] for c in httpx.get(f"{url}/v1/models").json()["data"]] == [
                ALIAS,
                NETWORK,
            ]
            clients = [pool.submit(ask_until, stop, url) for _ in range(4)]
            time.sleep(1)
            moved = {}
            for version in (ORACLE, NETWORK):
                registry.promote(version, "champion", why="a test")
                moved[version] = time.monotonic()
                assert until(lambda now=version: card(url)["version"] == now)
                time.sleep(1)
            registry.promote(broken, "champion", why="a mistake")
            assert until(lambda: bool(card(url)["problem"]))
            broke = time.monotonic()
            time.sleep(1)
            stop.set()
            answers = sorted(one for client in clients for one in client.result(timeout=30))
            told = card(url)
            check_native(url)
            check_missing(settings, broken, url)

    assert {status for _, status, _ in answers} == {200}
    for version, since in moved.items():
        seen = next(at for at, _, name in answers if at > since and name == version) - since
        print(f"{version} seen after {seen:.2f} s")
        assert seen < PROMISED_S * BUSY
    assert {name for at, _, name in answers if at > broke} == {NETWORK}
    assert {name for _, _, name in answers} == {NETWORK, ORACLE}
    assert told["version"] == NETWORK
    assert told["problem"].startswith(f"{ALIAS} means {broken}, which does not load: ")
    said = readiness.result(timeout=30)
    print(f"{len(answers)} answers", said)
    assert said[-1] == (200, '{"status":"ok"}')
    assert sum(status == 200 for status, _ in said) == 1, "ready once, it stays ready"


def check_native(url: str) -> None:
    body = {"model": ALIAS, "labels": [1, 2], "seeds": [3, 3], "format": "npy"}
    exact = httpx.post(f"{url}/v1/generate", json=body)
    assert exact.headers["X-Onestep-Model"] == NETWORK
    assert np.load(io.BytesIO(exact.content)).shape == (2, *SHAPE)
    refused = httpx.post(f"{url}/v1/generate", json={**body, "model": "best"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "model")


def check_missing(settings: ServeSettings, broken: str, url: str) -> None:
    """A served model that does not load keeps the server from being ready, and no other."""
    names = {ALIAS: NETWORK, broken: broken}
    app = build_application(locate(settings.app), {"models": names})
    serve.run(app, name=APP_NAME, route_prefix="/")
    answer = httpx.get(f"{url}/readyz")
    assert answer.status_code == 503
    assert answer.json()["error"]["message"].endswith(f"still missing: {broken}")
    missing = httpx.get(f"{url}/v1/models").json()["missing"]
    assert "got 0 finite values" in missing[broken]
