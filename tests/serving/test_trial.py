import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from torch import Tensor

from onestep.methods.core.flow_map import FlowMap
from onestep.methods.oracle import GaussianMap
from onestep.serving.desk import Desk
from onestep.serving.engine import Engine
from onestep.serving.errors import LoadFailed
from onestep.serving.lot import Lot
from onestep.serving.native import GenerateRequest, Made
from onestep.serving.schema import ImagesRequest, ImagesResponse, Refusal
from onestep.serving.service import EngineService
from onestep.serving.shelf import Shelf
from onestep.serving.split import Split
from onestep.serving.trial import SHORT, Counted
from onestep.tests.serving.model import GRID, MEAN, SHAPE, STD, TRIANGLE, gaussian, record_of

NAME, CHAMPION, CANARY = "digits@champion", "digits/1", "digits/2"
PAUSE_S = 0.05
HEAVY_S = 0.5
MANY = 1000
CROWD = 24


class Faulty(GaussianMap):
    """A map that is well while it is loaded, and not when it is asked for label 3."""

    def __init__(self, kind: str) -> None:
        domain = GRID if kind == "grid" else TRIANGLE
        super().__init__(mean=MEAN, std=STD, shape=SHAPE, classes=4, domain=domain)
        self.kind = kind

    def forward(self, x, s, t, condition=None) -> Tensor:  # type: ignore[no-untyped-def]
        u: Tensor = super().forward(x, s, t, condition)
        if self.kind == "slow":
            time.sleep(PAUSE_S)
        if self.kind == "heavy":
            time.sleep(HEAVY_S)
        if self.kind == "hangs" and threading.current_thread().name.startswith("engine"):
            time.sleep(1.0)
        if condition is None or not (condition.label == 3).any():
            return u
        if self.kind == "raises":
            raise RuntimeError("out of memory")
        return u * float("nan") if self.kind == "nan" else u


def desk_of(
    kind: str, *, timeout_s: float = 60.0, stuck_s: float = 60.0, max_waiting: int = 256
) -> Desk:
    def load(version: str) -> EngineService:
        is_well = version == CHAMPION and kind != "heavy"  # which both are
        flow_map: FlowMap = gaussian() if is_well else Faulty(kind)
        record = record_of(domain=flow_map.domain)
        engine = Engine(flow_map, record, bucket=4)
        return EngineService(
            engine,
            name=version,
            version=version,
            max_waiting=MANY if version == CHAMPION else max_waiting,
            timeout_s=timeout_s,
        )

    return Desk(Shelf(load, memory_bytes=10**6), timeout_s=timeout_s, stuck_s=stuck_s)


def play(kind: str, split: Split, work: Callable[[Desk], Awaitable[None]]) -> Counted:
    async def inner() -> Counted:
        desk = desk_of(kind)
        await desk.serve({NAME: [CHAMPION]})
        await desk.stage(CANARY)
        desk.split(NAME, split)
        await work(desk)
        await asyncio.sleep(3 * PAUSE_S)  # shadows end
        return desk.meanings[NAME].counted

    return asyncio.run(inner())


def all_of_it(*, shadow: bool = False) -> Split:
    return Split(version=CANARY, percent=100.0, shadow=shadow)


async def version_of(desk: Desk, **fields: object) -> str:
    answer = await desk.generate(ImagesRequest(**{"model": NAME, "prompt": "3", **fields}))
    return answer.model if isinstance(answer, ImagesResponse) else answer.error.message


def test_a_share_of_the_requests_goes_to_the_version_and_a_repeated_one_to_the_same() -> None:
    seen: list[str] = []

    async def work(desk: Desk) -> None:
        for seed in (*range(40), *range(40)):
            seen.append(await version_of(desk, seed=seed))

    counted = play("good", Split(version=CANARY, percent=30.0), work)
    assert seen[:40] == seen[40:]
    taken = seen.count(CANARY)
    assert 2 * 4 <= taken <= 2 * 20  # 12 of 40, and under three standard errors of them
    assert counted == Counted(requests=taken, images=taken)


def test_users_stay_on_their_side_whatever_they_ask_and_requests_without_seed_do_not_all() -> None:
    async def work(desk: Desk) -> None:
        sides = set()
        for user in map(str, range(12)):
            asked = [await version_of(desk, user=user, prompt=str(k)) for k in range(3)]
            assert len(set(asked)) == 1
            sides.add(asked[0])
        assert sides == {CHAMPION, CANARY}
        assert {await version_of(desk) for _ in range(30)} == {CHAMPION, CANARY}

    play("good", Split(version=CANARY, percent=50.0), work)


