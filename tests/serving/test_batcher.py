import asyncio
import threading
from collections.abc import Sequence
from typing import Final

import pytest

from onestep.serving.batcher import Batcher
from onestep.serving.engine import Draw
from onestep.serving.errors import Overloaded


class Recorder:
    """Returns the seed of each request; the first batch waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate: Final = threading.Event()

    def __call__(self, draws: Sequence[Draw]) -> list[int]:
        self.batches.append([draw.seed for draw in draws])
        assert self.gate.wait(timeout=10)
        if any(draw.label == 9 for draw in draws):
            raise ValueError("label 9")
        return [draw.seed for draw in draws]


def draw(seed: int, *, n: int = 1, steps: int = 1, label: int = 0) -> Draw:
    return Draw(label=label, n=n, seed=seed, steps=steps)


def run(
    recorder: Recorder, draws: list[Draw], *, rows: int = 4, max_waiting: int = 99
) -> list[object]:
    """Submits one after the other while the first batch is held, then lets go."""

    async def submit_all() -> list[object]:
        batcher: Batcher[Draw, int] = Batcher(recorder, rows=rows, max_waiting=max_waiting)
        tasks = []
        for one in draws:
            tasks.append(asyncio.create_task(batcher.submit(one)))
            await asyncio.sleep(0)
            while not recorder.batches:
                await asyncio.sleep(0.001)
        recorder.gate.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    return asyncio.run(submit_all())


def test_a_lone_request_runs_at_once_and_the_rest_run_together() -> None:
    recorder = Recorder()
    assert run(recorder, [draw(k) for k in range(4)]) == [0, 1, 2, 3]
    assert recorder.batches == [[0], [1, 2, 3]]


def test_a_batch_holds_no_more_rows_than_fit_but_a_large_request_runs() -> None:
    recorder = Recorder()
    draws = [draw(0), draw(1, n=3), draw(2, n=3), draw(3, n=1), draw(4, n=50)]
    assert run(recorder, draws) == [0, 1, 2, 3, 4]
    assert recorder.batches == [[0], [1, 3], [2], [4]]


def test_only_equal_steps_run_together() -> None:
    recorder = Recorder()
    run(recorder, [draw(0), draw(1, steps=1), draw(2, steps=2), draw(3, steps=1)])
    assert recorder.batches == [[0], [1, 3], [2]]


def test_the_request_that_finds_the_queue_full_is_refused() -> None:
    results = run(Recorder(), [draw(k) for k in range(4)], max_waiting=2)
    assert results[:3] == [0, 1, 2]
    assert isinstance(results[3], Overloaded)
    assert results[3].status == 503


def test_an_error_reaches_its_batch_and_the_next_batch_still_runs() -> None:
    results = run(Recorder(), [draw(0, label=9), draw(1)])
    assert isinstance(results[0], ValueError)
    assert results[1] == 1


def test_a_request_whose_client_left_is_not_run() -> None:
    recorder = Recorder()

    async def leave() -> int:
        batcher: Batcher[Draw, int] = Batcher(recorder, rows=4, max_waiting=9)
        first = asyncio.create_task(batcher.submit(draw(0)))
        while not recorder.batches:
            await asyncio.sleep(0.001)
        gone = asyncio.create_task(batcher.submit(draw(1)))
        stays = asyncio.create_task(batcher.submit(draw(2)))
        await asyncio.sleep(0)
        gone.cancel()
        recorder.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await first + await stays

    assert asyncio.run(leave()) == 2
    assert recorder.batches == [[0], [2]]
