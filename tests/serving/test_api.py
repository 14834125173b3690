import asyncio
import base64
import json
import re
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import httpx
import pytest
from starlette.exceptions import HTTPException

from onestep.serving.api import build_api
from onestep.serving.engine import Engine
from onestep.serving.errors import RequestRefused
from onestep.serving.image import encode_png, to_uint8
from onestep.serving.native import GenerateRequest, Made
from onestep.serving.refusal import refusal
from onestep.serving.schema import ImagesRequest, ImagesResponse, ModelList, Refusal
from onestep.serving.service import EngineService, Service
from onestep.tests.serving.listening import listening
from onestep.tests.serving.model import GRID, UNET_NODE, gaussian, record_of, unet

GENERATIONS: Final = "/v1/images/generations"
T = TypeVar("T")


def service(*, max_waiting: int = 256) -> EngineService:
    engine = Engine(gaussian(domain=GRID), record_of(domain=GRID), bucket=4)
    return EngineService(engine, name="champion", version="digits/3", max_waiting=max_waiting)


def with_client(
    work: Callable[[httpx.AsyncClient], Awaitable[T]], *, over: Service | None = None
) -> T:
    async def run() -> T:
        transport = httpx.ASGITransport(build_api(over or service()))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await work(client)

    return asyncio.run(run())


def post(body: object, *, over: Service | None = None) -> httpx.Response:
    return with_client(lambda client: client.post(GENERATIONS, json=body), over=over)


def get(path: str) -> httpx.Response:
    return with_client(lambda client: client.get(path))


def test_the_answer_has_the_shape_of_openai_and_holds_png_files() -> None:
    answer = post(
        {"model": "champion", "prompt": "3", "n": 2, "size": "8x8", "seed": 7, "steps": 2}
    )
    assert answer.status_code == 200
    body = answer.json()
    engine = Engine(gaussian(domain=GRID), record_of(domain=GRID), bucket=4)
    (images,) = engine.sample([engine.accept("3", n=2, seed=7, steps=2)])
    expected = [encode_png(image) for image in to_uint8(images)]
    assert [base64.b64decode(image["b64_json"]) for image in body["data"]] == expected
    assert isinstance(body.pop("created"), int)
    del body["data"]
    assert body == {
        "model": "digits/3",
        "seed": 7,
        "steps": 2,
        "measured": None,
        "guidance": None,
        "size": "8x8",
        "usage": {"images": 2, "network_evaluations": 4},
    }


def test_what_is_left_out_has_a_default_and_the_drawn_seed_comes_back() -> None:
    first = post({"prompt": "three"}).json()
    assert (len(first["data"]), first["steps"], first["size"]) == (1, 1, "8x8")
    again = post({"prompt": "three", "seed": first["seed"]}).json()
    assert again["data"] == first["data"]
    assert post({"prompt": "three"}).json()["seed"] != first["seed"]


def test_json_numbers_without_a_fraction_are_integers() -> None:
    answer = post('{"prompt": "1", "n": 2.0, "seed": 4.0, "steps": 1.0}', over=None)
    assert answer.status_code == 422  # a JSON text is no object
    body = json.loads('{"prompt": "1", "n": 2.0, "seed": 4.0, "steps": 1.0}')
    assert len(post(body).json()["data"]) == 2


def test_the_version_is_a_name_too() -> None:
    assert post({"model": "digits/3", "prompt": "1"}).status_code == 200


