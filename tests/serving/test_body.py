import asyncio
import json
import select
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Final

import httpx
import pytest
import uvicorn

from onestep.serving.api import build_api
from onestep.serving.engine import Engine
from onestep.serving.service import EngineService
from onestep.serving.settings import AppSettings
from onestep.tests.serving.model import gaussian, record_of

GENERATIONS: Final = "/v1/images/generations"
JSON: Final = {"Content-Type": "application/json"}
ASKED: Final = b'{"prompt": "1", "seed": 0}'
MB: Final = 10**6


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """A server of HTTP that takes bodies of one megabyte and waits a second for them."""
    service = EngineService(Engine(gaussian(), record_of(), bucket=4), name="c", version="d/3")
    api = build_api(service, AppSettings(max_body_mb=1, body_timeout_s=1.0))
    server = uvicorn.Server(uvicorn.Config(api, port=0, log_config=None, lifespan="off"))
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield listening.getsockname()[:2]
        server.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive()


def say(address: tuple[str, int], *parts: bytes, pause_s: float = 0.0) -> tuple[int, dict]:
    """Sends bytes as they are and returns status and JSON of the answer."""
    with socket.create_connection(address, timeout=10) as client:
        for part in parts:
            client.sendall(part)
            if select.select([client], [], [], pause_s)[0]:  # answered before it was all sent
                break
        answer = b""
        while b"\r\n\r\n" not in answer or not _whole(answer):
            piece = client.recv(65536)
            if not piece:
                break
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def _whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    return len(body) >= int(length.split(b":")[1])


def head(*lines: str) -> bytes:
    first = (f"POST {GENERATIONS} HTTP/1.1", "Host: x", "Content-Type: application/json")
    return "\r\n".join([*first, *lines, "", ""]).encode()


def chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def test_a_body_in_chunks_is_read(address: tuple[str, int]) -> None:
    parts = (head("Transfer-Encoding: chunked"), chunk(ASKED[:5]), chunk(ASKED[5:]), chunk(b""))
    status, answer = say(address, *parts)
    assert (status, len(answer["data"])) == (200, 1)


def test_a_large_body_in_chunks_is_refused_before_it_ends(address: tuple[str, int]) -> None:
    parts = [head("Transfer-Encoding: chunked"), *[chunk(b" " * 100_000)] * 11]  # and no end
    status, answer = say(address, *parts)
    assert status == 413
    assert answer["error"]["message"] == "the body must be at most 1 MB, got more"
    assert answer["error"]["type"] == "invalid_request_error"


def test_a_length_beyond_the_bound_is_refused_unread(address: tuple[str, int]) -> None:
    status, _ = say(address, head(f"Content-Length: {MB + 1}"))
    assert status == 413
    status, _ = say(address, head(f"Content-Length: {'9' * 18}"))
    assert status == 413


def test_a_body_shorter_than_it_claims_is_given_up(address: tuple[str, int]) -> None:
    begin = time.monotonic()
    status, answer = say(address, head(f"Content-Length: {len(ASKED) + 1}"), ASKED)
    assert status == 408
    assert answer["error"]["message"] == "the body must be there within 1 s, got a part of it"
    assert 0.9 <= time.monotonic() - begin < 6.0


def test_a_body_that_drips_is_given_up_as_one_that_stalls(address: tuple[str, int]) -> None:
    parts = [bytes([byte]) for byte in ASKED]  # which would be there after two seconds
    status, _ = say(address, head(f"Content-Length: {len(ASKED)}"), *parts, pause_s=0.08)
    assert status == 408


def ask(*, content: bytes | AsyncIterator[bytes], headers: dict[str, str]) -> httpx.Response:
    async def run() -> httpx.Response:
        service = EngineService(Engine(gaussian(), record_of(), bucket=4), name="c", version="d/3")
        transport = httpx.ASGITransport(build_api(service, AppSettings(max_body_mb=1)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(GENERATIONS, content=content, headers=JSON | headers)

    return asyncio.run(run())


async def pieces(size: int) -> AsyncIterator[bytes]:
    yield ASKED
    for begin in range(len(ASKED), size, 1000):
        yield b" " * min(1000, size - begin)


@pytest.mark.parametrize(("size", "status"), [(MB, 200), (MB + 1, 413)])
def test_bytes_are_counted_and_not_believed(size: int, status: int) -> None:
    assert ask(content=pieces(size), headers={}).status_code == status
    lying = {"Content-Length": "10"}
    assert ask(content=ASKED + b" " * (size - len(ASKED)), headers=lying).status_code == status


def test_no_other_site_may_read_an_answer(address: tuple[str, int]) -> None:
    url = f"http://{address[0]}:{address[1]}"
    origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for method, path in (("GET", "/v1/models"), ("OPTIONS", GENERATIONS), ("POST", GENERATIONS)):
        answer = httpx.request(method, f"{url}{path}", headers=origin)
        assert not [name for name in answer.headers if name.startswith("access-control")]
