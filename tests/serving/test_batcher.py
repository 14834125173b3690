import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final

import pytest
import torch

from onestep.serving import company
from onestep.serving.batcher import Batcher
from onestep.serving.engine import Draw, Engine
from onestep.serving.errors import Overloaded
from onestep.serving.stage import Stage, Stopwatch
from onestep.serving.walk import Question
from onestep.tests.serving.model import MEAN, STD, gaussian, record_of

ROWS: Final = 4


class Held:
    """An engine whose first forward waits until it is let go, and which notes all of them."""

    def __init__(self) -> None:
        self.engine = Engine(gaussian(), record_of(), bucket=ROWS)
        self.forwards: list[int] = []
        self.gate: Final = threading.Event()
        self.batcher: Batcher
        self._ask = self.engine.ask
        self.engine.ask = self.ask  # type: ignore[method-assign]

    def ask(self, question: Question) -> "Future[torch.Tensor]":
        self.forwards.append(len(question))
        assert self.gate.wait(timeout=10)
        if question.condition is not None and (question.condition.label == 0).any():
            raise ValueError("label 0")
        return self._ask(question)


def test_a_stopwatch_has_the_forwards_of_its_request_alone() -> None:
    async def submit_all() -> list[tuple[Stage, ...]]:
        batcher = Batcher(Engine(gaussian(), record_of(), bucket=ROWS), max_waiting=9)
        watches = [Stopwatch() for _ in range(3)]
        draws = [draw(0, n=2, steps=2), draw(1, n=2), draw(2, n=3)]
        asked = zip(draws, watches, strict=True)
        await asyncio.gather(*(batcher.submit(one, stopwatch=watch) for one, watch in asked))
        return [watch.stages(0.0) for watch in watches]

    found = asyncio.run(submit_all())
    rows = [[stage.rows for stage in stages if stage.name == "forward"] for stages in found]
    # The third is in the second forward, with one row of the first, whose last is alone.
    assert rows == [[4, 4, 1], [4], [4]]
    assert [stages[0].name for stages in found] == ["queue"] * 3


def draw(seed: int, *, n: int = 1, steps: int = 1, label: int = 3) -> Draw:
    return Draw(label=label, n=n, seed=seed, steps=steps)


def run(
    held: Held, draws: list[Draw], *, max_waiting: int = 99
) -> list[torch.Tensor | BaseException]:
    """Submits one after the other while the first forward is held, then lets go."""

    async def submit_all() -> list[torch.Tensor | BaseException]:
        batcher = Batcher(held.engine, max_waiting=max_waiting)
        tasks = []
        for one in draws:
            tasks.append(asyncio.create_task(batcher.submit(one)))
            await asyncio.sleep(0)
            while not held.forwards:
                await asyncio.sleep(0.001)
        held.gate.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    return asyncio.run(submit_all())


def same(found: object, asked: Draw) -> bool:
    """Whether these are the images of the request, which the oracle tells."""
    (alone,) = Engine(gaussian(), record_of(), bucket=ROWS).sample([asked])
    return isinstance(found, torch.Tensor) and torch.allclose(found, alone, atol=1e-5)


def test_a_lone_request_runs_at_once_and_the_rest_run_together() -> None:
    held, draws = Held(), [draw(k) for k in range(4)]
    assert all(map(same, run(held, draws), draws))
    assert held.forwards == [1, 3]


def test_requests_of_different_steps_share_forwards_and_leave_when_they_are_done() -> None:
    held, draws = Held(), [draw(0, steps=3), draw(1, steps=1), draw(2, steps=2), draw(3, steps=3)]
    assert all(map(same, run(held, draws), draws))
    assert held.forwards == [1, 4, 3, 1]


def test_a_large_request_does_not_keep_a_small_one_waiting() -> None:
    held, order = Held(), list[int]()
    draws = [draw(0), draw(1, n=40), draw(2)]

    async def submit_all() -> None:
        batcher = Batcher(held.engine, max_waiting=9)

        async def ask(one: Draw) -> None:
            assert same(await batcher.submit(one), one)
            order.append(one.seed)

        tasks = [asyncio.create_task(ask(one)) for one in draws]
        await asyncio.sleep(0)
        held.gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(submit_all())
    assert order == [0, 2, 1]
    assert sum(held.forwards) == 42
    assert len(held.forwards) == 11


def test_the_request_that_finds_the_queue_full_is_refused() -> None:
    held, draws = Held(), [draw(k) for k in range(4)]
    results = run(held, draws, max_waiting=2)
    assert all(map(same, results[:3], draws))
    assert isinstance(results[3], Overloaded)
    assert results[3].status == 429


