import asyncio
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from onestep.serving.access_log import ACCESS, check_access_file
from onestep.serving.api import build_api
from onestep.serving.engine import Engine
from onestep.serving.journal import Journal
from onestep.serving.keys import add_key
from onestep.serving.meter import Meter
from onestep.serving.native import GenerateRequest, Made
from onestep.serving.schema import ImagesRequest, ImagesResponse, ModelList, Refusal
from onestep.serving.service import EngineService, Service
from onestep.serving.settings import AppSettings
from onestep.serving.tally import Tally
from onestep.tests.serving.model import gaussian, record_of

GENERATIONS: Final = "/v1/images/generations"


class Hostile:
    """A service whose errors tell all that should stay inside."""

    async def describe(self) -> ModelList:
        return _fail()

    async def missing(self) -> list[str]:
        return _fail()

    async def tally(self) -> list[Tally]:
        return _fail()

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        return _fail()

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        return _fail()


def _fail() -> Any:
    raise OSError(13, "Permission denied\r\nSet-Cookie: a=b", "/srv/secret/weights.safetensors")


def served() -> EngineService:
    return EngineService(Engine(gaussian(), record_of(), bucket=4), name="c", version="digits/3")


def ask(
    method: str,
    path: str,
    *,
    over: Service | None = None,
    settings: AppSettings | None = None,
    **request: Any,
) -> httpx.Response:
    async def run() -> httpx.Response:
        api = build_api(over or served(), settings or AppSettings())
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **request)

    return asyncio.run(run())


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The access log as it is written."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(handler.format(record))  # type: ignore[method-assign]
    ACCESS.addHandler(handler)
    yield found
    ACCESS.removeHandler(handler)


@pytest.mark.parametrize("name", ["a", "0b-9_.Z", "x" * 64])
def test_a_client_names_its_request(name: str, lines: list[str]) -> None:
    answer = ask("GET", "/v1/models", headers={"X-Request-Id": name})
    assert answer.headers.get_list("X-Request-Id") == [name]
    assert json.loads(lines[0])["id"] == name


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", 'a"b', "a\u00e4", "a\tb", "a/b"])
def test_another_name_is_replaced_by_a_new_one(name: str, lines: list[str]) -> None:
    seen = {
        ask("GET", path, headers={"X-Request-Id": name.encode()}).headers["X-Request-Id"]
        for path in ("/", "/nowhere")
    }
    assert len(seen) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in seen)
    assert {json.loads(line)["id"] for line in lines} == seen


