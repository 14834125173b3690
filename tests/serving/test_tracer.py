import asyncio
import itertools
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import pytest

from onestep import __version__
from onestep.serving.api import build_api
from onestep.serving.engine import Engine
from onestep.serving.keys import add_key
from onestep.serving.schema import ImagesRequest, ImagesResponse, Refusal
from onestep.serving.service import EngineService, Service
from onestep.serving.settings import AppSettings
from onestep.serving.stage import MAX_STAGES
from onestep.serving.tracer import SEND_S
from onestep.tests.serving.collector import ERROR, Collector, collecting
from onestep.tests.serving.model import UNET_NODE, record_of, unet
from onestep.tests.serving.test_journal import Hostile

GENERATIONS: Final = "/v1/images/generations"
TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT: Final = "b7ad6b7169203331"
SAMPLED: Final = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=x"}
UNSAMPLED: Final = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
T = TypeVar("T")
Work = Callable[[httpx.AsyncClient], Awaitable[T]]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def served() -> EngineService:
    engine = Engine(unet(), record_of(net=UNET_NODE), bucket=4)
    return EngineService(engine, name="champion", version="digits/3")


def asking(url: str, work: Work[T], *, over: Service | None = None, **settings: Any) -> T:
    """What a client finds at an application that sends traces, which has ended."""

    async def run() -> T:
        api = build_api(over or served(), AppSettings(traces=url, **settings), ingress="i1")
        async with api.router.lifespan_context(api):
            transport = httpx.ASGITransport(api)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await work(client)

    return asyncio.run(run())


def get(path: str, **headers: str) -> Work[httpx.Response]:
    return lambda client: client.get(path, headers=headers)


def post(path: str, **body: object) -> Work[httpx.Response]:
    return lambda client: client.post(path, json=body, headers={"X-Request-Id": "mine"})


def test_a_request_is_a_span_whose_children_are_its_stages(collector: Collector) -> None:
    before_ns = time.time_ns()
    answer = asking(collector.url, post(GENERATIONS, prompt="1", n=2, steps=2))
    assert answer.status_code == 200
    (request,) = collector.requests
    assert request.name == f"POST {GENERATIONS}"
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": GENERATIONS,
        "http.response.status_code": 200,
        "url.scheme": "http",
        "onestep.request_id": "mine",
        "onestep.model": "digits/3",
        "onestep.n": 2,
        "onestep.steps": 2,
    }
    stages = collector.inside(request)
    assert [stage.name for stage in stages] == ["queue", "forward", "forward", "encode"]
    assert [stage.attributes for stage in stages] == [{}, *[{"onestep.rows": 2}] * 2, {}]
    assert {stage.span.trace_id for stage in stages} == {request.span.trace_id}
    assert len(collector.spans) == 5
    times = [
        moment
        for stage in stages
        for moment in (stage.span.start_time_unix_nano, stage.span.end_time_unix_nano)
    ]
    # Both clocks are read one after the other, so that times of one moment differ a little.
    assert all(later - earlier > -1e6 for earlier, later in itertools.pairwise(times))
    whole = [request.span.start_time_unix_nano, *times, request.span.end_time_unix_nano]
    assert before_ns <= min(whole)
    assert max(whole) <= time.time_ns()
    assert whole[0] - 1e6 < min(times)
    assert max(times) < whole[-1] + 1e6


