"""Replicas whose forwards run in processes of their own, across Ray Serve."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from onestep.serving.host import Hosted
from onestep.serving.settings import ServeSettings
from onestep.tests.serving.registry import fill_registry
from onestep.tests.serving.waiting import until


def processes_of_forwards() -> set[int]:
    children = psutil.Process().children(recursive=True)
    return {one.pid for one in children if "onestep.serving.forward_process" in one.cmdline()}


async def posted(url: str, *, number: int) -> list[int]:
    """The statuses of many requests side by side, in the middle of which a process is killed."""
    body = {"prompt": "1", "n": 4}
    async with httpx.AsyncClient(base_url=url, timeout=60.0) as http:

        async def post(seed: int) -> int:
            answer = await http.post("/v1/images/generations", json={**body, "seed": seed})
            return answer.status_code

        tasks = [asyncio.create_task(post(seed)) for seed in range(number)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        os.kill(min(processes_of_forwards()), signal.SIGKILL)
        late = [await post(seed) for seed in range(20)]
        return [*await asyncio.gather(*tasks), *late]


@pytest.mark.slow
@pytest.mark.ray
def test_no_request_is_lost_with_a_process_of_forwards_and_its_replica_comes_again(
    tmp_path: Path,
) -> None:
    uri = fill_registry(tmp_path)
    settings = ServeSettings.from_dict(
        {"tracking_uri": uri, "port": 0, "bucket": 4, "replicas": 2, "apart": True}
    )
    with Hosted(settings) as hosted:
        before = processes_of_forwards()
        assert len(before) == 2
        assert set(asyncio.run(posted(hosted.url, number=64))) == {200}
        assert until(lambda: len(processes_of_forwards()) == 2)
        assert len(processes_of_forwards() & before) == 1
        assert until(lambda: httpx.get(f"{hosted.url}/readyz").is_success)
