"""The lines of docs/serving.md, run against a service, and the example that uses the client."""

import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from onestep.examples.ask_a_service import main
from onestep.methods.core.noise import draw_noise
from onestep.serving.api import build_api
from onestep.serving.engine import Engine
from onestep.serving.service import EngineService
from onestep.tests.serving.listening import listening
from onestep.tests.serving.model import MEAN, SHAPE, STD, gaussian, record_of

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def service() -> EngineService:
    names = [str(k) for k in range(10)]
    engine = Engine(gaussian(classes=10), record_of(classes=10, label_names=tuple(names)))
    return EngineService(engine, name="champion", version="digits/1")


def lines() -> list[str]:
    """The curl lines of the page, each in one piece."""
    text = PAGE.read_text().replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.startswith("    curl ")]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(service()) as url:
        yield url


def run(line: str, folder: Path) -> bytes:
    """What a line prints or writes, by curl itself where it is installed."""
    words = shlex.split(line)
    out = folder / words[words.index("-o") + 1] if "-o" in words else None
    if shutil.which("curl") is None:
        (address,) = (word for word in words if word.startswith("http"))
        body = words[words.index("-d") + 1].encode() if "-d" in words else None
        headers = {"Content-Type": "application/json"} if body else {}
        answer = httpx.request("POST" if body else "GET", address, content=body, headers=headers)
        return answer.raise_for_status().content
    done = subprocess.run([*words, "--fail"], cwd=folder, capture_output=True, check=True)
    return out.read_bytes() if out else done.stdout


def checked(content: bytes) -> str:
    """What a file is, by what opens it."""
    if content.startswith(b"\x93NUMPY"):
        return f"npy {np.load(io.BytesIO(content)).shape}"
    if content.startswith(b"<!doctype html>"):
        return "page"
    if content.startswith(b"# HELP"):
        return "metrics"
    if content.startswith(b"{"):
        return "object " + " ".join(sorted(json.loads(content))[:3])
    with Image.open(io.BytesIO(content)) as image:
        return f"{image.format} {image.size}"


def test_every_line_of_the_page_does_what_it_says(url: str, tmp_path: Path) -> None:
    found = [checked(run(line.replace("localhost:8000", url), tmp_path)) for line in lines()]
    assert found == [
        "object created data guidance",
        "object created data guidance",
        "WEBP (8, 8)",
        "PNG (8, 8)",
        "object data missing object",
        "object canary card classes",
        "object status",
        "object model status",
        "metrics",
        "page",
        "page",
        "object components info openapi",
        "object created data guidance",
        "object created data guidance",
        "npy (2, 1, 8, 8)",
        "npy (1000, 1, 8, 8)",
        "object data missing object",
    ]


def routes(api: FastAPI) -> Iterator[tuple[str, re.Pattern[str]]]:
    for path, methods in [*api.openapi()["paths"].items(), ("/", {"get"}), ("/docs", {"get"})]:
        shape = re.sub(r"\{[^}]*\}", "[^?]+", path)
        yield from ((method, re.compile(rf"localhost:8000{shape}(\?.*)?")) for method in methods)


def test_every_route_has_a_line() -> None:
    words = [shlex.split(line) for line in lines()]
    for method, path in routes(build_api(service())):
        assert any(
            path.fullmatch(word) and (method == "post") == ("-d" in line)
            for line in words
            for word in line
        ), f"{method} {path.pattern}"


def test_every_body_and_every_answer_has_an_example_and_those_of_bodies_are_served(
    url: str,
) -> None:
    schema = httpx.get(f"{url}/openapi.json").json()
    shapes = schema["components"]["schemas"]
    bodies = 0
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if method == "post":
                (content,) = operation["requestBody"]["content"].values()
                (*_, name) = content["schema"]["$ref"].split("/")
                for body in shapes[name]["examples"]:
                    answer = httpx.post(f"{url}{path}", json=body)
                    assert answer.status_code == 200, f"{body}: {answer.text}"
                    bodies += 1
            for status, answer in operation["responses"].items():
                for media, content in answer.get("content", {}).items():
                    if media == "application/json":
                        (*_, name) = content["schema"]["$ref"].split("/")
                        assert shapes[name].get("examples"), f"{path} {status} {name}"
    assert bodies >= 4


def test_the_example_writes_pictures_and_says_what_the_mean_is(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--url", url, "--prompt", "3", "--n", "100", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"3-0-{k}.png" for k in range(4)]
    mean = float((MEAN + STD * draw_noise(100, SHAPE, seed=0)).double().mean())
    said = capsys.readouterr().out
    assert "champion is digits/1: 8x8" in said
    assert said.endswith(f"mean level of 100 images: {mean:+.4f}\n")
    assert main(["--url", url, "--prompt", "12"]) == 1
    assert "got '12'" in capsys.readouterr().err
