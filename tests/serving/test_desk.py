import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from onestep.serving.desk import MAX_FORMER, Desk
from onestep.serving.engine import Engine
from onestep.serving.errors import LoadFailed
from onestep.serving.known import Known
from onestep.serving.schema import Ancestor, ImagesRequest, ImagesResponse, Refusal
from onestep.serving.service import EngineService
from onestep.serving.settings import AppSettings
from onestep.serving.shelf import Shelf
from onestep.tests.serving.model import gaussian, record_of, unet

T = TypeVar("T")
METRICS = {"eval/1nn/nfe_4": 0.1, "eval/1nn/nfe_1": 0.3, "eval/1nn/nfe_x": 0.5, "loss": 2.0}
TEACHER = Ancestor(version="digits/1", method="FlowMatching")
KNOWN = Known(lineage=(TEACHER,))


def load(version: str) -> EngineService:
    if version == "broken/1":
        raise ValueError("its weights were altered")
    record = replace(record_of(), metrics=METRICS, parents={"teacher": "digits/1"})
    engine = Engine(gaussian(), record, bucket=4)
    return EngineService(engine, name=version, version=version, known=KNOWN)


def run(work: Callable[[Desk], Awaitable[T]], *, megabytes: int = 1) -> T:
    async def inner() -> T:
        return await work(Desk(Shelf(load, memory_bytes=megabytes * 10**6)))

    return asyncio.run(inner())


async def version_for(desk: Desk, name: str) -> str:
    answer = await desk.generate(ImagesRequest(model=name, prompt="1"))
    return answer.model if isinstance(answer, ImagesResponse) else answer.error.message


async def refused(desk: Desk, name: str) -> tuple[int, str]:
    answer = await desk.generate(ImagesRequest(model=name, prompt="1"))
    assert isinstance(answer, Refusal)
    return answer.status, answer.error.message


def test_a_name_its_version_or_nothing_asks_for_a_model() -> None:
    async def work(desk: Desk) -> None:
        await desk.serve({"digits@champion": ["digits/3"], "faces/2": ["faces/2"]})
        asked = {name: await version_for(desk, name) for name in ("", "digits/3", "faces/2")}
        assert asked == {"": "digits/3", "digits/3": "digits/3", "faces/2": "faces/2"}
        assert await version_for(desk, "digits@champion") == "digits/3"
        code, message = await refused(desk, "faces/1")
        assert code == 404
        assert message.endswith("got 'faces/1'; allowed: digits@champion, faces/2, digits/3")

    run(work)


def test_each_name_has_a_card_with_lineage_metrics_and_the_curve() -> None:
    async def work(desk: Desk) -> None:
        await desk.serve({"champion": ["digits/3"], "digits/3": ["digits/3"]})
        cards = (await desk.describe()).data
        assert [(card.id, card.version) for card in cards] == [
            ("champion", "digits/3"),
            ("digits/3", "digits/3"),
        ]
        card = cards[0]
        assert (card.parents, card.metrics) == ({"teacher": "digits/1"}, METRICS)
        assert (card.lineage, card.card) == ([TEACHER], None)
        assert card.nfe_curve == {"eval/1nn": {1: 0.3, 4: 0.1}}
        assert list(card.nfe_curve["eval/1nn"]) == [1, 4]
        assert (card.classes, card.shape, card.noise_shape) == (4, [1, 8, 8], [1, 8, 8])

    run(work)


def test_a_model_that_does_not_load_keeps_no_other_from_being_served() -> None:
    async def work(desk: Desk) -> None:
        await desk.serve({"champion": ["broken/1"], "digits/3": ["digits/3"]})
        models = await desk.describe()
        assert [card.id for card in models.data] == ["digits/3"]
        assert models.missing == {"champion": "its weights were altered"}
        assert await desk.missing() == ["champion"]
        code, message = await refused(desk, "champion")
        assert (code, message) == (503, "broken/1 does not load: its weights were altered")

    run(work)


def test_where_nothing_loads_what_was_served_is_served_on() -> None:
    async def work(desk: Desk) -> None:
        await desk.serve({"champion": ["digits/3"]})
        with pytest.raises(LoadFailed, match="its weights were altered"):
            await desk.serve({"champion": ["broken/1"]})
        assert await version_for(desk, "champion") == "digits/3"

    run(work)


