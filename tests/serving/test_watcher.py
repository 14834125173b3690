import asyncio
from typing import Any

import pytest

from onestep.serving import watcher
from onestep.serving.meaning import Meaning
from onestep.serving.watcher import RemoteReplicas, Watcher


class Stuck:
    """A handle whose replicas never end a lot."""

    async def remote(self, *_: object) -> None:
        await asyncio.Event().wait()

    @property
    def lot(self) -> "Stuck":
        return self


def test_a_lot_that_takes_too_long_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "_LOT_S", 0.05)
    replicas: Any = RemoteReplicas(Stuck())  # type: ignore[arg-type]

    async def work() -> None:
        async with asyncio.timeout(2.0):
            assert await replicas.lot("digits/1", "digits/2", 0) is None

    asyncio.run(work())


class Hung:
    """A handle whose replicas answer nothing."""

    def broadcast(self, *_: object) -> "Hung":
        return self

    async def results_async(self, *, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            await asyncio.Event().wait()


def test_no_round_waits_long_for_a_replica_that_hangs_but_a_load_may_take_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert watcher._TOLD_WITHIN_S < 10
    monkeypatch.setattr(watcher, "_TOLD_WITHIN_S", 0.05)
    replicas: Any = RemoteReplicas(Hung())  # type: ignore[arg-type]

    async def work() -> None:
        for method in ("followed", "point", "split", "tell", "note"):
            words = ("digits@champion", "")[: 0 if method == "followed" else 2]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.0) as patience:
                    await getattr(replicas, method)(*words)
            assert not patience.expired(), method
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5) as patience:
                await replicas.stage("digits/2")
        assert patience.expired()

    asyncio.run(work())


def test_a_trial_keeps_no_alias_from_being_followed() -> None:
    rounds = 0

    class Handle:
        """A handle whose replicas answer the watch of aliases, which is first, and then nobody."""

        def broadcast(self, method: str) -> "Handle":
            assert method == "followed"
            return self

        async def results_async(self, *, timeout_s: float) -> list[dict[str, Meaning]]:
            nonlocal rounds
            rounds += 1
            if rounds == 2:
                await asyncio.Event().wait()
            return []

    async def work() -> None:
        watching = Watcher({"watch_s": 0.1}, Handle())  # type: ignore[arg-type]
        await watching.reconfigure({"names": ["digits/1"]})
        async with asyncio.timeout(5.0):
            while rounds < 4:
                await asyncio.sleep(0.05)

    asyncio.run(work())
