"""Forwards in another process: a full one is sent there ahead, and what becomes of both."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import torch
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.serving.batcher import Batcher
from onestep.serving.engine import Draw, Engine
from onestep.serving.errors import ModelDead, Overloaded
from onestep.serving.speed import AbstractRun, Here, Speed
from onestep.serving.tally import Counts
from onestep.tests.serving.model import gaussian, record_of

ROWS: Final = 4


class Late(Future):  # type: ignore[type-arg]
    """An answer that is there for a while before those who wait for it are told."""

    def _invoke_callbacks(self) -> None:
        time.sleep(0.3)
        super()._invoke_callbacks()  # type: ignore[misc]


@dataclass
class Elsewhere(AbstractRun):
    """A map whose answers come when the test says so."""

    here: Here
    asked: list[tuple[tuple[Any, ...], "Future[Tensor]"]] = field(default_factory=list)
    kind: type["Future[Tensor]"] = Future
    ahead = 2

    def __call__(self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        return self.here(x, s, t, condition)

    def begin(
        self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None
    ) -> "Future[Tensor]":
        self.asked.append(((x, s, t, condition), self.kind()))
        return self.asked[-1][1]

    @property
    def rows(self) -> list[int]:
        """Rows of the questions that wait for their answers."""
        return [len(question[0]) for question, _ in self.asked]

    def answer(self) -> None:
        """Answers the first of them."""
        question, coming = self.asked.pop(0)
        coming.set_result(self.here(*question))


class Bench:
    """A batcher over such a map, and what is asked of it."""

    def __init__(self, *, max_waiting: int = 99) -> None:
        self.map = Elsewhere(Here(gaussian(), Speed()))
        engine = Engine(gaussian(), record_of(), bucket=ROWS, host=lambda *_: self.map)
        self.counts = Counts()
        self.batcher = Batcher(engine, max_waiting=max_waiting, counts=self.counts)
        self.answers: list[asyncio.Task[Tensor]] = []

    async def ask(self, *draws: Draw) -> None:
        self.answers += [asyncio.create_task(self.batcher.submit(one)) for one in draws]
        await asyncio.sleep(0)

    async def until(self, rows: Sequence[int]) -> None:
        """Until these questions are under way, and then for a while longer."""
        for _ in range(1000):
            if self.map.rows == rows:
                break
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert self.map.rows == rows

    async def finish(self) -> list[Tensor | BaseException]:
        """Answers whatever is asked, one question after the other."""
        while not all(task.done() for task in self.answers):
            if self.map.asked:
                self.map.answer()
            await asyncio.sleep(0.005)
        return await asyncio.gather(*self.answers, return_exceptions=True)


def draw(seed: int, *, n: int = 1, steps: int = 1) -> Draw:
    return Draw(label=3, n=n, seed=seed, steps=steps)


def same(found: object, asked: Draw) -> bool:
    (alone,) = Engine(gaussian(), record_of(), bucket=ROWS).sample([asked])
    return isinstance(found, Tensor) and torch.allclose(found, alone, atol=1e-5)


def on_bench(work: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        await work(Bench())

    asyncio.run(run())


def test_a_full_round_is_sent_ahead_a_part_of_one_waits_and_no_third_goes() -> None:
    draws = [draw(k) for k in range(9)]

    async def work(bench: Bench) -> None:
        await bench.ask(draws[0])
        await bench.until([1])
        await bench.ask(*draws[1:4])
        await bench.until([1])  # three more may share the next with one who comes later
        await bench.ask(draws[4])
        await bench.until([1, 4])
        await bench.ask(*draws[5:])
        await bench.until([1, 4])
        bench.map.answer()
        await bench.until([4, 4])
        assert all(map(same, await bench.finish(), draws))

    on_bench(work)


def test_steps_of_a_walk_are_asked_one_after_the_other_between_those_of_others() -> None:
    draws = [draw(0, n=ROWS, steps=3), draw(1, n=ROWS, steps=2), draw(2)]

    async def work(bench: Bench) -> None:
        await bench.ask(*draws)
        assert all(map(same, await bench.finish(), draws))

    on_bench(work)


def test_an_answer_is_taken_also_before_who_waits_for_it_is_told() -> None:
    draws = [draw(k, n=ROWS) for k in range(2)]

    async def work(bench: Bench) -> None:
        bench.map.kind = Late
        await bench.ask(draws[0])
        await bench.until([4])
        answering = asyncio.create_task(asyncio.to_thread(bench.map.answer))
        await asyncio.sleep(0.1)
        bench.map.kind = Future
        await bench.ask(draws[1])  # by which the batcher looks whether the first has ended
        await answering
        assert all(map(same, await bench.finish(), draws))

    on_bench(work)


def test_an_error_is_that_of_its_round_alone() -> None:
    draws = [draw(0, n=ROWS), draw(1, n=ROWS), draw(2)]

    async def work(bench: Bench) -> None:
        await bench.ask(*draws)
        await bench.until([4, 4])
        bench.map.asked.pop(0)[1].set_exception(RuntimeError("of this round"))
        first, *others = await bench.finish()
        assert str(first) == "of this round"
        assert all(map(same, others, draws[1:]))

    on_bench(work)


def test_who_waits_in_either_round_or_behind_them_is_told_that_the_model_died() -> None:
    async def work(bench: Bench) -> None:
        await bench.ask(draw(0, n=ROWS), draw(1, n=ROWS), draw(2))
        await bench.until([4, 4])
        for _, coming in bench.map.asked:
            coming.set_exception(ModelDead("it ended"))
        found = await asyncio.gather(*bench.answers, return_exceptions=True)
        assert [type(one) for one in found] == [ModelDead] * 3
        with pytest.raises(ModelDead):
            await bench.batcher.submit(draw(3))

    on_bench(work)


def test_what_is_under_way_is_foreseen_and_what_waits_is_told() -> None:
    async def work(bench: Bench) -> None:
        for rows in (1, 2, 4):
            bench.batcher._pace.note(rows, 10.0)
        await bench.ask(draw(0, n=ROWS), draw(1, n=ROWS, steps=3), draw(2), draw(3))
        await bench.until([4, 4])
        assert bench.batcher.waiting == 2
        forecast = bench.batcher.forecast(ROWS)
        # The two under way, and with its own round the two that wait and a step of the second.
        assert forecast.seconds(1) == pytest.approx(20 + 30, abs=1)
        assert forecast.forwards_ahead == pytest.approx((2 * ROWS + 2) / ROWS)
        await asyncio.sleep(0.2)
        with pytest.raises(ModelDead) as stuck:
            bench.batcher.check(stuck_s=0.1)
        assert stuck.value.why.startswith("a forward must take at most 0.1 s")
        await bench.finish()

    on_bench(work)


def test_a_round_ahead_takes_no_room_of_those_that_wait() -> None:
    async def run() -> None:
        bench = Bench(max_waiting=1)
        await bench.ask(draw(0, n=ROWS))
        await bench.until([4])
        await bench.ask(draw(1, n=ROWS))
        await bench.until([4, 4])
        await bench.ask(draw(2))
        with pytest.raises(Overloaded):
            await bench.batcher.submit(draw(3))
        part = asyncio.create_task(bench.batcher.submit(draw(4), is_begun=True))
        await bench.finish()
        assert same(await part, draw(4))

    asyncio.run(run())


def test_images_that_were_made_are_told_though_the_next_forward_dies() -> None:
    async def work(bench: Bench) -> None:
        await bench.ask(draw(0, n=ROWS), draw(1, n=ROWS))
        await bench.until([4, 4])
        bench.map.answer()
        bench.map.asked.pop()[1].set_exception(ModelDead("it ended"))
        first, second = await asyncio.gather(*bench.answers, return_exceptions=True)
        assert same(first, draw(0, n=ROWS))
        assert isinstance(second, ModelDead)

    on_bench(work)


def test_each_forward_took_as_long_as_until_its_own_answer_came() -> None:
    async def work(bench: Bench) -> None:
        for seed in (0, 2, 4):
            await bench.ask(draw(seed, n=ROWS), draw(seed + 1, n=ROWS))
            await bench.until([4, 4])
            for _ in range(2):  # meanwhile the event loop looks at neither
                time.sleep(0.1)
                bench.map.answer()
            await asyncio.gather(*bench.answers)
        assert 0.09 < bench.batcher._pace.seconds(ROWS) < 0.3
        assert bench.counts.forward_seconds == pytest.approx(6 * 0.12, abs=0.3)

    on_bench(work)


def test_a_model_that_is_closed_behind_a_forward_is_not_said_to_have_died(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(bench: Bench) -> None:
        await bench.ask(draw(0, n=ROWS))
        await bench.until([4])
        bench.answers[0].cancel()
        await asyncio.gather(*bench.answers, return_exceptions=True)
        bench.batcher.close()
        bench.map.answer()
        await asyncio.sleep(0.1)

    on_bench(work)
    assert caplog.text == ""
