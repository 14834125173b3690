import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Final, TypeVar

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from onestep.serving.api import build_api
from onestep.serving.desk import Desk
from onestep.serving.engine import Engine
from onestep.serving.errors import LoadFailed
from onestep.serving.keys import add_key
from onestep.serving.meter import Meter
from onestep.serving.service import EngineService, Service
from onestep.serving.settings import AppSettings
from onestep.serving.shelf import Shelf
from onestep.serving.tally import Counts, ModelTally, Tally, metrics_page
from onestep.tests.serving.model import UNET_NODE, gaussian, record_of, unet

GENERATIONS: Final = "/v1/images/generations"
T = TypeVar("T")
Labels = frozenset[tuple[str, str]]


class Series:
    """A page of metrics, by name and labels."""

    def __init__(self, page: str) -> None:
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}

    def sum(self, name: str, **labels: str) -> float:
        wanted = set(labels.items())
        found = [v for (n, have), v in self.samples.items() if n == name and wanted <= have]
        return sum(found)

    def values(self, name: str, label: str) -> set[str]:
        return {dict(have)[label] for n, have in self.samples if n == name}


async def scrape(client: httpx.AsyncClient) -> Series:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return Series(answer.text)


def served(
    work: Callable[[httpx.AsyncClient], Awaitable[T]], *, over: Service, **settings: Any
) -> T:
    async def run() -> T:
        transport = httpx.ASGITransport(build_api(over, AppSettings(**settings), ingress="i1"))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await work(client)

    return asyncio.run(run())


def engine_service() -> EngineService:
    engine = Engine(unet(), record_of(net=UNET_NODE), bucket=4)
    return EngineService(engine, name="champion", version="digits/3")


def test_images_rows_and_evaluations_are_counted_exactly() -> None:
    async def work(client: httpx.AsyncClient) -> Series:
        await client.post(GENERATIONS, json={"prompt": "1", "n": 6, "steps": 1})
        await client.post("/v1/generate", json={"labels": [1, 2, 3], "steps": 2, "format": "npy"})
        await client.post(GENERATIONS, json={"prompt": "99"})
        return await scrape(client)

    found = served(work, over=engine_service())
    of_it = {"replica": "local", "model": "digits/3"}
    assert found.sum("onestep_images_total", **of_it) == 6 + 3
    assert found.sum("onestep_evaluations_total", **of_it) == 6 * 1 + 3 * 2
    assert found.sum("onestep_rows_total", **of_it) == 6 * 1 + 3 * 2
    assert found.sum("onestep_forwards_total", **of_it) == 2 + 2  # of at most four rows
    assert 0 < found.sum("onestep_forward_seconds_total", **of_it) < 60
    assert 0 < found.sum("onestep_encoding_seconds_total", **of_it) < 60
    assert found.sum("onestep_waiting", **of_it) == 0
    assert found.sum("onestep_loaded_bytes", **of_it) == engine_service().nbytes > 0
    assert found.sum("onestep_models_loaded", replica="local") == 1
    assert found.sum("onestep_replicas_answered") == 1


def test_requests_are_counted_by_route_verb_and_status() -> None:
    async def work(client: httpx.AsyncClient) -> Series:
        for path in ("/healthz", "/healthz", "/a", "/b", "/c/d", "/v1/x"):
            await client.get(path)
        await client.delete("/v1/models")
        await client.request("BREW", "/v1/models")
        await client.request("DRINK", "/v1/models")
        await client.post(GENERATIONS, json={"prompt": "1", "n": 0})
        return await scrape(client)

    found = served(work, over=engine_service())
    total = "onestep_http_requests_total"
    ok = {"route": "/healthz", "method": "GET", "status": "200", "ingress": "i1"}
    assert found.sum(total, **ok) == 2
    assert found.sum(total, route="unknown", method="GET", status="404") == 4
    assert found.sum(total, method="unknown", status="405") == 2
    assert found.sum(total, route=GENERATIONS, status="422") == 1
    assert found.sum(total) == 10
    assert found.sum("onestep_http_request_seconds_count") == 10
    assert found.sum("onestep_http_request_seconds_bucket", le="+Inf") == 10
    assert found.sum("onestep_http_request_seconds_sum") > 0
    assert found.sum("onestep_http_in_flight", ingress="i1") == 1  # the one that asks
    assert found.sum("onestep_http_refused_total", reason="not_found") == 4 + 3
    assert found.sum("onestep_http_refused_total", reason="invalid") == 1
    assert not [name for name in found.names if name.endswith("_created")]