@pytest.mark.parametrize(
    ("status", "param", "body", "message"),
    [
        (422, "prompt", {"prompt": "4"}, "prompt must be a class label, got '4'; allowed: 0..3"),
        (422, "prompt", {}, "prompt must be a class label, got none"),
        (422, "prompt", {"prompt": 3}, "prompt must be a valid string, got 3"),
        (422, "prompt", {"prompt": "x" * 201}, "prompt must have at most 200 characters"),
        (422, "n", {"prompt": "1", "n": 0}, "n must be greater than or equal to 1, got 0"),
        (422, "n", {"prompt": "1", "n": 65}, "n must be less than or equal to 64, got 65"),
        (422, "n", {"prompt": "1", "n": 1.5}, "n must be a valid integer"),
        (422, "n", {"prompt": "1", "n": "many"}, "n must be a valid integer"),
        (422, "n", {"prompt": "1", "n": True}, "n must be a valid integer, got True"),
        (422, "guidance", {"prompt": "1", "guidance": True}, "guidance must be a number, got True"),
        (422, "size", {"prompt": "1", "size": "1024x1024"}, "size must be 8x8"),
        (422, "size", {"prompt": "1", "size": "big"}, "size must be 8x8"),
        (422, "seed", {"prompt": "1", "seed": -1}, "seed must be greater than or equal to 0"),
        (422, "seed", {"prompt": "1", "seed": 2**53}, "seed must be less than or equal to"),
        (422, "steps", {"prompt": "1", "steps": 3}, "got 3; allowed: 1, 2, 4"),
        (422, "steps", {"prompt": "1", "steps": 0}, "steps must be greater than or equal to 1"),
        (
            422,
            "response_format",
            {"prompt": "1", "response_format": "file"},
            "'b64_json' or 'url', got 'file'",
        ),
        (
            422,
            "style",
            {"prompt": "1", "style": "vivid"},
            "unknown field 'style'; allowed: model",
        ),
        (
            404,
            "model",
            {"prompt": "1", "model": "../etc"},
            "got '../etc'; allowed: champion, digits",
        ),
        (422, None, [1], "the body must be a JSON object with the header"),
    ],
)
def test_a_bad_request_is_refused_in_one_sentence(
    status: int, param: str | None, body: object, message: str
) -> None:
    answer = post(body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert message in error["message"]
    assert "\n" not in error["message"]
    assert (error["param"], error["code"]) == (param, {404: "model_not_found"}.get(status))
    assert error["type"] == "invalid_request_error"


def test_a_path_or_verb_that_there_is_not_is_refused_in_the_same_shape() -> None:
    for method, path, status in (("GET", "/v2", 404), ("DELETE", "/v1/models", 405)):
        answer = with_client(lambda client, m=method, p=path: client.request(m, p))
        assert answer.status_code == status
        assert answer.json()["error"]["message"] == f"there is no {method} {path}; see /docs"


@pytest.mark.parametrize(
    ("path", "verbs"),
    [
        ("/v1/generate", "POST"),
        ("/v1/models/digits/3", "GET"),
        ("/docs", "GET"),
        ("/readyz", "GET, HEAD"),
    ],
)
def test_a_verb_that_there_is_not_is_told_those_that_there_are(path: str, verbs: str) -> None:
    answer = with_client(lambda client: client.delete(path))
    assert answer.status_code == 405
    assert answer.headers["Allow"] == verbs
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_probe_may_ask_for_the_head_alone(path: str) -> None:
    with listening(service()) as url:
        answer = httpx.head(f"{url}{path}")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("path", ["/docs/", "/v1/models/", "/v1/generate/"])
def test_no_path_leads_to_an_address_that_the_client_names(path: str) -> None:
    ask = {"headers": {"Host": "evil.example"}}
    answer = with_client(lambda client: client.get(path, **ask))
    assert answer.status_code in (404, 405)
    assert "evil.example" not in f"{answer.headers}{answer.text}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "must be JSON, got text that is not"),
        (b"", "must be a JSON object, got nothing"),
        (b'{"prompt": "\xff"}', "must be JSON in UTF-8"),
        (b"[" * 100_000, "must be JSON in UTF-8"),
        (b'{"prompt": "1", "n": ' + b"9" * 5000 + b"}", "must be JSON in UTF-8"),
    ],
    ids=["cut off", "empty", "no UTF-8", "deep", "long number"],
)
def test_a_body_that_is_no_json_is_refused(content: bytes, message: str) -> None:
    answer = with_client(
        lambda client: client.post(
            GENERATIONS, content=content, headers={"Content-Type": "application/json"}
        )
    )
    assert answer.status_code == 422
    assert message in answer.json()["error"]["message"]


