import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack

import pytest
import torch

from onestep.serving import cores
from onestep.serving.batcher import Batcher
from onestep.serving.cores import Cores
from onestep.serving.engine import Draw, Engine
from onestep.serving.walk import Question
from onestep.tests.serving.model import gaussian, record_of

ALLOWED = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
NAME = f"\0onestep-test-{os.getpid()}-{{}}"
pytestmark = pytest.mark.skipif(len(ALLOWED) < 2, reason="needs Linux, and two cores to choose of")


@pytest.fixture
def cores_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Cores]]:
    """Cores under names of this test alone, which it leaves at its end."""
    monkeypatch.setattr(cores, "_NAME", NAME)
    with ExitStack() as stack:

        def make(count: int) -> Cores:
            made = Cores(count)
            stack.callback(made.close)
            return made

        yield make


def test_cores_that_one_has_are_given_to_no_other_until_it_leaves_them(
    cores_of: Callable[[int], Cores], caplog: pytest.LogCaptureFixture
) -> None:
    one, others, late = cores_of(1), cores_of(len(ALLOWED) - 1), cores_of(1)
    assert one.take() == one.take() == {max(ALLOWED)}
    assert others.take() == ALLOWED - {max(ALLOWED)}
    assert late.take() == set()
    assert "serve.pin needs cores that no other replica has, 1, got 0" in caplog.text
    one.close()
    assert late.take() == {max(ALLOWED)}


def test_where_too_few_are_free_those_are_left_to_others(
    cores_of: Callable[[int], Cores],
) -> None:
    assert cores_of(len(ALLOWED) + 1).take() == set()
    assert cores_of(len(ALLOWED)).take() == ALLOWED


def test_a_process_holds_its_cores_while_it_lives(cores_of: Callable[[int], Cores]) -> None:
    code = (
        f"from onestep.serving import cores; cores._NAME = {NAME!r}\n"
        "kept = cores.Cores(1); print(*kept.take(), flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == str(max(ALLOWED))
        assert cores_of(1).take() == {sorted(ALLOWED)[-2]}
        other.kill()
    assert cores_of(1).take() == {max(ALLOWED)}


def test_a_process_leaves_cores_with_all_its_threads_but_not_the_last_ones() -> None:
    code = (
        "import os, threading, time\n"
        "from onestep.serving.cores import leave\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "first, *others = sorted(os.sched_getaffinity(0))\n"
        "for left in ({first}, set(others)):\n"
        "    leave(left)\n"
        "    for thread in os.listdir('/proc/self/task'):\n"
        "        assert os.sched_getaffinity(int(thread)) == set(others), (thread, left)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_system_that_binds_no_threads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ValueError, match=r"^serve\.pin must be false on a system that .* darwin$"):
        Cores(1)


def test_forwards_run_on_their_cores_and_nothing_else_is_moved_there() -> None:
    engine, seen = Engine(gaussian(), record_of(), bucket=4), []
    ask = engine.ask

    def watched(question: Question) -> "Future[torch.Tensor]":
        seen.append((threading.current_thread().name, os.sched_getaffinity(0)))
        return ask(question)

    engine.ask = watched  # type: ignore[method-assign]

    async def serve(bound: set[int]) -> None:
        batcher = Batcher(engine, max_waiting=9, cores=bound)
        await batcher.submit(Draw(label=1, n=1, seed=0, steps=1))
        batcher.close()

    for bound in ({min(ALLOWED)}, set()):
        asyncio.run(serve(bound))
    assert seen == [("engine_0", {min(ALLOWED)}), ("engine_0", ALLOWED)]
    assert os.sched_getaffinity(0) == ALLOWED
