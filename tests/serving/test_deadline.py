"""Deadlines and qualities of requests, from the queue of an engine to a socket."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import httpx
import numpy as np
import openai
import pytest
import torch

from onestep.serving.batcher import Batcher
from onestep.serving.client import Client, ServiceError
from onestep.serving.engine import Draw, Engine
from onestep.serving.errors import DeadlineUnmet, Overloaded
from onestep.serving.pace import Pace
from onestep.serving.service import EngineService
from onestep.serving.waiting import room
from onestep.serving.walk import Question
from onestep.tests.serving.listening import listening
from onestep.tests.serving.model import gaussian, record_of

FORWARD_S: Final = 0.05
METRICS: Final = {
    "eval/1nn_deviation/nfe_1": 0.3,
    "eval/1nn_deviation/nfe_2": 0.4,
    "eval/1nn_deviation/nfe_8": 0.1,
}


class Slow:
    """An engine whose forwards take at least a while, or until a gate opens."""

    def __init__(self, *, forward_s: float = FORWARD_S, measured: bool = True) -> None:
        record = replace(record_of(), metrics=METRICS if measured else {})
        self.engine = Engine(gaussian(), record, bucket=4)
        self.rows: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self._ask, self._forward_s = self.engine.ask, forward_s
        self.engine.ask = self.ask  # type: ignore[method-assign]

    def ask(self, question: Question) -> "Future[torch.Tensor]":
        self.rows.append(len(question))
        time.sleep(self._forward_s)
        assert self.gate.wait(timeout=20)
        return self._ask(question)

    def service(self, *, timeout_s: float = 60.0) -> EngineService:
        return EngineService(self.engine, name="champion", version="digits/3", timeout_s=timeout_s)

    @contextmanager
    def busy(self, url: str, *, n: int = 4) -> Iterator[None]:
        """With a request in the forward, which ends when the block does."""
        self.gate.clear()
        before = len(self.rows)
        body = {"prompt": "1", "n": n, "steps": 1}
        thread = threading.Thread(target=post, args=(url,), kwargs=body)
        thread.start()
        wait_for(lambda: len(self.rows) > before)
        try:
            yield
        finally:
            self.gate.set()
            thread.join(timeout=20)


def wait_for(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def post(url: str, **body: object) -> httpx.Response:
    return httpx.post(f"{url}/v1/images/generations", json={"prompt": "1", **body}, timeout=30.0)


def draw(*, n: int = 1, steps: int = 1) -> Draw:
    return Draw(label=1, n=n, seed=0, steps=steps)


def test_what_cannot_be_in_time_is_refused_at_once_with_what_was_predicted() -> None:
    slow = Slow()

    async def ask() -> str:
        batcher = Batcher(slow.engine, max_waiting=9)
        await batcher.submit(draw(steps=5))
        with pytest.raises(DeadlineUnmet) as refused:
            await batcher.submit(draw(steps=20), within_s=0.5, is_asked=True)
        return str(refused.value)

    told = asyncio.run(ask())
    assert len(slow.rows) == 5
    words = told.split()
    assert float(words[words.index("ms") - 1]) >= 20 * 50
    assert told.startswith("deadline_ms must leave the ")
    assert told.endswith("ms that 20 steps are predicted to take now, got 500 ms")


def test_what_waits_past_its_deadline_is_dropped_before_its_forward() -> None:
    slow = Slow()

    async def ask() -> float:
        batcher = Batcher(slow.engine, max_waiting=9)
        slow.gate.clear()
        first = asyncio.create_task(batcher.submit(draw(n=4)))
        while not slow.rows:
            await asyncio.sleep(0.001)
        began = time.monotonic()
        with pytest.raises(DeadlineUnmet, match="100 ms went by without them"):
            await batcher.submit(draw(n=3), within_s=0.1)
        taken = time.monotonic() - began
        slow.gate.set()
        await first
        await batcher.submit(draw(n=2))
        return taken

    assert asyncio.run(ask()) >= 0.1
    assert slow.rows == [4, 2]


def test_the_queue_ahead_is_predicted() -> None:
    slow = Slow()

    async def ask() -> tuple[float, float, float]:
        batcher = Batcher(slow.engine, max_waiting=99)
        await batcher.submit(draw(n=4, steps=3))
        alone = batcher.forecast(4).seconds(1)
        tasks = [asyncio.create_task(batcher.submit(draw(n=4, steps=10))) for _ in range(3)]
        await asyncio.sleep(FORWARD_S / 2)
        ahead = batcher.forecast(4)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.submit(draw())
        after = batcher.forecast(4)
        return ahead.seconds(1) / alone, ahead.forwards_ahead, after.forwards_ahead

    ratio, forwards, after = asyncio.run(ask())
    assert 2.5 <= ratio <= 6.0  # three in turn, the rest of one that runs, and its own
    assert 27 <= forwards <= 30
    assert after == 0


def test_old_measurements_refuse_nobody() -> None:
    slow = Slow(forward_s=0.0)

    async def ask() -> None:
        batcher = Batcher(slow.engine, max_waiting=9)
        await batcher.submit(draw())
        batcher._pace.note(1, 100.0)
        batcher._pace.note(1, 100.0)
        with pytest.raises(DeadlineUnmet, match="predicted"):
            await batcher.submit(draw(), within_s=5.0)
        batcher._pace._noted = time.monotonic() - 11.0
        await batcher.submit(draw(), within_s=5.0)

    asyncio.run(ask())


def crowded(slow: Slow, others: int, *, n: int, within_s: float) -> Overloaded:
    """Why one is refused who asks for as much as others that wait, where forwards took 50 ms."""
    pace = Pace(slow.engine.buckets)
    pace.note(4, 0.05)

    async def ask() -> Overloaded:
        batcher = Batcher(slow.engine, max_waiting=99, pace=pace)
        tasks = [asyncio.create_task(batcher.submit(draw(n=n))) for _ in range(others)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await batcher.submit(draw(n=n), within_s=within_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return refused.value

    return asyncio.run(ask())


def test_a_queue_that_passes_the_server_s_own_bound_is_an_overload_with_the_time_to_wait() -> None:
    refused = crowded(Slow(), 9, n=40, within_s=2.5)
    assert (refused.status, refused.retry_after_s) == (429, 3)  # 5 s for 100 forwards
    assert str(refused).endswith("requests wait already; try again in 3 s")


def test_what_passes_the_server_s_own_bound_also_alone_is_no_overload() -> None:
    slow = Slow()

    async def ask() -> None:
        batcher = Batcher(slow.engine, max_waiting=9)
        await batcher.submit(draw(steps=3))
        with pytest.raises(DeadlineUnmet, match="that 60 steps are predicted"):
            await batcher.submit(draw(steps=60), within_s=1.0)

    asyncio.run(ask())


def test_an_overload_by_images_is_a_429_with_the_time_to_wait_over_http() -> None:
    slow = Slow()
    with listening(slow.service(timeout_s=2.0)) as url:
        post(url, n=4, steps=3)
        found: list[httpx.Response] = []
        asked = partial(post, url, n=40, steps=1)
        crowd = [threading.Thread(target=lambda: found.append(asked())) for _ in range(9)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join(timeout=20)
    refused = [answer for answer in found if answer.status_code == 429]
    assert len(refused) >= 4
    assert {answer.json()["error"]["code"] for answer in refused} == {"rate_limit_exceeded"}
    assert max(int(answer.headers["Retry-After"]) for answer in refused) >= 1


def test_one_slow_first_forward_refuses_nobody_where_nothing_is_ahead() -> None:
    slow = Slow(forward_s=0.0)

    async def ask() -> None:
        batcher = Batcher(slow.engine, max_waiting=9)
        batcher._pace.note(4, 100.0)
        await batcher.submit(draw(), within_s=5.0, is_asked=True)
        batcher._pace.note(4, 100.0)
        await batcher.submit(draw(n=4), within_s=5.0, is_asked=True)
        for _ in range(3):
            batcher._pace.note(4, 100.0)
        with pytest.raises(DeadlineUnmet, match="predicted"):
            await batcher.submit(draw(n=4), within_s=5.0, is_asked=True)

    asyncio.run(ask())


def test_quality_and_deadline_choose_the_steps_and_the_answer_says_which() -> None:
    slow = Slow()
    with listening(slow.service()) as url:
        for _ in range(2):
            post(url, steps=2)
        asked = [
            {"quality": "high"},
            {"quality": "low"},
            {"quality": "standard"},
            {"quality": "auto"},
            {"quality": "auto", "deadline_ms": 60_000},
            {"deadline_ms": 200},
        ]
        answers = [post(url, **body).json() for body in asked]
        assert [answer["steps"] for answer in answers] == [8, 1, 1, 8, 8, 1]
        assert answers[0]["measured"] == {"metric": "eval/1nn_deviation", "value": 0.1}
        made = httpx.post(f"{url}/v1/generate", json={"labels": 1, "quality": "high"})
        assert made.headers["X-Onestep-Steps"] == "8"
        assert made.headers["X-Onestep-Quality"] == "eval/1nn_deviation 0.1"
        given = httpx.post(f"{url}/v1/generate", json={"labels": 1, "steps": 3})
        assert given.headers["X-Onestep-Quality"] == "unmeasured"
        with slow.busy(url):
            crowd = [
                threading.Thread(target=post, args=(url,), kwargs={"n": 4, "steps": 1})
                for _ in range(3)
            ]
            for one in crowd:
                one.start()
            wait_for(lambda: waiting(url) == 3)
            link = post(url, quality="auto", response_format="url").json()
            assert (link["steps"], link["measured"]["value"]) == (1, 0.3)
        for one in crowd:
            one.join(timeout=20)


def waiting(url: str) -> int:
    page = httpx.get(f"{url}/metrics").text
    line = next(line for line in page.splitlines() if line.startswith("onestep_waiting{"))
    return int(float(line.split()[-1]))


def test_a_model_without_a_curve_takes_its_default_and_says_so() -> None:
    with listening(Slow(forward_s=0.0, measured=False).service()) as url:
        for body in ({"quality": "high"}, {"quality": "low"}, {"deadline_ms": 5000}):
            answer = post(url, **body).json()
            assert (answer["steps"], answer["measured"]) == (1, None)


def test_a_quality_beside_steps_and_a_deadline_of_a_stream_are_refused() -> None:
    with listening(Slow(forward_s=0.0).service()) as url:
        refused = post(url, quality="high", steps=2)
        assert refused.status_code == 422
        assert refused.json()["error"]["message"] == (
            "quality must be left out where steps is given, got high and 2"
        )
        body = {"labels": 1, "n": 70, "format": "npy", "stream": True, "deadline_ms": 9000}
        refused = httpx.post(f"{url}/v1/generate", json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "deadline_ms")


def test_all_parts_of_a_stream_have_the_steps_of_the_first() -> None:
    slow = Slow(forward_s=0.0)
    with listening(slow.service()) as url, Client(url) as client:
        parts = list(client.stream(1, n=130, seed=3, quality="high"))
        assert [part.steps for part in parts] == [8, 8, 8]
        whole = np.concatenate([part.images for part in parts])
        again = client.generate(1, n=2, seed=3, start=128, quality="high", deadline_ms=60_000)
        np.testing.assert_allclose(whole[128:], again.images, atol=1e-6)
        assert sum(slow.rows) == 132 * 8


def test_a_deadline_that_passes_is_a_408_that_no_client_repeats() -> None:
    slow = Slow()
    with listening(slow.service()) as url, slow.busy(url):
        theirs = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=2)
        with theirs as client, pytest.raises(openai.APIStatusError) as late:
            client.images.generate(prompt="1", extra_body={"deadline_ms": 100})
        assert late.value.status_code == 408
        assert "ms went by without them" in late.value.message
        with Client(url) as client, pytest.raises(ServiceError) as refused:
            client.images(1, deadline_ms=100)
        assert (refused.value.status, refused.value.param) == (408, "deadline_ms")
        page = httpx.get(f"{url}/metrics").text
        assert 'onestep_http_refused_total{ingress="local",reason="deadline"} 2.0' in page
    assert slow.rows == [4]


def test_the_server_s_own_bound_is_the_deadline_of_those_that_give_none() -> None:
    slow = Slow()
    with listening(slow.service(timeout_s=0.2)) as url, slow.busy(url):
        late = post(url)
        assert late.status_code == 408
        assert late.json()["error"] == {
            "message": "the time that a request may take must leave room for the images, "
            "but 200 ms went by without them",
            "type": "invalid_request_error",
            "param": None,
            "code": "timeout",
        }


@pytest.mark.parametrize("path", ["images/generations", "generate", "images/digits/3/7/0.png"])
def test_a_request_whose_client_left_is_dropped_from_the_queue(path: str) -> None:
    slow = Slow()
    with listening(slow.service()) as url:
        with slow.busy(url):
            is_link = path.endswith("png")
            asked = {"params": {"labels": "1"}} if is_link else {"json": {"seed": 1, "n": 1}}
            if path == "images/generations":
                asked["json"]["prompt"] = "1"
            elif not is_link:
                asked["json"]["labels"] = 1
            verb = "GET" if is_link else "POST"
            with pytest.raises(httpx.ReadTimeout):
                httpx.request(verb, f"{url}/v1/{path}", timeout=0.3, **asked)
            left = 'onestep_http_refused_total{ingress="local",reason="client_left"} 1.0'
            wait_for(lambda: left in httpx.get(f"{url}/metrics").text)
        assert post(url, n=2, steps=1).status_code == 200
    assert slow.rows == [4, 2]


def test_a_deadline_does_not_lift_the_servers_own_bound() -> None:
    assert room(None, 2.0) == 2.0
    assert room(500, 2.0) == 0.5
    assert room(60_000, 2.0) == 2.0