def test_as_many_requests_wait_as_may_and_the_next_is_refused() -> None:
    began, gate = threading.Event(), threading.Event()
    net = unet()
    held = EngineService(
        Engine(net, record_of(net=UNET_NODE), bucket=4),
        name="champion",
        version="digits/3",
        max_waiting=3,
    )

    def hold(*call: object) -> None:
        del call
        began.set()
        assert gate.wait(timeout=10)

    net.register_forward_pre_hook(hold)

    async def ask(client: httpx.AsyncClient) -> tuple[list[httpx.Response], list[httpx.Response]]:
        def post() -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(client.post(GENERATIONS, json={"prompt": "1"}))

        running = post()
        assert await asyncio.to_thread(began.wait, 10)
        asked = [post() for _ in range(3 + 1)]
        answered, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        gate.set()
        return [task.result() for task in answered], await asyncio.gather(running, *waiting)

    (refused,), served = with_client(ask, over=held)
    assert [answer.status_code for answer in served] == [200] * 4
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["error"] == {
        "message": "3 requests wait already; try again in a second",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }


def test_overload_is_refused_with_a_time_to_wait() -> None:
    async def flood(client: httpx.AsyncClient) -> list[httpx.Response]:
        # Each fills a forward of its own.
        bodies = [{"prompt": "1", "n": 4}] * 8
        return list(await asyncio.gather(*(client.post(GENERATIONS, json=b) for b in bodies)))

    answers = with_client(flood, over=service(max_waiting=1))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 0 < len(refused) < len(answers)
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(answer.headers["Retry-After"] == "1" for answer in refused)
    assert "wait already" in refused[0].json()["error"]["message"]


def test_concurrent_requests_get_the_images_that_they_get_alone() -> None:
    def real() -> EngineService:
        engine = Engine(unet(), record_of(net=UNET_NODE), bucket=4)
        return EngineService(engine, name="champion", version="digits/3")

    bodies = [{"prompt": str(k % 4), "seed": k % 3, "n": 1 + k % 5} for k in range(24)]

    async def together(client: httpx.AsyncClient) -> list[Any]:
        answers = await asyncio.gather(*(client.post(GENERATIONS, json=body) for body in bodies))
        return [answer.json()["data"] for answer in answers]

    crowd = with_client(together, over=real())
    for body, data in list(zip(bodies, crowd, strict=True))[::5]:
        assert post(body, over=real()).json()["data"] == data


def test_models_tells_what_may_be_asked_for() -> None:
    body = get("/v1/models").json()
    (card,) = body["data"]
    assert body["object"] == "list"
    assert isinstance(card.pop("created"), int)
    assert card == {
        "id": "champion",
        "object": "model",
        "owned_by": "digits",
        "version": "digits/3",
        "method": "MeanFlow",
        "size": "8x8",
        "labels": ["zero", "one", "two", "three"],
        "steps": [1, 2, 4],
        "default_steps": 1,
        "default_guidance": None,
        "classes": 4,
        "shape": [1, 8, 8],
        "noise_shape": [1, 8, 8],
        "parents": {},
        "lineage": [],
        "card": None,
        "metrics": {},
        "nfe_curve": {},
        "problem": None,
        "canary": None,
    }
    assert body["missing"] == {}


def test_health_names_the_version() -> None:
    assert get("/healthz").json() == {"status": "ok", "model": "digits/3"}


