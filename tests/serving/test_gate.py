import asyncio
import base64
import io
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import numpy as np
import pytest

from onestep.serving.api import build_api
from onestep.serving.engine import Engine
from onestep.serving.keys import add_key, remove_key
from onestep.serving.quota import Quota
from onestep.serving.service import EngineService
from onestep.serving.settings import AppSettings
from onestep.tests.serving.model import gaussian, record_of

GENERATIONS: Final = "/v1/images/generations"
T = TypeVar("T")
Work = Callable[[httpx.AsyncClient], Awaitable[T]]


def served(work: Work[T], **settings: Any) -> T:
    """What a client finds at an application with these settings."""

    async def run() -> T:
        engine = EngineService(Engine(gaussian(), record_of(), bucket=4), name="c", version="d/3")
        transport = httpx.ASGITransport(build_api(engine, AppSettings(**settings)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await work(client)

    return asyncio.run(run())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_a_missing_key_and_a_wrong_one_get_the_same_refusal(keys: Path) -> None:
    token = add_key(keys, "ada")
    wrong: list[list[tuple[str, str]]] = [
        [],
        [("Authorization", "Bearer ")],
        [("Authorization", f"Bearer {token}x")],
        [("Authorization", f"Basic {token}")],
        [("Authorization", f"Digest {token}")],
        [("Authorization", token)],
        [("Authorization", f"Bearer {token}"), ("Authorization", "Bearer x")],
        [("X-Api-Key", token)],
    ]

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.get("/v1/models", headers=headers) for headers in wrong]

    answers = served(work, keys=str(keys))
    assert {answer.text for answer in answers} == {answers[0].text}
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    error = answers[0].json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")


def test_a_key_opens_everything_and_pages_and_probes_need_none(keys: Path) -> None:
    token = add_key(keys, "ada")
    paths = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")
    closed = ("/metrics", "/v1/models", "/nowhere", "/docs/", "/healthz/x", "/v1//models")

    async def work(client: httpx.AsyncClient) -> list[list[int]]:
        bare = [(await client.get(path)).status_code for path in (*paths, *closed)]
        opened = [
            (await client.get(path, headers=bearer(token))).status_code
            for path in ("/metrics", "/v1/models", "/nowhere")
        ]
        made = await client.post(GENERATIONS, json={"prompt": "1"}, headers=bearer(token))
        return [bare, opened, [made.status_code]]

    bare, opened, made = served(work, keys=str(keys))
    assert bare == [200] * len(paths) + [401] * len(closed)
    assert (opened, made) == ([200, 200, 404], [200])


def test_a_path_below_a_prefix_is_open_or_closed_as_without(keys: Path) -> None:
    add_key(keys, "ada")

    async def run() -> list[int]:
        engine = EngineService(Engine(gaussian(), record_of(), bucket=4), name="c", version="d/3")
        api = build_api(engine, AppSettings(keys=str(keys)))
        transport = httpx.ASGITransport(api, root_path="/images")
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            paths = ("/images/healthz", "/images/v1/models", "/imageshealthz")
            return [(await client.get(path)).status_code for path in paths]

    assert asyncio.run(run()) == [200, 401, 401]


def test_without_keys_nobody_is_asked_and_the_schema_declares_none(keys: Path) -> None:
    token = add_key(keys, "ada")

    async def work(client: httpx.AsyncClient) -> dict[str, Any]:
        assert (await client.get("/v1/models")).status_code == 200
        return (await client.get("/openapi.json")).json()

    async def closed(client: httpx.AsyncClient) -> dict[str, Any]:
        assert (await client.get("/v1/models", headers=bearer(token))).status_code == 200
        return (await client.get("/openapi.json")).json()

    plain, keyed = served(work), served(closed, keys=str(keys))
    assert "securitySchemes" not in plain["components"]
    assert not [op for ops in plain["paths"].values() for op in ops.values() if "security" in op]
    assert keyed["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    asked = {p for p, ops in keyed["paths"].items() for op in ops.values() if "security" in op}
    assert asked == set(keyed["paths"]) - {"/healthz", "/readyz"}
    assert "401" in keyed["paths"][GENERATIONS]["post"]["responses"]


def test_a_removed_key_opens_nothing_within_a_second(keys: Path) -> None:
    token = add_key(keys, "ada")

    async def work(client: httpx.AsyncClient) -> list[int]:
        first = await client.get("/v1/models", headers=bearer(token))
        remove_key(keys, "ada")
        await asyncio.sleep(1.05)
        then = await client.get("/v1/models", headers=bearer(token))
        return [first.status_code, then.status_code]

    assert served(work, keys=str(keys)) == [200, 401]


def test_images_are_counted_by_key_and_refused_with_the_true_time_to_wait(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = add_key(keys, "ada", images_per_minute=10), add_key(keys, "bob")
    now = [time.time()]
    monkeypatch.setattr(time, "time", lambda: now[0])

    async def work(client: httpx.AsyncClient) -> None:
        async def ask(token: str, n: int) -> httpx.Response:
            body = {"prompt": "1", "n": n}
            return await client.post(GENERATIONS, json=body, headers=bearer(token))

        assert (await ask(ada, 4)).status_code == 200
        now[0] += 20.0
        assert (await ask(ada, 6)).status_code == 200
        assert (await ask(bob, 11)).status_code == 200
        too_many = await ask(ada, 11)
        assert (too_many.status_code, too_many.json()["error"]["param"]) == (422, "n")
        for n, wait_s in ((1, 41), (4, 41), (5, 61)):
            refused = await ask(ada, n)
            assert refused.status_code == 429
            assert refused.headers["Retry-After"] == str(wait_s)
            assert refused.json()["error"]["type"] == "rate_limit_error"
            assert "10 images in a minute" in refused.json()["error"]["message"]
        now[0] += 39.9
        assert (await ask(ada, 1)).status_code == 429
        now[0] += 1.1
        assert (await ask(ada, 4)).status_code == 200
        assert (await ask(ada, 1)).status_code == 429

    served(work, keys=str(keys))


@pytest.mark.parametrize(
    ("body", "n"),
    [
        ({"labels": 1}, 1),
        ({"labels": [1, 2, 3]}, 3),
        ({"labels": 1, "n": 4}, 4),
        ({"labels": 1, "seeds": [5, 6]}, 2),
        ({"labels": 1, "noise": 5}, 5),
    ],
)
def test_images_of_a_file_are_counted_however_they_are_asked_for(
    keys: Path, body: dict[str, Any], n: int
) -> None:
    token = add_key(keys, "ada", images_per_minute=n)
    if "noise" in body:
        body = body | {"noise": noise(n)}

    async def work(client: httpx.AsyncClient) -> list[int]:
        sent = {**body, "format": "npy"}
        first = await client.post("/v1/generate", json=sent, headers=bearer(token))
        assert first.headers["X-Onestep-N"] == str(n)
        one = {"prompt": "1"}
        then = await client.post(GENERATIONS, json=one, headers=bearer(token))
        return [first.status_code, then.status_code]

    assert served(work, keys=str(keys)) == [200, 429]


def noise(n: int) -> str:
    file = io.BytesIO()
    np.save(file, np.zeros((n, 1, 8, 8), dtype=np.float32))
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("padding", [200, 2000])
def test_a_long_header_of_noise_hides_no_images_from_the_count(keys: Path, padding: int) -> None:
    token = add_key(keys, "ada", images_per_minute=3)
    plain = base64.b64decode(noise(4))
    header = plain[10:128].rstrip() + b" " * padding + b"\n"
    padded = plain[:8] + len(header).to_bytes(2, "little") + header + plain[128:]
    body = {"labels": 1, "noise": base64.b64encode(padded).decode(), "format": "npy"}

    async def work(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/generate", json=body, headers=bearer(token))

    answer = served(work, keys=str(keys))
    param = "n" if padding == 200 else "noise"  # a longer one is refused as no file
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


def test_requests_are_counted_by_key(keys: Path) -> None:
    token = add_key(keys, "ada", requests_per_minute=3)

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.get("/v1/models", headers=bearer(token)) for _ in range(4)]

    *served_ones, refused = served(work, keys=str(keys))
    assert [answer.status_code for answer in served_ones] == [200] * 3
    assert refused.status_code == 429
    assert 58 <= int(refused.headers["Retry-After"]) <= 61


def test_an_invalid_request_costs_no_images(keys: Path) -> None:
    token = add_key(keys, "ada", images_per_minute=1)

    async def work(client: httpx.AsyncClient) -> list[int]:
        bodies = [{"prompt": "1", "n": 1, "x": 1}, {"prompt": "1", "n": 1}]
        return [
            (await client.post(GENERATIONS, json=body, headers=bearer(token))).status_code
            for body in bodies
        ]

    assert served(work, keys=str(keys)) == [422, 200]


def test_a_minute_is_one_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """No burst of twice the limit fits around the turn of a minute."""
    now = [time.time() // 60 * 60 + 59.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    quota = Quota()
    assert quota.take("images", "ada", cost=10, limit=10) == 0
    now[0] += 2.0
    assert quota.take("images", "ada", cost=1, limit=10) == 59
    assert quota.take("images", "bob", cost=1, limit=10) == 0
    assert quota.take("requests", "ada", cost=1, limit=10) == 0


def test_a_bound_that_is_changed_forgets_no_use() -> None:
    quota = Quota()
    assert quota.take("images", "ada", cost=10, limit=10) == 0
    assert quota.take("images", "ada", cost=1, limit=5) > 0
    assert quota.take("images", "ada", cost=5, limit=15) == 0
    assert quota.take("images", "ada", cost=1, limit=15) > 0