def test_an_error_reaches_its_forward_and_the_next_still_runs() -> None:
    held, draws = Held(), [draw(0, label=0, n=ROWS), draw(1)]

    async def one_after_the_other() -> tuple[str, torch.Tensor]:
        batcher = Batcher(held.engine, max_waiting=9)
        held.gate.set()
        with pytest.raises(ValueError, match="label 0") as caught:
            await batcher.submit(draws[0])
        return str(caught.value), await batcher.submit(draws[1])

    assert same(asyncio.run(one_after_the_other())[1], draws[1])


def test_what_fails_at_the_beginning_or_at_the_end_of_a_walk_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = Held()
    held.gate.set()
    begin, images = held.engine.begin, held.engine.images

    def may_begin(one: Draw) -> Any:
        if one.seed == 1:
            raise ValueError("no beginning")
        return begin(one)

    def may_end(x: torch.Tensor) -> torch.Tensor:
        if len(x) == 2:
            raise ValueError("no end")
        return images(x)

    monkeypatch.setattr(held.engine, "begin", may_begin)
    monkeypatch.setattr(held.engine, "images", may_end)
    draws = [draw(0, steps=5), draw(1), draw(2, n=2, steps=3), draw(3, steps=2)]

    async def all_of_them() -> list[torch.Tensor | BaseException]:
        batcher = Batcher(held.engine, max_waiting=9)
        asked = [batcher.submit(one) for one in draws]
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20.0)

    whole, *refused, last = asyncio.run(all_of_them())
    assert same(whole, draws[0])
    assert [str(one) for one in refused] == ["no beginning", "no end"]
    assert same(last, draws[3])


def test_a_forward_that_cannot_be_laid_together_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, joined = Held(), company._joined
    held.gate.set()

    def fails_once(parts: list[Question]) -> Question:
        monkeypatch.setattr(company, "_joined", joined)
        raise RuntimeError("out of memory")

    async def both() -> list[torch.Tensor | BaseException]:
        batcher = Batcher(held.engine, max_waiting=9)
        monkeypatch.setattr(company, "_joined", fails_once)
        asked = [batcher.submit(draw(k, n=ROWS)) for k in range(2)]
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20.0)

    first, second = asyncio.run(both())
    assert str(first) == "out of memory"
    assert same(second, draw(1, n=ROWS))


def leaving(
    held: Held, gone: Draw, *stay: Draw
) -> Callable[[], Coroutine[Any, Any, list[torch.Tensor]]]:
    """A client that leaves while the first forward is held, and others that stay."""

    async def leave() -> list[torch.Tensor]:
        batcher = Batcher(held.engine, max_waiting=9)
        first = asyncio.create_task(batcher.submit(draw(0)))
        while not held.forwards:
            await asyncio.sleep(0.001)
        left = asyncio.create_task(batcher.submit(gone))
        others = [asyncio.create_task(batcher.submit(one)) for one in stay]
        await asyncio.sleep(0)
        left.cancel()
        held.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await left
        return await asyncio.gather(first, *others)

    return leave


def test_a_request_whose_client_left_is_not_run() -> None:
    held = Held()
    results = asyncio.run(leaving(held, draw(1, n=3), draw(2))())
    assert same(results[1], draw(2))
    assert held.forwards == [1, 1]


def test_a_walk_whose_client_left_is_not_walked_to_its_end() -> None:
    held = Held()

    async def leave() -> None:
        batcher = Batcher(held.engine, max_waiting=9)
        task = asyncio.create_task(batcher.submit(draw(1, steps=60)))
        while not held.forwards:
            await asyncio.sleep(0.001)
        task.cancel()
        held.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert same(await batcher.submit(draw(2)), draw(2))

    asyncio.run(leave())
    assert len(held.forwards) < 10


def test_requests_that_were_given_up_take_no_room_of_those_that_come() -> None:
    held = Held()

    async def leave() -> torch.Tensor:
        batcher = Batcher(held.engine, max_waiting=4)
        first = asyncio.create_task(batcher.submit(draw(0, steps=2)))
        while not held.forwards:
            await asyncio.sleep(0.001)
        left = [asyncio.create_task(batcher.submit(draw(k))) for k in range(1, 5)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="4 requests wait"):
            await batcher.submit(draw(5))
        for one in left:
            one.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert batcher.waiting == 0
        coming = asyncio.create_task(batcher.submit(draw(6)))
        await asyncio.sleep(0)
        held.gate.set()
        await first
        return await coming

    assert same(asyncio.run(leave()), draw(6))


def test_the_images_are_those_of_the_oracle() -> None:
    (found,) = run(Held(), [draw(5, n=ROWS + 3, steps=2)])
    assert isinstance(found, torch.Tensor)
    assert abs(found.mean().item() - MEAN) < 5 * STD / (7 * 64) ** 0.5


def test_a_model_leaves_the_memory_with_its_batcher_and_waits_for_no_collector() -> None:
    net = gaussian()
    batcher = Batcher(Engine(net, record_of(), bucket=4), max_waiting=4)
    gone = weakref.ref(net)
    gc.disable()
    try:
        del net, batcher
        assert gone() is None
    finally:
        gc.enable()
