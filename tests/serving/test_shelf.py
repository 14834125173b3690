import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

import pytest
import torch

from onestep.serving.engine import Engine
from onestep.serving.errors import LoadFailed
from onestep.serving.schema import ImagesRequest, ImagesResponse
from onestep.serving.service import EngineService
from onestep.serving.shelf import RETRY_S, Shelf
from onestep.tests.serving.model import UNET_NODE, record_of, unet

WEIGHTS: Final = sum(weight.nbytes for weight in unet().parameters())
SIZE: Final = WEIGHTS + sum(buffer.nbytes for buffer in unet().buffers())
REQUEST: Final = ImagesRequest(prompt="1", seed=3)
T = TypeVar("T")


class Loader:
    """Loads small networks, notes which, and lets a test hold or break a load."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.held: dict[str, threading.Event] = {}
        self.broken: dict[str, Exception] = {}

    def __call__(self, version: str) -> EngineService:
        self.loads.append(version)
        if version in self.held:
            assert self.held[version].wait(timeout=10)
        if version in self.broken:
            raise self.broken[version]
        engine = Engine(unet(), record_of(net=UNET_NODE), bucket=4)
        engine.warm_up()
        return EngineService(engine, name=version, version=version)


def run(work: Callable[[Shelf, Loader], Awaitable[T]], *, models: float) -> T:
    """Runs with a shelf that has room for so many of the networks."""

    async def inner() -> T:
        loader = Loader()
        return await work(Shelf(loader, memory_bytes=int(models * SIZE)), loader)

    return asyncio.run(inner())


async def use(shelf: Shelf, *versions: str) -> None:
    for version in versions:
        async with shelf.borrow(version) as service:
            answer = await service.generate(REQUEST)
            assert isinstance(answer, ImagesResponse)
            assert answer.model == version


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def engine_threads() -> Iterator[threading.Thread]:
    return (thread for thread in threading.enumerate() if thread.name.startswith("engine"))


def test_the_size_of_a_model_is_that_of_its_parameters_and_buffers() -> None:
    net = unet()
    net.register_buffer("table", torch.zeros(3, 5, dtype=torch.float64))
    assert Engine(net, record_of(net=UNET_NODE)).nbytes == SIZE + 3 * 5 * 8
    assert SIZE > WEIGHTS > 0


def test_requests_for_the_same_version_wait_for_one_load_and_others_for_theirs() -> None:
    async def work(shelf: Shelf, loader: Loader) -> list[str]:
        gate = loader.held["m/1"] = threading.Event()
        waiting = [asyncio.create_task(use(shelf, "m/1")) for _ in range(5)]
        await use(shelf, "m/2")  # beside the load that is held
        assert not any(task.done() for task in waiting)
        gate.set()
        await asyncio.gather(*waiting)
        await use(shelf, "m/1")
        return loader.loads

    assert sorted(run(work, models=2)) == ["m/1", "m/2"]


def test_no_work_beside_waits_for_loads_however_many_there_are() -> None:
    async def work(shelf: Shelf, loader: Loader) -> None:
        gate = threading.Event()
        versions = [f"m/{k}" for k in range(40)]  # more than asyncio has threads at most
        loader.held = dict.fromkeys(versions, gate)
        waiting = [asyncio.create_task(use(shelf, version)) for version in versions]
        await until(lambda: bool(loader.loads))
        try:
            async with asyncio.timeout(5):
                await asyncio.to_thread(len, "a file of images")
        finally:
            gate.set()
            await asyncio.gather(*waiting)

    run(work, models=2)


def test_the_model_not_used_for_the_longest_is_closed_first() -> None:
    async def work(shelf: Shelf, loader: Loader) -> tuple[tuple[str, ...], list[str]]:
        await use(shelf, "m/1", "m/2", "m/3", "m/1", "m/4", "m/5")
        assert shelf.nbytes == 3 * SIZE
        kept = shelf.versions
        await use(shelf, "m/2")
        return kept, loader.loads

    kept, loads = run(work, models=3.5)
    assert kept == ("m/1", "m/4", "m/5")
    assert loads == ["m/1", "m/2", "m/3", "m/4", "m/5", "m/2"]


def test_one_model_stays_however_large_it_is() -> None:
    async def work(shelf: Shelf, loader: Loader) -> list[tuple[str, ...]]:
        seen = []
        for version in ("m/1", "m/1", "m/2"):
            await use(shelf, version)
            seen.append(shelf.versions)
        assert loader.loads == ["m/1", "m/2"]
        return seen

    assert run(work, models=0.5) == [("m/1",), ("m/1",), ("m/2",)]


def test_a_model_with_requests_in_flight_is_closed_once_they_are_answered() -> None:
    async def work(shelf: Shelf, loader: Loader) -> None:
        before = len(list(engine_threads()))
        async with shelf.borrow("m/1") as first, shelf.borrow("m/1"):
            await use(shelf, "m/2", "m/3")
            assert shelf.versions == ("m/1", "m/3")  # m/2 was idle and gave way
            answer = await first.generate(REQUEST)
            assert isinstance(answer, ImagesResponse)
        assert shelf.versions == ("m/3",)
        await until(lambda: len(list(engine_threads())) == before + 1)
        assert loader.loads == ["m/1", "m/2", "m/3"]

    run(work, models=1)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("its weights were altered"), "m/1 does not load: its weights were altered"),
        (RuntimeError("secret"), "m/1 does not load: RuntimeError, see the log"),
    ],
)
def test_a_failure_is_told_to_all_who_wait_or_come_soon_and_then_forgotten(
    error: Exception, message: str
) -> None:
    async def work(shelf: Shelf, loader: Loader) -> None:
        now = 100.0
        shelf._clock = lambda: now
        loader.broken["m/1"] = error
        gate = loader.held["m/1"] = threading.Event()
        waiting = [asyncio.create_task(use(shelf, "m/1")) for _ in range(3)]
        await until(lambda: bool(loader.loads))
        gate.set()
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in failed] == [LoadFailed] * 3
        assert {str(one) for one in failed} == {message}
        assert (loader.loads, shelf.versions) == (["m/1"], ())
        now += 2.5
        for _ in range(3):
            with pytest.raises(LoadFailed) as caught:
                await use(shelf, "m/1")
            assert (str(caught.value), caught.value.retry_after_s) == (message, 3)
        await use(shelf, "m/2")
        assert loader.loads == ["m/1", "m/2"]
        now += RETRY_S - 2.5
        with pytest.raises(LoadFailed):
            await use(shelf, "m/1")
        del loader.broken["m/1"]
        shelf.forgive("m/1")
        await use(shelf, "m/1")
        assert loader.loads == ["m/1", "m/2", "m/1", "m/1"]

    run(work, models=1)


def test_who_goes_away_takes_the_model_from_no_other() -> None:
    async def work(shelf: Shelf, loader: Loader) -> None:
        gate = loader.held["m/1"] = threading.Event()
        leaving, staying = (asyncio.create_task(use(shelf, "m/1")) for _ in range(2))
        await until(lambda: bool(loader.loads))
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        gate.set()
        await staying
        assert loader.loads == ["m/1"]

    run(work, models=1)


def test_a_model_of_numbers_that_are_not_finite_is_not_warmed() -> None:
    net = unet()
    with torch.no_grad():
        next(net.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match=r"finite images of shape \(1, 8, 8\), got 0 finite"):
        Engine(net, record_of(net=UNET_NODE), bucket=4).warm_up()