def test_who_names_a_version_gets_it() -> None:
    async def work(desk: Desk) -> None:
        assert await version_of(desk, model=CHAMPION) == CHAMPION
        assert await version_of(desk, model=CANARY) == CANARY
        assert await version_of(desk, model="") == CANARY  # the first name
        made = await desk.make(GenerateRequest(model=NAME, labels=[1, 2], format="npy"))
        assert isinstance(made, Made)
        assert made.headers["X-Onestep-Model"] == CANARY

    counted = play("good", all_of_it(), work)
    assert counted == Counted(requests=2, images=3)


def test_an_address_is_no_image_yet() -> None:
    async def work(desk: Desk) -> None:
        assert await version_of(desk, response_format="url") == CANARY

    assert play("good", all_of_it(), work) == Counted(requests=1)


@pytest.mark.parametrize("kind", ["raises", "nan"])
def test_what_the_version_fails_the_champion_answers_and_it_is_counted(kind: str) -> None:
    async def work(desk: Desk) -> None:
        assert await version_of(desk, prompt="3") == CHAMPION
        assert await version_of(desk, prompt="1") == CANARY

    assert play(kind, all_of_it(), work) == Counted(requests=2, errors=1, images=1)


def test_what_only_the_champion_takes_is_an_error_and_what_neither_takes_is_none() -> None:
    async def work(desk: Desk) -> None:
        assert await version_of(desk, steps=3) == CHAMPION  # the other's grid has none of three
        assert (await version_of(desk, prompt="9")).startswith("prompt must be a class label")

    assert play("grid", all_of_it(), work) == Counted(requests=1, errors=1)


def test_a_shadow_is_counted_and_the_answer_is_the_champion_s() -> None:
    async def work(desk: Desk) -> None:
        for prompt in ("1", "3", "3"):
            assert await version_of(desk, prompt=prompt) == CHAMPION
            await asyncio.sleep(PAUSE_S)

    assert play("nan", all_of_it(shadow=True), work) == Counted(requests=3, errors=2, images=1)


def test_no_answer_waits_for_a_shadow_and_one_is_cast_at_a_time() -> None:
    async def work(desk: Desk) -> None:
        began = time.perf_counter()
        for _ in range(5):
            assert await version_of(desk) == CHAMPION
        assert time.perf_counter() - began < 4 * PAUSE_S

    counted = play("slow", all_of_it(shadow=True), work)
    assert counted.requests + counted.dropped == 5
    assert 1 <= counted.requests < 5


def test_no_shadow_is_cast_where_many_wait() -> None:
    async def work(desk: Desk) -> None:
        many = [version_of(desk, n=4) for _ in range(SHORT + 8)]
        assert set(await asyncio.gather(*many)) == {CHAMPION}

    assert play("good", all_of_it(shadow=True), work).dropped > 0


def test_the_percent_moves_without_a_loss_of_counts_and_the_end_is_the_champion_s() -> None:
    async def work(desk: Desk) -> None:
        assert await version_of(desk, seed=1) == CANARY
        desk.split(NAME, Split(version=CANARY, percent=1e-9))
        assert await version_of(desk, seed=1) == CHAMPION
        assert desk.meanings[NAME].counted.requests == 1
        desk.split(NAME, None)
        assert desk.meanings[NAME].split is None
        desk.split(NAME, all_of_it())
        assert desk.meanings[NAME].counted == Counted()  # another trial
        desk.split("other", all_of_it())
        await desk.serve({"faces@champion": [CHAMPION]})
        assert await version_of(desk, model="faces@champion") == CHAMPION
        await desk.serve({NAME: [CHAMPION]})
        assert await version_of(desk) == CHAMPION

    play("good", all_of_it(), work)


def test_a_lot_waits_where_requests_do() -> None:
    async def work(desk: Desk) -> None:
        many = [asyncio.create_task(version_of(desk, n=8)) for _ in range(8)]
        await asyncio.sleep(PAUSE_S / 2)
        assert await desk.lot(CHAMPION, CANARY, 0) is None
        await asyncio.gather(*many)
        lot = await desk.lot(CHAMPION, CANARY, 0)
        assert lot is not None
        assert not isinstance(lot, str)
        assert lot.canary_s > lot.champion_s + PAUSE_S / 2

    play("slow", all_of_it(), work)


