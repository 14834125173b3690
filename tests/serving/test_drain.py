"""What becomes of requests that wait when the service is told to stop."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from onestep.serving.host import Hosted
from onestep.serving.settings import ServeSettings
from onestep.tests.serving.registry import fill_registry


def waiting(url: str) -> float:
    page = httpx.get(f"{url}/metrics", timeout=30.0).text
    lines = [line for line in page.splitlines() if line.startswith("onestep_waiting{")]
    return sum(float(line.split()[-1]) for line in lines)


@pytest.mark.slow
@pytest.mark.ray
def test_requests_that_wait_are_answered_before_a_service_stops(tmp_path: Path) -> None:
    settings = ServeSettings.from_dict(
        {"tracking_uri": fill_registry(tmp_path), "port": 0, "bucket": 4}
    )
    body = {"prompt": "1", "n": 64, "steps": 4}
    with ThreadPoolExecutor(12) as pool:
        with Hosted(settings) as hosted:
            url = f"{hosted.url}/v1/images/generations"
            asked = [pool.submit(httpx.post, url, json=body, timeout=90.0) for _ in range(12)]
            deadline = time.monotonic() + 20
            while waiting(hosted.url) < 6:
                assert time.monotonic() < deadline
        answers = [one.result() for one in asked]
    assert [answer.status_code for answer in answers] == [200] * 12
    assert {len(answer.json()["data"]) for answer in answers} == {64}