def test_a_line_tells_who_asked_for_what_and_what_it_took(lines: list[str], tmp_path: Any) -> None:
    path = tmp_path / "keys.yaml"
    token = add_key(path, "ada")
    answer = ask(
        "POST",
        f"{GENERATIONS}?token=SECRET",
        settings=AppSettings(keys=str(path)),
        json={"prompt": "1", "n": 2, "steps": 1},
        headers={"Authorization": f"Bearer {token}"},
    )
    (text,) = lines
    line = json.loads(text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert 0 < line.pop("ms") < 10_000
    assert line == {
        "id": answer.headers["X-Request-Id"],
        "method": "POST",
        "route": GENERATIONS,
        "status": 200,
        "key": "ada",
        "model": "digits/3",
        "n": 2,
        "steps": 1,
        "bytes": len(answer.content),
    }
    assert token not in text
    assert "SECRET" not in text
    assert "prompt" not in text


def test_a_file_of_images_has_a_line_too(lines: list[str]) -> None:
    ask("POST", "/v1/generate", json={"labels": [1, 2, 3], "format": "grid"})
    line = json.loads(lines[0])
    assert (line["model"], line["n"], line["steps"]) == ("digits/3", 3, 1)


def test_no_request_can_forge_a_line(lines: list[str], caplog: pytest.LogCaptureFixture) -> None:
    forged = '%0A{"status": 200}%0D%0A'
    ask("GET", f"/{forged}")
    ask("GET", "/v1/models?a=%0Ab")
    ask("POST", GENERATIONS, json={"prompt": 'x\n{"status": 200}', "model": "\n"})
    assert len(lines) == 3
    assert not [line for line in lines if "\n" in line or "\r" in line]
    assert [json.loads(line)["route"] for line in lines] == ["unknown", "/v1/models", GENERATIONS]
    assert [json.loads(line)["status"] for line in lines] == [404, 200, 404]
    messages = [record.getMessage() for record in caplog.records]
    assert not [message for message in messages if "\n" in message]


def test_the_log_reaches_stderr_once_or_not_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    ask("GET", "/healthz")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["route"] == "/healthz"
    ask("GET", "/healthz", settings=AppSettings(access_log=False))
    assert capsys.readouterr().err == ""


def test_the_log_goes_to_a_file_that_may_be_moved_away(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "access.log"
    file.write_text("what was there\n")
    settings = AppSettings(access_file=str(file))
    ask("GET", "/healthz", settings=settings)
    moved = file.rename(tmp_path / "access.log.1")
    ask("GET", "/readyz", settings=settings)
    first, line = moved.read_text().splitlines()
    assert (first, json.loads(line)["route"]) == ("what was there", "/healthz")
    assert json.loads(file.read_text())["route"] == "/readyz"
    assert capsys.readouterr().err == ""
    ask("GET", "/healthz")
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert len(file.read_text().splitlines()) == 1


def test_lines_that_a_full_disk_takes_are_told_of_once(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        ask("GET", "/healthz", settings=AppSettings(access_file="/dev/full"))
    (line,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert line == "lines of the access log are lost: [Errno 28] No space left on device"
    assert capsys.readouterr().err == ""
    ask("GET", "/healthz")  # the file is closed, too, without a word


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    check_access_file(None)
    check_access_file(str(tmp_path / "new.log"))
    wanted = rf"^serve.access_file must be a file that can be written, got {tmp_path}: Is a direct"
    with pytest.raises(ValueError, match=wanted):
        check_access_file(str(tmp_path))


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/healthz"), ("GET", "/metrics"), ("GET", "/v1/models"), ("POST", GENERATIONS)],
)
def test_a_hostile_error_stays_in_the_log_under_the_id_of_the_request(
    method: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"prompt": "1"} if method == "POST" else None
    answer = ask(method, path, over=Hostile(), json=body, headers={"X-Request-Id": "mine"})
    assert answer.status_code == 500
    whole = answer.text + str(answer.headers)
    for inside in ("/srv", "secret", "weights", "Permission", "Traceback", "OSError", "cookie"):
        assert inside not in whole.lower() + whole
    (record,) = (one for one in caplog.records if one.name == "onestep.serving.journal")
    assert record.getMessage() == f"{method} {path} failed, request mine"
    assert record.exc_info is not None


def test_the_path_of_a_failed_request_is_logged_as_it_was_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(*call: object) -> None:
        raise RuntimeError

    async def run() -> httpx.Response:
        journal = Journal(fail, headers={}, meter=Meter("local"), access_log=False)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(journal), base_url="http://test"
        ) as client:
            return await client.get("/a%0AERROR%20forged")

    assert asyncio.run(run()).status_code == 500
    (record,) = caplog.records
    assert record.getMessage().startswith("GET /a%0AERROR%20forged failed")


def test_headers_of_every_answer_take_the_place_of_its_own() -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-request-id", b"own"), (b"Referrer-Policy", b"own"), (b"x-kept", b"own")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> httpx.Response:
        ours = {"Referrer-Policy": "no-referrer"}
        journal = Journal(answer, headers=ours, meter=Meter("local"), access_log=False)
        transport = httpx.ASGITransport(journal)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/", headers={"X-Request-Id": "mine"})

    headers = asyncio.run(run()).headers
    assert headers.get_list("x-request-id") == ["mine"]
    assert headers.get_list("referrer-policy") == ["no-referrer"]
    assert headers.get_list("x-kept") == ["own"]
