import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import Any

import httpx
import pytest

from onestep.platform.registry.canary import CanaryTerms
from onestep.platform.registry.canary_ledger import CanaryLedger
from onestep.platform.registry.store import Registry
from onestep.serving.host import Hosted
from onestep.serving.settings import ServeSettings
from onestep.tests.serving.model import STD, gaussian, record_of
from onestep.tests.serving.registry import NETWORK, ORACLE, register_broken

ALIAS = "digits@champion"
ENDS_WITHIN_S = 120.0


def ask_until(stop: Event, url: str, first: int) -> list[tuple[int, str]]:
    """Status and version of each answer, every seed asked twice."""
    answers = []
    with httpx.Client(base_url=url, timeout=60.0) as client:
        seed = first
        while not stop.wait(0.02):
            body = {"model": ALIAS, "prompt": "1", "seed": seed // 2}
            answer = client.post("/v1/images/generations", json=body)
            said = answer.json().get("model", "") if answer.is_success else answer.text
            answers.append((answer.status_code, said))
            seed += 1
    return answers


def card(url: str) -> dict[str, Any]:
    models = httpx.get(f"{url}/v1/models", timeout=60.0).json()["data"]
    (found,) = [one for one in models if one["id"] == ALIAS]
    return dict(found)


def ended(url: str, version: str) -> dict[str, Any]:
    """The canary of the alias, once it is this version and no longer runs."""
    deadline = time.monotonic() + ENDS_WITHIN_S
    while True:
        canary = card(url)["canary"]
        if canary and canary["version"] == version and canary["state"] != "running":
            return dict(canary)
        assert time.monotonic() < deadline, canary
        time.sleep(0.1)


@contextmanager
def traffic(url: str) -> Iterator[list[tuple[int, str]]]:
    """Three clients for the time of the block; what they were answered is there at its end."""
    stop, answers = Event(), list[tuple[int, str]]()
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask_until, stop, url, 10**6 * k) for k in range(3)]
        try:
            yield answers
        finally:
            stop.set()
        for one in asked:
            answers.extend(one.result(timeout=60))


@pytest.mark.slow
@pytest.mark.ray
def test_a_good_canary_is_promoted_and_bad_ones_are_rolled_back_and_no_request_fails(
    uri: str,
) -> None:
    registry = Registry(uri)
    registry.promote(ORACLE, "champion", why="a Gaussian")
    net = {**record_of().net, "std": STD * 1.02}
    run_id, weights = registry.entry(NETWORK).run_id, gaussian().state_dict()
    wider = str(registry.register(replace(record_of(), net=net), weights, run_id=run_id))
    broken = register_broken(uri)
    ledger = CanaryLedger(registry)
    terms = CanaryTerms(percent=40.0, images=60, max_drift=0.02, max_latency=50.0)
    values = {"models": [ALIAS], "replicas": 2, "tracking_uri": uri, "bucket": 4, "port": 0}
    with Hosted(ServeSettings.from_dict(values)) as hosted:
        url = hosted.url
        assert card(url)["canary"] is None
        with traffic(url) as answers:
            ledger.start(wider, ALIAS, terms, why="a little wider")
            promoted = ended(url, wider)
            assert card(url)["version"] == wider
            ledger.start(NETWORK, ALIAS, replace(terms, shadow=True), why="not trained")
            drifted = ended(url, NETWORK)
            ledger.start(broken, ALIAS, terms, why="a mistake")
            unloaded = ended(url, broken)
        assert card(url)["version"] == wider

    print(Counter(answers), promoted, drifted, unloaded, sep="\n")
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {ORACLE, wider}, "shadows are seen by nobody"
    assert promoted["state"] == "promoted"
    assert promoted["images"] >= 60
    assert promoted["errors"] == 0
    assert drifted["state"] == "rolled_back"
    assert drifted["drift"] > 0.02
    assert unloaded["state"] == "rolled_back"
    assert unloaded["why"].startswith(f"{broken} does not load: ")
    history = [one.to for one in registry.history("digits", "champion-canary")]
    assert history == [wider, "", NETWORK, "", broken, ""]
    assert [one.to for one in registry.history("digits", "champion")][-1] == wider