def test_a_refusal_of_the_champion_is_told_as_ever() -> None:
    async def work(desk: Desk) -> None:
        answer = await desk.generate(ImagesRequest(model="digits/9"))
        assert isinstance(answer, Refusal)
        assert answer.status == 404

    play("good", all_of_it(), work)


@pytest.mark.parametrize("fields", [{}, {"deadline_ms": 400}], ids=["timeout", "deadline"])
def test_what_the_version_does_not_answer_in_half_the_time_the_champion_does(
    fields: dict[str, int],
) -> None:
    async def work() -> None:
        desk = desk_of("hangs", timeout_s=0.4)
        await desk.serve({NAME: [CHAMPION]})
        await desk.stage(CANARY)
        desk.split(NAME, all_of_it())
        async with asyncio.timeout(0.4):
            assert await version_of(desk, **fields) == CHAMPION
        assert desk.meanings[NAME].counted == Counted(requests=1, errors=1)

    asyncio.run(work())


def test_a_deadline_that_leaves_no_room_for_two_attempts_is_no_error_of_the_version() -> None:
    async def work(desk: Desk) -> None:
        for _ in range(3):  # by which its pace is known
            assert await version_of(desk) == CANARY
        for _ in range(2):
            assert await version_of(desk, steps=1, deadline_ms=int(1900 * HEAVY_S)) == CHAMPION

    assert play("heavy", all_of_it(), work) == Counted(requests=3, images=3)


def crowd(**bounds: float) -> tuple[Counter[str], Counted]:
    """Versions that answer many requests at once, and what the one on trial has done."""

    async def work() -> tuple[Counter[str], Counted]:
        desk = desk_of("slow", **bounds)  # type: ignore[arg-type]
        await desk.serve({NAME: [CHAMPION]})
        await desk.stage(CANARY)
        desk.split(NAME, all_of_it())
        many = [version_of(desk, steps=1, n=4, seed=seed) for seed in range(CROWD)]
        return Counter(await asyncio.gather(*many)), desk.meanings[NAME].counted

    return asyncio.run(work())


def test_a_full_queue_of_the_version_is_no_error_of_it() -> None:
    found, counted = crowd(max_waiting=4)
    assert found[CHAMPION] > 0
    assert found.total() == found[CHAMPION] + found[CANARY]
    assert counted == Counted(requests=found[CANARY], images=4 * found[CANARY])


def test_who_waits_for_half_the_time_while_others_are_answered_met_no_error() -> None:
    found, counted = crowd(timeout_s=CROWD * PAUSE_S)
    assert found[CHAMPION] > 0
    assert counted == Counted(requests=found[CANARY], images=4 * found[CANARY])


def test_who_would_wait_for_half_the_time_goes_to_the_champion_at_once() -> None:
    half_s = 0.9 * CROWD * PAUSE_S  # too short for the last ones, of whom none needs the whole

    async def work() -> None:
        desk = desk_of("slow", timeout_s=2 * half_s)
        await desk.serve({NAME: [CHAMPION]})
        await desk.stage(CANARY)
        desk.split(NAME, all_of_it())
        for _ in range(3):  # by which its pace is known
            assert await version_of(desk, steps=1, n=4) == CANARY
        began, ended = time.monotonic(), {}

        async def ask(seed: int) -> None:
            version = await version_of(desk, steps=1, n=4, seed=seed)
            ended.setdefault(version, time.monotonic() - began)

        await asyncio.gather(*map(ask, range(CROWD)))
        assert ended[CHAMPION] < half_s
        assert desk.meanings[NAME].counted.errors == 0

    asyncio.run(work())


def test_a_shadow_that_is_refused_for_what_waits_is_dropped() -> None:
    async def work() -> None:
        desk = desk_of("slow", max_waiting=1)
        await desk.serve({NAME: [CHAMPION]})
        await desk.stage(CANARY)
        desk.split(NAME, all_of_it(shadow=True))
        named = [asyncio.create_task(version_of(desk, model=CANARY, n=4)) for _ in range(2)]
        await asyncio.sleep(PAUSE_S / 2)  # one is made, and one waits
        named.append(asyncio.create_task(version_of(desk, model=CANARY, n=4)))
        assert await version_of(desk) == CHAMPION
        await asyncio.gather(*named)
        assert desk.meanings[NAME].counted == Counted(dropped=1)

    asyncio.run(work())


