import asyncio
import os
import subprocess
import sys
import threading

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


@pytest.fixture(autouse=True)
def _names_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_NAME", NAME)


def test_cores_that_one_has_are_given_to_no_other_until_it_leaves_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, others = Cores(1), Cores(len(ALLOWED) - 1)
    assert one.numbers == {max(ALLOWED)}
    assert others.numbers == ALLOWED - one.numbers
    assert Cores(1).numbers == set()
    assert "serve.pin needs cores that no other replica has, 1, got 0" in caplog.text
    one.close()
    again = Cores(1)
    assert again.numbers == {max(ALLOWED)}
    again.close()
    others.close()


def test_where_too_few_are_free_those_are_left_to_others() -> None:
    assert Cores(len(ALLOWED) + 1).numbers == set()
    every = Cores(len(ALLOWED))
    assert every.numbers == ALLOWED
    every.close()


def test_a_process_holds_its_cores_while_it_lives() -> None:
    code = (
        f"from onestep.serving import cores; cores._NAME = {NAME!r}\n"
        "kept = cores.Cores(1); print(*kept.numbers, flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == str(max(ALLOWED))
        beside = Cores(1)
        assert beside.numbers == {sorted(ALLOWED)[-2]}
        beside.close()
        other.kill()
    after = Cores(1)
    assert after.numbers == {max(ALLOWED)}
    after.close()


def test_a_system_that_binds_no_threads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(ValueError, match=r"serve\.pin must be false on a system that"):
        Cores(1)


def test_forwards_run_on_their_cores_and_nothing_else_is_moved_there() -> None:
    engine, seen = Engine(gaussian(), record_of(), bucket=4), []
    answer = engine.answer

    def watched(question: Question) -> torch.Tensor:
        seen.append((threading.current_thread().name, os.sched_getaffinity(0)))
        return answer(question)

    engine.answer = watched  # type: ignore[method-assign]

    async def ask(bound: set[int]) -> None:
        batcher = Batcher(engine, max_waiting=9, cores=bound)
        await batcher.submit(Draw(label=1, n=1, seed=0, steps=1))
        batcher.close()

    for bound in ({min(ALLOWED)}, set()):
        asyncio.run(ask(bound))
    assert seen == [("engine_0", {min(ALLOWED)}), ("engine_0", ALLOWED)]
    assert os.sched_getaffinity(0) == ALLOWED