class Broken:
    """A service whose replica dies of what nobody foresaw."""

    async def describe(self) -> ModelList:
        raise RuntimeError("secret of the inside")

    async def missing(self) -> list[str]:
        raise RuntimeError("secret of the inside")

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        raise RuntimeError("secret of the inside")

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        raise RuntimeError("secret of the inside")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", GENERATIONS])
def test_what_nobody_foresaw_is_logged_and_answered_in_the_same_shape(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    verb, body = ("POST", {"prompt": "1"}) if path == GENERATIONS else ("GET", None)
    answer = with_client(lambda client: client.request(verb, path, json=body), over=Broken())
    assert answer.status_code == 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.json()["error"] == {
        "message": "the server failed to answer; its log says why",
        "type": "server_error",
        "param": None,
        "code": "server_error",
    }
    (logged,) = (record for record in caplog.records if record.name == "onestep.serving.journal")
    request_id = answer.headers["X-Request-Id"]
    assert logged.getMessage() == f"{verb} {path} failed, request {request_id}"
    assert logged.exc_info is not None
    assert "secret of the inside" in str(logged.exc_info[1])


class Strict:
    """A service that refuses in the words of the framework."""

    async def describe(self) -> ModelList:
        raise HTTPException(413, "the body is too large")

    async def missing(self) -> list[str]:
        raise HTTPException(413, "the body is too large")

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        raise HTTPException(413, "the body is too large")

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        raise HTTPException(413, "the body is too large")


def test_what_the_framework_refuses_keeps_its_status_and_its_reason() -> None:
    answer = with_client(lambda client: client.get("/healthz"), over=Strict())
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == "the body is too large"


class Away:
    """A service none of whose replicas answers."""

    async def describe(self) -> ModelList:
        raise RequestRefused("no model is ready; try again in a second", status=503)

    async def missing(self) -> list[str]:
        return ["champion", "digits/3"]

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        return refusal(RequestRefused("no model is ready; try again in a second", status=503))

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        return refusal(RequestRefused("no model is ready; try again in a second", status=503))


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models"])
def test_a_server_without_a_replica_is_not_healthy(path: str) -> None:
    answer = with_client(lambda client: client.get(path), over=Away())
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "server_error"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_pages_and_their_parts_come_from_here_and_hold_nothing_inline(path: str) -> None:
    page = get(path)
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.search(r"<script>|<style|style=|://", page.text) is None
    parts = re.findall(r'(?:src|href)="([\w.]+\.(?:js|css))"', page.text)
    assert len(parts) == 2
    for part in parts:
        answer = get(f"/{part}")
        media = "text/javascript" if part.endswith("js") else "text/css"
        assert answer.headers["Content-Type"].startswith(media)
        assert "://" not in answer.text


def test_the_schema_keeps_the_limits_and_documents_every_refusal() -> None:
    schema = get("/openapi.json").json()
    fields = schema["components"]["schemas"]["ImagesRequest"]["properties"]
    (n,) = [part for part in fields["n"]["anyOf"] if part["type"] == "integer"]
    assert (n["minimum"], n["maximum"]) == (1, 64)
    (seed,) = [part for part in fields["seed"]["anyOf"] if part["type"] == "integer"]
    assert (seed["minimum"], seed["maximum"]) == (0, 2**53 - 1)
    assert schema["components"]["schemas"]["ImagesRequest"]["additionalProperties"] is False
    assert set(schema["paths"]) == {
        "/healthz",
        "/readyz",
        "/v1/models",
        "/v1/models/{name}",
        "/v1/images/{name}/{version}/{seed}/{k}.{form}",
        "/v1/generate",
        GENERATIONS,
    }
    responses = schema["paths"][GENERATIONS]["post"]["responses"]
    assert set(responses) == {"200", "404", "408", "413", "422", "429", "500", "503"}
    for status in sorted(set(responses) - {"200"}):
        reference = responses[status]["content"]["application/json"]["schema"]["$ref"]
        assert reference.endswith("/Refusal")
