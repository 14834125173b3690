"""Every client of the service, one after the other, before the same service: they see the same."""

import base64
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Final

import numpy as np
import pytest
from openai import OpenAI
from PIL import Image
from playwright.sync_api import sync_playwright

from onestep.serving.client import Client
from onestep.tests.serving.page_server import served

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM: Final = next(filter(None, map(shutil.which, BROWSERS)), None)
MODEL, LABEL, SEED, N = "champion", 2, 7, 3


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served() as address:
        yield address


def levels(file: bytes) -> np.ndarray:
    """Grey levels of a picture."""
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("L"))


def of_openai(url: str) -> np.ndarray:
    with OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        (model, *_) = client.models.list().data
        assert model.id == MODEL
        answer = client.images.generate(
            model=MODEL, prompt=str(LABEL), n=N, extra_body={"seed": SEED}
        )
    assert answer.data is not None
    return np.stack([levels(base64.b64decode(data.b64_json or "")) for data in answer.data])


def of_curl(url: str) -> np.ndarray:
    body = {"model": MODEL, "labels": LABEL, "n": N, "seed": SEED, "format": "npy"}
    told = ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(
        ["curl", "-s", "--fail", f"{url}/v1/generate", *told], capture_output=True, check=True
    )
    return np.load(io.BytesIO(done.stdout))


def of_the_page(url: str) -> np.ndarray:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page()
        page.goto(f"{url}/#model={MODEL}&labels={LABEL}&n={N}&seed={SEED}")
        images = page.locator(f"[data-model={MODEL}][aria-busy=false] img")
        images.nth(N - 1).wait_for(timeout=20_000)
        sources = [str(image.get_attribute("src")) for image in images.all()]
        browser.close()
    return np.stack([levels(base64.b64decode(one.partition(",")[2])) for one in sources])


def test_all_four_clients_get_the_same_images(url: str) -> None:
    with Client(url) as client:
        native = client.generate(LABEL, n=N, seed=SEED, model=MODEL).images
    shown = ((native[:, 0] + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    assert len({image.tobytes() for image in shown}) == N
    np.testing.assert_array_equal(of_openai(url), shown)
    if shutil.which("curl") is not None:
        np.testing.assert_array_equal(of_curl(url), native)
    if CHROMIUM is not None:
        np.testing.assert_array_equal(of_the_page(url), shown)
