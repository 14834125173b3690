"""A model that answers no more is told from one that is busy."""

import asyncio
import ctypes
import threading
from concurrent.futures import Future
from pathlib import Path

import httpx
import pytest
import torch
from ray.serve._private.constants import HEALTH_CHECK_METHOD

from onestep.serving.app import build_application
from onestep.serving.batcher import Batcher
from onestep.serving.engine import Draw, Engine
from onestep.serving.errors import ModelDead
from onestep.serving.generator import Generator
from onestep.serving.native import GenerateRequest
from onestep.serving.rows import Rows
from onestep.serving.schema import ImagesRequest, Refusal
from onestep.serving.service import EngineService
from onestep.serving.settings import AppSettings
from onestep.serving.walk import Question, Walk
from onestep.tests.serving.listening import listening
from onestep.tests.serving.model import gaussian, record_of
from onestep.tests.serving.registry import ORACLE, fill_registry


class ThreadsEnd(BaseException):
    """What no request may cause, and no ``except Exception`` holds."""


def engine() -> Engine:
    return Engine(gaussian(), record_of(), bucket=4)


def draw() -> Draw:
    return Draw(label=1, n=1, seed=0, steps=1)


def test_a_forward_that_ends_its_thread_answers_all_who_wait_and_all_who_come() -> None:
    dying, began, go = engine(), threading.Event(), threading.Event()

    def ask_and_die(question: Question) -> "Future[torch.Tensor]":
        del question
        began.set()
        assert go.wait(timeout=10)
        raise ThreadsEnd

    dying.ask = ask_and_die  # type: ignore[method-assign]

    async def ask() -> None:
        batcher = Batcher(dying, max_waiting=9)
        first = asyncio.create_task(batcher.submit(draw()))
        await asyncio.to_thread(began.wait, 10)
        second = asyncio.create_task(batcher.submit(draw()))
        await asyncio.sleep(0)
        batcher.check(stuck_s=60.0)
        go.set()
        for waiting in (first, second, batcher.submit(draw())):
            with pytest.raises(ModelDead, match="answers no more") as dead:
                await asyncio.wait_for(waiting, 10.0)
            assert dead.value.why == "ThreadsEnd: "
        with pytest.raises(ModelDead):
            batcher.check(stuck_s=60.0)

    asyncio.run(ask())


def kill(thread: threading.Thread) -> None:
    """Ends a thread of Python where it stands, as an interpreter that exits would."""
    ident = ctypes.c_ulong(thread.ident or 0)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit)) == 1


def test_a_thread_that_died_is_noticed_by_a_request_and_by_a_look() -> None:
    service = EngineService(engine(), name="champion", version="digits/3")
    body = {"prompt": "1"}
    with listening(service) as url:
        generations = f"{url}/v1/images/generations"
        assert httpx.post(generations, json=body).status_code == 200
        (thread,) = service._batcher._threads
        kill(thread)  # it wakes with the next request, whose forward it leaves undone
        answer = httpx.post(generations, json=body, timeout=20.0)
        thread.join(timeout=10)
        assert not thread.is_alive()
        answer = httpx.post(generations, json=body, timeout=20.0)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["error"]["type"] == "server_error"
    with pytest.raises(ModelDead):
        service.check(stuck_s=60.0)


def test_serve_is_told_of_a_replica_whose_model_is_dead(tmp_path: Path) -> None:
    async def look() -> None:
        replica = Generator({"tracking_uri": fill_registry(tmp_path), "watch_s": None})
        await replica.reconfigure({"model": ORACLE})
        check = getattr(replica, HEALTH_CHECK_METHOD)
        await replica.generate(ImagesRequest(prompt="1"))
        await check()
        assert await replica.missing() == []
        async with replica._desk._shelf.borrow(ORACLE) as service:
            (thread,) = service._batcher._threads
        kill(thread)
        refused = await replica.generate(ImagesRequest(prompt="1"))
        thread.join(timeout=10)
        with pytest.raises(ModelDead):
            await check()
        assert await replica.missing() == [ORACLE]
        models = await replica.describe()
        assert models.data == []
        assert models.missing == {ORACLE: "the model answers no more; try again in a second"}
        assert isinstance(refused, Refusal)
        assert refused.status == 503

    asyncio.run(look())


