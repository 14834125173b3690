import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from onestep.serving.threshold import Doorkeeper, Threshold


@asynccontextmanager
async def clients(threshold: Threshold, answers: asyncio.Event) -> AsyncIterator[httpx.AsyncClient]:
    api = FastAPI()
    api.add_middleware(Doorkeeper, threshold=threshold)

    @api.get("/slow")
    async def slow() -> str:
        await answers.wait()
        return "here"

    @api.get("/broken")
    async def broken() -> str:
        raise KeyError("broken")

    transport = httpx.ASGITransport(app=api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        yield http


def test_who_is_inside_is_answered_and_who_comes_later_is_to_come_again() -> None:
    async def visit() -> None:
        threshold, answers = Threshold(), asyncio.Event()
        async with clients(threshold, answers) as http:
            inside = asyncio.create_task(http.get("/slow"))
            while not threshold.inside:
                await asyncio.sleep(0.001)
            threshold.is_closed = True
            late = await http.get("/slow")
            assert (late.status_code, late.headers["Retry-After"]) == (503, "1")
            assert late.json()["error"]["message"] == (
                "the server is stopping; try again in a second"
            )
            assert threshold.inside == 1
            answers.set()
            assert (await inside).json() == "here"
            assert threshold.inside == 0

    asyncio.run(visit())


def test_who_met_an_error_is_not_inside_any_more() -> None:
    async def visit() -> None:
        threshold = Threshold()
        async with clients(threshold, asyncio.Event()) as http:
            assert (await http.get("/broken")).status_code == 500
        assert threshold.inside == 0

    asyncio.run(visit())