def test_a_client_that_leaves_is_no_error_of_the_version() -> None:
    async def work() -> None:
        desk = desk_of("hangs")
        await desk.serve({NAME: [CHAMPION]})
        await desk.stage(CANARY)
        desk.split(NAME, all_of_it())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await version_of(desk)
        assert desk.meanings[NAME].counted == Counted()

    asyncio.run(work())


def test_a_version_that_hangs_ends_its_trial_and_not_the_replica() -> None:
    async def work() -> None:
        desk = desk_of("hangs", timeout_s=0.4, stuck_s=0.1)
        await desk.serve({NAME: [CHAMPION]})
        await desk.stage(CANARY)
        desk.split(NAME, all_of_it())
        assert await version_of(desk) == CHAMPION
        desk.check()
        meaning = desk.meanings[NAME]
        assert meaning.split is None
        assert meaning.problem.startswith(f"{CANARY}, which was on trial, answers no more")
        with pytest.raises(LoadFailed, match=r"must take at most 0\.1 s"):
            await desk.stage(CANARY)  # by which the watch hears of it
        assert await version_of(desk) == CHAMPION
        desk.check()

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["raises", "nan"])
def test_a_lot_that_the_version_fails_says_why_and_one_that_the_champion_fails_nothing(
    kind: str,
) -> None:
    async def work(desk: Desk) -> None:
        found = await desk.lot(CHAMPION, CANARY, 0)
        assert isinstance(found, str)
        assert found.startswith("the canary made ")
        assert "out of memory" not in found
        assert await desk.lot(CANARY, CHAMPION, 0) is None

    play(kind, all_of_it(), work)


def test_a_lot_of_images_of_another_shape_is_none_and_says_so() -> None:
    def load(version: str) -> EngineService:
        shape = SHAPE if version == CHAMPION else (1, 4, 4)
        engine = Engine(gaussian(shape=shape), record_of(shape=shape))
        return EngineService(engine, name=version, version=version)

    async def work() -> None:
        desk = Desk(Shelf(load, memory_bytes=10**6))
        why = "the canary must make images of shape (1, 8, 8), as the champion does, got (1, 4, 4)"
        assert await desk.lot(CHAMPION, CANARY, 0) == why

    asyncio.run(work())


def test_a_champion_that_does_not_load_speaks_not_against_the_version() -> None:
    def load(version: str) -> EngineService:
        if version == "broken/1":
            raise ValueError("its weights were altered")
        return EngineService(Engine(gaussian(), record_of()), name=version, version=version)

    async def work() -> None:
        desk = Desk(Shelf(load, memory_bytes=10**6))
        assert await desk.lot("broken/1", CANARY, 0) is None
        assert await desk.lot(CANARY, "broken/1", 0) == "its weights were altered"

    asyncio.run(work())


def test_a_lot_that_nobody_waits_for_any_more_keeps_others_from_being_made_beside_it() -> None:
    async def work(desk: Desk) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(PAUSE_S / 5):
                await desk.lot(CHAMPION, CANARY, 0)
        assert await desk.lot(CHAMPION, CANARY, 0) is None
        await asyncio.sleep(8 * PAUSE_S)
        assert isinstance(await desk.lot(CHAMPION, CANARY, 0), Lot)

    play("slow", all_of_it(), work)


def test_what_was_counted_beside_a_former_champion_counts_no_more() -> None:
    async def work(desk: Desk) -> None:
        assert await version_of(desk) == CANARY
        desk.point(NAME, CHAMPION)
        assert desk.meanings[NAME].counted.requests == 1
        await desk.stage("digits/3")
        desk.point(NAME, "digits/3")
        assert await version_of(desk) == CANARY

    assert play("good", all_of_it(), work) == Counted(requests=1, images=1)


def test_a_version_answers_who_asks_for_it_when_its_trial_is_over() -> None:
    def load(version: str) -> EngineService:
        return EngineService(Engine(gaussian(), record_of()), name=version, version=version)

    async def work() -> None:
        desk = Desk(Shelf(load, memory_bytes=1))  # what is not asked for does not stay
        await desk.serve({NAME: [CHAMPION]})
        await desk.stage(CANARY)
        desk.split(NAME, all_of_it())
        assert await version_of(desk, response_format="url") == CANARY
        desk.split(NAME, None)
        assert await version_of(desk) == CHAMPION
        assert await version_of(desk, model=CANARY) == CANARY

    asyncio.run(work())
