"""OpenAI's own client, as it comes, against the service."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from PIL import Image

from onestep.serving.engine import Engine
from onestep.serving.service import EngineService
from onestep.tests.serving.listening import listening
from onestep.tests.serving.model import gaussian, record_of


def service(*, max_waiting: int = 256) -> EngineService:
    engine = Engine(gaussian(), record_of(), bucket=4)
    return EngineService(
        engine, name="digits@champion", version="digits/3", max_waiting=max_waiting
    )


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    with listening(service()) as url, OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        yield client


def test_what_the_client_calls_auto_is_left_to_the_model(client: OpenAI) -> None:
    answer = client.images.generate(prompt="1", size="auto", quality="medium")
    assert answer.model_dump()["size"] == "8x8"


@pytest.mark.parametrize("form", ["png", "webp"])
def test_images_come_as_files(client: OpenAI, form: str) -> None:
    answer = client.images.generate(
        model="digits@champion",
        prompt="three",
        n=2,
        size="8x8",
        response_format="b64_json",
        output_format=form,
        user="ada",
        extra_body={"seed": 7, "steps": 2},
    )
    assert answer.data is not None
    assert len(answer.data) == 2
    for data in answer.data:
        with Image.open(io.BytesIO(base64.b64decode(data.b64_json or ""))) as image:
            assert (image.format, image.size) == (form.upper(), (8, 8))
    assert answer.model_dump()["seed"] == 7


def test_images_come_as_addresses_that_lead_to_the_same_files(client: OpenAI) -> None:
    asked = {"prompt": "1", "n": 2, "extra_body": {"seed": 7}}
    files = client.images.generate(**asked, response_format="b64_json").data
    links = client.images.generate(**asked, response_format="url").data
    assert files is not None
    assert links is not None
    for file, data in zip(files, links, strict=True):
        assert httpx.get(data.url or "").content == base64.b64decode(file.b64_json or "")


def test_models_are_listed_and_found_by_name_and_by_version(client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("digits@champion", "model", "digits")
    for name in ("digits@champion", "digits/3"):
        assert client.models.retrieve(name).id == "digits@champion"
    with pytest.raises(openai.NotFoundError, match="got 'faces/1'; allowed: digits@champion"):
        client.models.retrieve("faces/1")


@pytest.mark.parametrize(
    ("error", "body", "message"),
    [
        (openai.NotFoundError, {"prompt": "1", "model": "gpt-image-1"}, "got 'gpt-image-1'"),
        (openai.UnprocessableEntityError, {"prompt": "a cat"}, "got 'a cat'; allowed: 0..3"),
        (openai.UnprocessableEntityError, {"prompt": "1", "size": "512x512"}, "must be 8x8"),
        *(
            (openai.UnprocessableEntityError, {"prompt": "1", field: value}, f"field '{field}'")
            for field, value in (
                ("style", "vivid"),
                ("output_compression", 50),
                ("partial_images", 1),
            )
        ),
        *(
            (openai.UnprocessableEntityError, {"prompt": "1", field: value}, f"{field} must be")
            for field, value in (("background", "opaque"), ("moderation", "low"), ("stream", True))
        ),
        (openai.UnprocessableEntityError, {"prompt": "1", "quality": "ultra"}, "got 'ultra'"),
        (openai.UnprocessableEntityError, {"prompt": "1", "output_format": "jpeg"}, "'webp', got"),
    ],
)
def test_a_refusal_is_openai_s_own_error(
    client: OpenAI, error: type[openai.APIStatusError], body: dict, message: str
) -> None:
    with pytest.raises(error, match=message) as refused:
        client.images.generate(**body)
    assert refused.value.type == "invalid_request_error"
    assert refused.value.code == ("model_not_found" if error is openai.NotFoundError else None)


def test_what_openai_s_schema_lets_be_null_or_its_default_is_taken(client: OpenAI) -> None:
    nulls = dict.fromkeys(
        ("n", "size", "quality", "response_format", "output_format", "background", "moderation"),
    )
    defaults = {"background": "auto", "moderation": "auto", "stream": False}
    asked: dict[str, Any] = {"prompt": "1", "extra_body": {"seed": 7}}
    plain = client.images.generate(**asked).data
    assert client.images.generate(**asked, **nulls, stream=None).data == plain
    assert client.images.generate(**asked, **defaults).data == plain


def test_a_full_queue_is_a_rate_limit() -> None:
    full = service(max_waiting=0)
    with listening(full) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
        with client, pytest.raises(openai.RateLimitError, match="0 requests wait already") as error:
            client.images.generate(prompt="1")
    assert error.value.response.headers["Retry-After"] == "1"