def test_the_first_version_that_loads_is_served() -> None:
    async def work(desk: Desk) -> None:
        await desk.serve({"champion": ["broken/1", "digits/3"]})
        assert desk.versions == {"champion": "digits/3"}

    run(work)


def test_a_name_moves_and_its_old_version_answers_who_asks_for_it() -> None:
    async def work(desk: Desk) -> None:
        await desk.serve({"champion": ["digits/3"]})
        with pytest.raises(LoadFailed):
            await desk.stage("broken/1")
        desk.note("champion", "digits/4 does not load")
        (card,) = (await desk.describe()).data
        assert (card.version, card.problem) == ("digits/3", "digits/4 does not load")
        await desk.stage("digits/4")
        assert await version_for(desk, "champion") == "digits/3"
        desk.point("champion", "digits/4")
        desk.point("challenger", "digits/3")
        (card,) = (await desk.describe()).data
        assert (card.id, card.version, card.problem) == ("champion", "digits/4", None)
        assert await version_for(desk, "champion") == "digits/4"
        assert await version_for(desk, "digits/3") == "digits/3"
        await desk.serve({"digits/4": ["digits/4"]})
        assert (await refused(desk, "champion"))[0] == 404

    run(work)


def test_a_former_version_is_loaded_again_while_its_name_is_served_and_no_other_is() -> None:
    loads: list[str] = []

    def counted(version: str) -> EngineService:
        loads.append(version)
        return EngineService(Engine(unet(), record_of(), bucket=4), name=version, version=version)

    async def work() -> None:
        desk = Desk(Shelf(counted, memory_bytes=1))
        await desk.serve({"champion": ["digits/1"]})
        for k in range(2, MAX_FORMER + 3):
            await desk.stage(f"digits/{k}")
            desk.point("champion", f"digits/{k}")
        loads.clear()
        assert await version_for(desk, "digits/2") == "digits/2"
        assert loads == ["digits/2"]
        for unknown in ("digits/1", "digits/99"):  # the first has given way to later ones
            assert (await refused(desk, unknown))[0] == 404
        await desk.serve({"best": ["digits/50"]})
        assert (await refused(desk, "digits/3"))[0] == 404
        assert loads == ["digits/2", "digits/50"]

    asyncio.run(work())


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("/srv/store/model.bin of digits/3 was altered", "P of digits/3 was altered"),
        ("no file '/srv/a b', sqlite:////x/mlflow.db", "no file P, P"),
        (
            "got http://ada:secret@host/x; allowed: digits@champion",
            "got P; allowed: digits@champion",
        ),
        ("~/x (/y) loads 3/4 of faces/2", "P (P) loads 3/4 of faces/2"),
    ],
)
def test_users_are_told_no_place_on_the_server(said: str, told: str) -> None:
    told = told.replace("P", "(a place on the server)")

    def fail(version: str) -> EngineService:
        raise ValueError(said)

    async def work() -> None:
        desk = Desk(Shelf(fail, memory_bytes=1))
        with pytest.raises(LoadFailed) as caught:
            await desk.serve({"champion": ["digits/3"]})
        assert str(caught.value) == f"digits/3 does not load: {told}"

    asyncio.run(work())

    async def noted(desk: Desk) -> None:
        await desk.serve({"champion": ["digits/3"]})
        desk.note("champion", said)
        (card,) = (await desk.describe()).data
        assert card.problem == told

    run(noted)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models": ["digits/1", "digits/1"]}, "must differ, got digits/1, digits/1"),
        ({"models": ["digits/1"], "model": "best"}, "got digits/1 beside best"),
        ({"models": [""]}, "serve.models must be a text that is not empty"),
        ({"models": "champion"}, "serve.models must be a list, got 'champion'"),
        ({"memory_mb": 0}, "serve.memory_mb must be a whole number in 1.."),
    ],
)
def test_names_that_contradict_each_other_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AppSettings.from_dict(values)


def test_the_names_are_the_one_model_or_the_several() -> None:
    assert AppSettings(model="digits/3").names == ("digits/3",)
    several = AppSettings.from_dict({"models": ["digits@champion", "faces/2"]})
    assert several.names == ("digits@champion", "faces/2")
    assert several.with_model("faces/2").names == ("faces/2",)
