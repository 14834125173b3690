import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest

from onestep.platform.registry.store import Registry
from onestep.serving.host import Hosted
from onestep.serving.settings import ServeSettings
from onestep.tests.serving.registry import NETWORK, ORACLE, fill_registry, register_broken

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


def card(url: str) -> dict[str, str]:
    (found,) = [c for c in httpx.get(f"{url}/v1/models").json()["data"] if c["id"] == ALIAS]
    return dict(found)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.ray
def test_an_alias_moves_under_load_without_a_failed_request_and_a_broken_one_does_not(
    empty_database: Path, tmp_path: Path
) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    uri = fill_registry(tmp_path)
    registry, broken = Registry(uri), register_broken(uri)
    values = {
        "models": [ALIAS, NETWORK],
        "replicas": 2,
        "tracking_uri": uri,
        "port": 0,
        "bucket": 4,
    }
    with Hosted(ServeSettings.from_dict(values)) as hosted, ThreadPoolExecutor(4) as pool:
        url = hosted.url
        assert hosted.versions == {ALIAS: NETWORK, NETWORK: NETWORK}
        assert httpx.get(f"{url}/readyz").json() == {"status": "ok"}
        assert [c["id"] for c in httpx.get(f"{url}/v1/models").json()["data"]] == [ALIAS, NETWORK]

        stop = Event()
        clients = [pool.submit(ask_until, stop, url) for _ in range(4)]
        try:
            time.sleep(1)
            moved = {}
            for version in (ORACLE, NETWORK):
                registry.promote(version, "champion", why="a test")
                moved[version] = time.monotonic()
                until(lambda now=version: card(url)["version"] == now)
                time.sleep(1)
            registry.promote(broken, "champion", why="a mistake")
            until(lambda: bool(card(url)["problem"]))
            broke = time.monotonic()
            time.sleep(1)
        finally:
            stop.set()
        answers = sorted(answer for client in clients for answer in client.result(timeout=30))
        assert {status for _, status, _ in answers} == {200}
        print(f"{len(answers)} answers")
        for version, since in moved.items():
            seen = next(at for at, _, name in answers if at > since and name == version) - since
            print(f"{version} seen after {seen:.2f} s")
            assert seen < PROMISED_S * BUSY
        assert {name for at, _, name in answers if at > broke} == {NETWORK}
        assert {name for _, _, name in answers} == {NETWORK, ORACLE}
        told = card(url)
        assert told["version"] == NETWORK
        assert told["problem"].startswith(f"{ALIAS} means {broken}, which does not load: ")
        assert httpx.get(f"{url}/readyz").is_success