def test_an_error_in_one_request_leaves_the_others_that_came_with_it_their_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> None:
        replica = Generator({"tracking_uri": fill_registry(tmp_path), "watch_s": None})
        await replica.reconfigure({"model": ORACLE})
        async with replica._desk._shelf.borrow(ORACLE) as service:
            begin = service.engine.begin

            def broken(draw: Draw | Rows) -> Walk:
                if isinstance(draw, Rows) and draw.labels == (2,):
                    raise LookupError("of this one")
                return begin(draw)

            service.engine.begin = broken  # type: ignore[method-assign]
        asked = [GenerateRequest(labels=k, seed=0, format="npy") for k in (1, 2, 3)]
        found = dict([one async for wave in replica.make_all(asked) for one in wave])
        refused = found[1]
        assert isinstance(refused, Refusal)
        assert refused.status == 500
        assert refused.error.message == "the server failed to answer; its log says why"
        assert "LookupError: of this one" in caplog.text
        assert found[0] == await replica.make(asked[0])
        assert found[2] == await replica.make(asked[2])

    asyncio.run(ask())


def test_a_forward_that_does_not_end_is_an_illness_and_a_long_queue_is_none() -> None:
    slow, gate, began = engine(), threading.Event(), threading.Event()
    forward = slow.ask

    def ask_held(question: Question) -> "Future[torch.Tensor]":
        began.set()
        assert gate.wait(timeout=20)
        return forward(question)

    slow.ask = ask_held  # type: ignore[method-assign]

    async def ask() -> None:
        batcher = Batcher(slow, max_waiting=1000)
        batcher.check(stuck_s=0.1)
        asked = [asyncio.create_task(batcher.submit(draw())) for _ in range(300)]
        await asyncio.to_thread(began.wait, 10)
        await asyncio.sleep(0.3)
        batcher.check(stuck_s=10.0)
        with pytest.raises(ModelDead) as stuck:
            batcher.check(stuck_s=0.2)
        assert stuck.value.why.startswith("a forward must take at most 0.2 s, got ")
        gate.set()
        await asyncio.gather(*asked)
        await asyncio.sleep(0.3)
        batcher.check(stuck_s=0.2)

    asyncio.run(ask())


def test_a_decoder_that_does_not_end_is_an_illness_too_and_counts_as_work() -> None:
    slow, gate = engine(), threading.Event()
    images = slow.images

    def decoded(x: torch.Tensor) -> torch.Tensor:
        assert gate.wait(timeout=20)
        return images(x)

    slow.images = decoded  # type: ignore[method-assign]

    async def ask() -> None:
        batcher = Batcher(slow, max_waiting=9)
        asked = asyncio.create_task(batcher.submit(draw()))
        await asyncio.sleep(0.5)
        with pytest.raises(ModelDead) as stuck:
            batcher.check(stuck_s=0.2)
        assert stuck.value.why.startswith("a forward must take at most 0.2 s, got ")
        gate.set()
        await asked
        assert batcher._pace.seconds(1) > 0.4

    asyncio.run(ask())


def test_a_replica_that_is_stopped_has_the_time_that_its_requests_have() -> None:
    ingress = build_application(
        AppSettings(request_timeout_s=33.0, watch_s=None), {"models": {"champion": "digits/1"}}
    )._bound_deployment
    (generator,) = (part._bound_deployment for part in ingress.init_args)
    for one in (ingress, generator):
        assert one._deployment_config.graceful_shutdown_timeout_s == 38.0