def test_refusals_are_counted_by_reason(tmp_path: Any) -> None:
    path = tmp_path / "keys.yaml"
    token = add_key(path, "ada", images_per_minute=2, requests_per_minute=5)

    async def work(client: httpx.AsyncClient) -> Series:
        await client.get("/v1/models")
        client.headers["Authorization"] = f"Bearer {token}"
        for _ in range(3):
            await client.post(GENERATIONS, json={"prompt": "1"})
        await client.post(GENERATIONS, content=b" " * 1_000_001)
        found = await scrape(client)
        assert (await client.get("/metrics")).status_code == 429
        return found

    found = served(work, over=engine_service(), keys=str(path), max_body_mb=1)
    reasons = {
        reason: found.sum("onestep_http_refused_total", reason=reason)
        for reason in found.values("onestep_http_refused_total", "reason")
    }
    assert reasons == {"key": 1, "images": 1, "large_body": 1}


def load(version: str) -> EngineService:
    if version == "broken/1":
        raise ValueError("its weights were altered")
    return EngineService(Engine(gaussian(), record_of(), bucket=4), name=version, version=version)


def test_loads_swaps_and_problems_are_counted_and_closed_models_leave() -> None:
    async def run() -> tuple[Series, Series]:
        desk = Desk(Shelf(load, memory_bytes=1))  # of two models one is closed

        async def look() -> Series:
            return Series(metrics_page(Meter("i1"), await desk.tally()).decode())

        await desk.serve({"champion": ["digits/3"]})
        before = await look()
        with pytest.raises(LoadFailed):
            await desk.stage("broken/1")
        desk.note("champion", "broken/1 does not load")
        await desk.stage("digits/4")
        between = await look()
        assert between.sum("onestep_problems") == 1
        desk.point("champion", "digits/4")
        desk.point("champion", "digits/4")
        return before, await look()

    before, after = asyncio.run(run())
    assert before.sum("onestep_loads_total", replica="local") == 1
    assert before.sum("onestep_load_failures_total") == before.sum("onestep_swaps_total") == 0
    assert after.sum("onestep_loads_total") == 2
    assert after.sum("onestep_load_failures_total") == 1
    assert after.sum("onestep_swaps_total") == 1
    assert after.sum("onestep_problems") == 0
    assert after.values("onestep_loaded_bytes", "model") == {"digits/4"}


def tally(replica: str, images: int) -> Tally:
    model = ModelTally(version="d/1", counts=Counts(images=images), waiting=2, loaded_bytes=5)
    return Tally(replica=replica, models=(model,))


def test_replicas_are_told_apart_and_their_silence_is_told() -> None:
    both = Series(metrics_page(Meter("i1"), [tally("r1", 3), tally("r2", 4)]).decode())
    assert both.sum("onestep_images_total", replica="r1") == 3
    assert both.sum("onestep_images_total", replica="r2") == 4
    silent = Series(metrics_page(Meter("i1"), None).decode())
    assert silent.sum("onestep_replicas_answered") == 0
    assert "onestep_images_total" not in silent.names


def test_every_panel_asks_for_metrics_and_labels_that_there_are() -> None:
    async def work(client: httpx.AsyncClient) -> Series:
        await client.post(GENERATIONS, json={"prompt": "1"})
        await client.get("/nowhere")
        return await scrape(client)

    found = served(work, over=engine_service())
    text = files("onestep.serving.conf").joinpath("grafana.json").read_text()
    panels = json.loads(text)["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(asked) > 10
    labels: dict[str, set[str]] = {}
    for name, have in found.samples:
        labels.setdefault(name, set()).update(dict(have))
    for expression in asked:
        names = re.findall(r"\bonestep_\w+", expression)
        assert names, expression
        grouped = {
            label
            for part in re.findall(r"by \(([^)]*)\)", expression)
            for label in part.split(", ")
        }
        grouped |= set(re.findall(r"(\w+)=~?\"", expression))
        for name in names:
            assert name in found.names, expression
            assert grouped <= labels[name], expression
    shown = {name for expression in asked for name in re.findall(r"\bonestep_\w+", expression)}
    drawn = {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown}
    given = {re.sub(r"_(bucket|count|sum)$", "", name) for name in found.names}
    assert given == drawn
