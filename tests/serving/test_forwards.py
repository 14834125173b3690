"""Forwards in a process of their own."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import FlowMap
from onestep.methods.core.guidance_scale import AtScale
from onestep.serving.batcher import Batcher
from onestep.serving.engine import Draw, Engine
from onestep.serving.errors import ModelDead
from onestep.serving.forwards import Forwards
from onestep.serving.generator import Generator
from onestep.serving.lot import make_lot
from onestep.serving.rows import Rows
from onestep.serving.schema import ImagesRequest, ImagesResponse, Refusal
from onestep.serving.speed import Speed
from onestep.tests.serving.model import TRIANGLE, UNET_NODE, gaussian, record_of, unet
from onestep.tests.serving.registry import ORACLE, fill_registry
from onestep.tests.serving.waiting import until

DRAWS = [
    Draw(label=2, n=3, seed=5, steps=2),
    Rows(labels=(1,), origins=torch.ones(1, 1, 1, 8, 8), steps=1),
    Draw(label=0, n=1, seed=7, steps=3),
]


class Odd(FlowMap):
    """A map that does what the number of its first row says."""

    def __init__(self) -> None:
        super().__init__(domain=TRIANGLE)

    def forward(
        self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None = None
    ) -> Tensor:
        what = x[0, 0].item()
        if what == 1:
            raise KeyError("what is not there")
        if what == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if what == 3:
            time.sleep(600)
        if what == 4:
            return torch.full_like(x, max(os.sched_getaffinity(0)))
        return 2 * x


@pytest.fixture(scope="module")
def forwards() -> Iterator[Forwards]:
    with Forwards(1) as own:
        yield own


@pytest.fixture
def mortal() -> Iterator[Forwards]:
    """A process that dies in its test."""
    with Forwards(1) as own:
        yield own


def ask(run: Callable[..., Tensor], what: float) -> float:
    one = torch.ones(1)
    return run(torch.full((1, 1), what), one, 0 * one, None).item()


def num_maps(forwards: Forwards) -> int:
    """The sockets of its process but for the one that maps come by."""
    places: list[str] = []
    for file in Path(f"/proc/{forwards._process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed since they were listed
            places.append(file.readlink().name)
    return sum(place.startswith("socket:") for place in places) - 1


@pytest.mark.parametrize("speed", [Speed(), Speed(dtype="bfloat16", channels_last=True)], ids=str)
@pytest.mark.parametrize("guided", [False, True])
def test_images_are_those_that_the_map_makes_here(
    forwards: Forwards, speed: Speed, guided: bool
) -> None:
    record = record_of(net={**UNET_NODE, "guided": guided})
    draws = [replace(DRAWS[0], guidance=4.0 if guided else None), *DRAWS[1:]]

    def made(**options: object) -> list[Tensor]:
        flow_map = AtScale(unet(guided=True), scale=2.0) if guided else unet()
        return Engine(flow_map, record, bucket=4, speed=speed, **options).sample(draws)

    for here, there in zip(made(), made(host=forwards.host), strict=True):
        assert torch.equal(here, there)


def test_an_error_is_told_to_who_asked_and_keeps_no_other_from_an_answer(
    forwards: Forwards,
) -> None:
    run = forwards.host(Odd(), Speed())
    with pytest.raises(RuntimeError, match="KeyError: 'what is not there'"):
        ask(run, 1)
    assert ask(run, 21) == 42


def test_threads_that_ask_one_map_at_once_have_each_their_own_answers(forwards: Forwards) -> None:
    run = forwards.host(Odd(), Speed())
    found: dict[int, set[float]] = {what: set() for what in (5, 6, 7)}

    def ask_often(what: int) -> None:
        for _ in range(200):
            found[what].add(ask(run, what))

    threads = [threading.Thread(target=ask_often, args=(what,), daemon=True) for what in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
        assert not thread.is_alive()
    assert found == {5: {10}, 6: {12}, 7: {14}}


def test_questions_are_taken_before_the_first_is_answered(forwards: Forwards) -> None:
    run = forwards.host(Odd(), Speed())
    one = torch.ones(1)
    coming = [run.begin(torch.full((1, 1), what), one, 0 * one, None) for what in (5.0, 6.0, 7.0)]
    assert [each.result(20.0).item() for each in coming] == [10, 12, 14]


def test_a_lot_takes_no_image_from_those_who_ask_beside_it(forwards: Forwards) -> None:
    engine = Engine(unet(), record_of(net=UNET_NODE), bucket=4, strict=True, host=forwards.host)
    (alone,) = engine.sample([DRAWS[0]])
    whole = make_lot(engine, engine, 0)
    with ThreadPoolExecutor(1) as pool:
        lot = pool.submit(make_lot, engine, engine, 0)
        for _ in range(8):
            assert torch.equal(engine.sample([DRAWS[0]])[0], alone)
        assert torch.equal(lot.result(20.0).champion, whole.champion)


def test_a_map_that_nobody_holds_is_forgotten(forwards: Forwards) -> None:
    gc.collect()
    kept = forwards.host(Odd(), Speed())
    assert until(lambda: num_maps(forwards) == 1)
    engine = Engine(gaussian(), record_of(), host=forwards.host)
    engine.warm_up()
    assert num_maps(forwards) == 2
    del engine
    gc.collect()
    assert until(lambda: num_maps(forwards) == 1)
    assert until(lambda: sum(one.name == "forwards" for one in threading.enumerate()) == 1)
    assert ask(kept, 5) == 10


def test_a_map_that_was_asked_by_a_batcher_is_forgotten_with_it(forwards: Forwards) -> None:
    gc.collect()
    assert until(lambda: num_maps(forwards) == 0)

    async def serve() -> None:
        batcher = Batcher(Engine(gaussian(), record_of(), host=forwards.host), max_waiting=9)
        await batcher.submit(DRAWS[0])
        assert num_maps(forwards) == 1
        batcher.close()

    asyncio.run(serve())
    gc.collect()
    assert until(lambda: num_maps(forwards) == 0)


def test_the_end_of_the_process_is_told(mortal: Forwards) -> None:
    ends: list[int] = []
    mortal.on_end(ends.append)
    mortal._process.kill()
    assert until(lambda: ends == [-9])


def test_the_end_of_a_process_that_was_closed_is_not_told() -> None:
    ends: list[int] = []
    with Forwards(1) as own:
        own.on_end(ends.append)
    time.sleep(0.2)
    assert ends == []


def test_forwards_keep_to_their_cores(forwards: Forwards) -> None:
    first = min(os.sched_getaffinity(0))
    assert ask(forwards.host(Odd(), Speed(), cores={first}), 4) == first
    assert ask(forwards.host(Odd(), Speed()), 4) == max(os.sched_getaffinity(0))


def test_forwards_give_way_to_those_who_take_requests_in(forwards: Forwards) -> None:
    pid = forwards._process.pid
    assert until(lambda: os.getpriority(os.PRIO_PROCESS, pid) == os.nice(0) + 5)
    assert until(lambda: os.sched_getscheduler(pid) == os.SCHED_BATCH)


def test_all_who_wait_are_told_that_the_process_died_and_all_who_come(mortal: Forwards) -> None:
    engine = Engine(gaussian(), record_of(), bucket=4, host=mortal.host)

    async def serve() -> None:
        batcher = Batcher(engine, max_waiting=9)
        await batcher.submit(DRAWS[0])
        mortal.check()
        mortal._process.kill()
        assert until(lambda: mortal._process.poll() is not None)
        for waiting in [asyncio.create_task(batcher.submit(draw)) for draw in DRAWS]:
            with pytest.raises(ModelDead) as dead:
                await asyncio.wait_for(waiting, 10.0)
            assert dead.value.why == "the process of its forwards has ended"
        with pytest.raises(ModelDead):
            batcher.check(stuck_s=60.0)

    asyncio.run(serve())
    with pytest.raises(ModelDead) as dead:
        mortal.check()
    assert dead.value.why == "the process of its forwards ended with -9"
    with pytest.raises(ModelDead):
        mortal.host(gaussian(), Speed())


def test_a_forward_that_ends_its_process_is_told(mortal: Forwards) -> None:
    run = mortal.host(Odd(), Speed())
    with pytest.raises(ModelDead):
        ask(run, 2)


def test_the_process_ends_with_the_one_that_began_it_even_in_a_forward() -> None:
    code = (
        "from onestep.serving.forwards import Forwards\n"
        "from onestep.serving.speed import Speed\n"
        "from onestep.tests.serving.test_forwards import Odd, ask\n"
        "forwards = Forwards(1)\n"
        "run = forwards.host(Odd(), Speed())\n"
        "print(forwards._process.pid, flush=True)\n"
        "ask(run, 3)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.2)
        assert os.getpgid(pid) == pid  # a terminal's Ctrl-C does not reach it
        parent.kill()
    assert until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_replica_answers_from_its_process_and_is_replaced_with_it(tmp_path: Path) -> None:
    settings = {"tracking_uri": fill_registry(tmp_path), "watch_s": None, "apart": True}

    async def serve() -> None:
        replica = Generator(settings)
        assert replica._forwards is not None
        with replica._forwards as forwards:
            await replica.reconfigure({"model": ORACLE})
            assert isinstance(await replica.generate(ImagesRequest(prompt="1")), ImagesResponse)
            await replica.check_health()
            forwards._process.kill()
            assert until(lambda: forwards._process.poll() is not None)
            assert isinstance(await replica.generate(ImagesRequest(prompt="1")), Refusal)
            with pytest.raises(ModelDead):
                await replica.check_health()

    asyncio.run(serve())