def test_who_sends_is_told(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    asking(collector.url, get("/healthz"))
    monkeypatch.setenv("OTEL_SERVICE_NAME", "images")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hidden")
    asking(collector.url, get("/healthz"))
    first, second = (taken.resource for taken in collector.spans)
    assert first["service.name"] == "onestep"
    assert first["service.version"] == __version__
    assert first["service.instance.id"] == second["service.instance.id"] == "i1"
    assert second["service.name"] == "images"
    assert [headers.get("api-key") for headers in collector.headers] == [None, "hidden"]


def test_a_trace_that_a_request_is_part_of_is_continued(collector: Collector) -> None:
    asking(collector.url, get("/healthz", **SAMPLED))
    (taken,) = collector.spans
    assert (taken.span.trace_id.hex(), taken.parent) == (TRACE, PARENT)
    assert taken.span.trace_state == "vendor=x"


@pytest.mark.parametrize("header", ["", "00-0-0-01", f"00-{TRACE}-{PARENT}", "\u00e4"])
def test_a_parent_that_is_none_begins_a_trace(header: str, collector: Collector) -> None:
    asking(
        collector.url,
        lambda client: client.get("/healthz", headers={"traceparent": header.encode()}),
    )
    (taken,) = collector.spans
    assert taken.parent == ""
    assert taken.span.trace_id.hex() != TRACE


def test_who_is_not_traced_has_no_span_and_nobody_takes_its_times(collector: Collector) -> None:
    service, timed = served(), []
    generate = service.generate

    async def noted(request: ImagesRequest) -> ImagesResponse | Refusal:
        timed.append(request.is_timed)
        return await generate(request)

    async def work(client: httpx.AsyncClient) -> None:
        for headers in (UNSAMPLED, {}):
            answer = await client.post(GENERATIONS, json={"prompt": "1"}, headers=headers)
            answer.raise_for_status()

    service.generate = noted  # type: ignore[method-assign]
    asking(collector.url, work, over=service)
    assert timed == [False, True]
    (taken,) = collector.requests
    assert taken.parent == ""


def test_a_share_is_of_those_that_begin_a_trace(collector: Collector) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        for headers in ({}, {}, SAMPLED):
            (await client.get("/healthz", headers=headers)).raise_for_status()

    asking(collector.url, work, trace_share=0.0)
    (taken,) = collector.spans
    assert taken.parent == PARENT


def test_a_refused_request_says_why(collector: Collector, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    token = add_key(path, "ada")

    async def work(client: httpx.AsyncClient) -> None:
        await client.get("/v1/models?secret=1")
        client.headers["Authorization"] = f"Bearer {token}"
        await client.get("/private/path")
        await client.request("BREW", "/v1/models")
        await client.post(GENERATIONS, json={"prompt": "1", "n": 0})
        await client.post(GENERATIONS, json={"prompt": "99", "n": 3})

    asking(collector.url, work, keys=str(path))
    told = [
        (
            one.name,
            one.attributes["http.response.status_code"],
            one.attributes["onestep.reason"],
            one.attributes.get("onestep.key"),
            one.attributes.get("onestep.n"),
        )
        for one in collector.spans
    ]
    assert told == [
        ("GET", 401, "key", None, None),
        ("GET", 404, "not_found", "ada", None),
        ("HTTP /v1/models", 405, "not_found", "ada", None),
        (f"POST {GENERATIONS}", 422, "invalid", "ada", None),
        (f"POST {GENERATIONS}", 422, "invalid", "ada", 3),
    ]
    assert {one.span.status.code for one in collector.spans} == {0}
    sent = b"".join(collector.bodies)
    for inside in (token.encode(), b"secret", b"private", b"BREW"):
        assert inside not in sent


def test_a_failed_request_is_an_error(collector: Collector) -> None:
    answer = asking(collector.url, post(GENERATIONS, prompt="1"), over=Hostile())
    assert answer.status_code == 500
    (taken,) = collector.spans
    assert taken.span.status.code == ERROR
    assert taken.attributes["error.type"] == "500"
    assert taken.attributes["onestep.reason"] == "failed"
    assert b"weights" not in b"".join(collector.bodies)


@pytest.mark.parametrize(
    ("work", "forwards"),
    [
        (post("/v1/generate", labels=[1, 2, 3], format="npy"), 1),
        (get("/v1/images/digits/3/7/0.png?labels=1&steps=1"), 1),
        (post("/v1/generate", labels=1, n=6, steps=1, format="npy"), 2),
        (post("/v1/generate", labels=1, n=64, steps=64, format="npy"), MAX_STAGES - 2),
    ],
    ids=["file", "address", "two forwards", "more than are told"],
)
def test_every_way_to_images_tells_its_stages(
    work: Work[httpx.Response], forwards: int, collector: Collector
) -> None:
    asking(collector.url, work).raise_for_status()
    (request,) = collector.requests
    names = [stage.name for stage in collector.inside(request)]
    assert names == ["queue", *["forward"] * forwards, "encode"]


def test_a_stream_tells_the_stages_of_its_parts(collector: Collector) -> None:
    stream = post("/v1/generate", labels=1, n=130, seed=0, format="npy", stream=True)
    asking(collector.url, stream).raise_for_status()
    (request,) = collector.requests
    names = [stage.name for stage in collector.inside(request)]
    assert names.count("queue") == names.count("encode") == 3
    assert names.count("forward") >= 130 / 4
    last = max(stage.span.end_time_unix_nano for stage in collector.inside(request))
    assert last < request.span.end_time_unix_nano + 1e6


def test_addresses_take_no_forward(collector: Collector) -> None:
    asking(collector.url, post(GENERATIONS, prompt="1", response_format="url")).raise_for_status()
    assert len(collector.spans) == 1


@contextmanager
def closed() -> Iterator[str]:
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}/v1/traces"


@contextmanager
def silent() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(16)
        yield f"127.0.0.1:{taken.getsockname()[1]}/v1/traces"


@contextmanager
def another() -> Iterator[str]:
    """A server that is no collector."""
    with collecting() as found:
        yield found.url.removeprefix("http://").replace("traces", "logs")


@pytest.mark.parametrize("where", [closed, silent, another])
def test_a_collector_that_is_away_costs_no_request_anything(
    where: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def work(client: httpx.AsyncClient) -> float:
        slow = 0
        for _ in range(1600):  # more than three batches
            began = time.monotonic()
            (await client.get("/healthz")).raise_for_status()
            slow += time.monotonic() - began >= SEND_S / 2
        # Requests that wait for the collector would do so once a batch; a machine may stand still.
        assert slow <= 1
        return time.monotonic()

    with where() as place, caplog.at_level(logging.INFO):
        ended = asking(f"http://ada:hidden@{place}", work, access_log=False)
    assert time.monotonic() - ended < 3 * SEND_S + 1.0
    (line,) = [record.getMessage() for record in caplog.records if "trace" in record.name]
    assert line.startswith(f"traces are lost on the way to http://ada:***@{place}, which ")
    assert "hidden" not in caplog.text


def test_a_service_without_traces_imports_nothing_for_them() -> None:
    program = """
import asyncio, sys
import httpx
from onestep.serving.api import build_api
from onestep.tests.serving.test_journal import served
async def ask():
    api = build_api(served())
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api), base_url="http://test"
    ) as client:
        answer = await client.post("/v1/images/generations", json={"prompt": "1"})
        answer.raise_for_status()
asyncio.run(ask())
wanted = ("opentelemetry.sdk", "opentelemetry.exporter", "onestep.serving.tracer")
print(*(name for name in sys.modules if name.startswith(wanted)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
