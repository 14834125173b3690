"""Requests that no client means well by, and what must not be in their answers."""

import base64
import io
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, final
from urllib.parse import quote, urlencode

import numpy as np

from onestep.serving.keys import add_key

GENERATE: Final = "/v1/generate"
GENERATIONS: Final = "/v1/images/generations"
MAX_BODY_MB: Final = 1
"""What a server that is asked must allow, lest the large bodies have to be larger."""
PER_MINUTE: Final = 10
"""Requests that the key allows which is bounded."""
Key = Literal["good", "bounded", "wrong", "none"]
_KEYS: Final[Mapping[Key, float]] = {"good": 0.94, "bounded": 0.02, "wrong": 0.02, "none": 0.02}
_WRONG: Final = f"onestep-{'A' * 43}"
_LARGE: Final = b'{"labels": 3, "noise": "' + b"A" * MAX_BODY_MB * 10**6 + b'"}'
_LEAK: Final = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|\bonestep\.(?:methods|platform|serving)\b|"
    r"\btorch\.|\bpydantic\b|\bray\.|sqlite|"
    r"0x[0-9a-f]{6}|/(?:tmp|home|root|usr|opt|var|work)\b"
)
_METHODS: Final = ("GET", "GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
_BODIES: Final = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'"x"',
    b"NaN",
    b'{"n": NaN}',
    b'{"n": 1e999}',
    b'{"seed": ' + b"9" * 5000 + b"}",
    b'{"prompt": "\xff\xfe"}',
    b'{"prompt": "\\ud800"}',
    b'{"labels": "\\u0000"}',
    b"[" * 20_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'{"n": 1, "n": 2}',
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    b"labels=3&n=1",
    b"\x00" * 100,
)
_VALUES: Final[tuple[Any, ...]] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        63,
        64,
        65,
        4096,
        4097,
        2**53 - 1,
        2**53,
        2**63,
        2**64,
        10**400,
    ),
    *(
        0.0,
        1.0,
        1.5,
        -0.0,
        1e308,
        "",
        "3",
        "\u0663",
        "\ud800",
        " 3 ",
        "three",
        "x" * 201,
        "x" * 5000,
    ),
    *(
        "\x00",
        "\n",
        "../../x",
        "digits@champion",
        "digits/1",
        "8x8",
        "28x28",
        "png",
        "npy",
        "b64_json",
    ),
    *([], [3], [3] * 64, [3] * 65, [[3]], ["3", 4], [None], [-1], [2**60], {}, {"a": 1}),
)
_FIELDS: Final = {
    GENERATE: (
        *("model", "labels", "n", "seed", "start", "seeds", "noise", "steps", "guidance"),
        *("format", "stream", "quality", "deadline_ms", "extra"),
    ),
    GENERATIONS: (
        *("model", "prompt", "n", "size", "response_format", "output_format", "user", "seed"),
        *("steps", "guidance", "quality", "deadline_ms"),
    ),
}
_PATHS: Final = (
    *("/", "/v1", "/v1/models", "/v1/models/", "/v1/models/%00", "/v1/models/..%2f..%2fx"),
    *(f"/v1/images/{'x' * 250}/1/7/0.png", f"/v1/images/digits/{'9' * 250}/7/0.png"),
    *("/v1/models/" + "x" * 3000, "/v1/images/digits/1/7/0.png", "/v1/images/digits/1/7/0.gif"),
    *("/v1/images/digits/-1/7/0.png", "/v1/images/digits/9/7/0.png", "/v1/images/%ff/1/7/0.png"),
    *(f"/v1/images/digits/1/{'9' * 5000}/0.png", "/v1/images/digits/1/7/0.png?steps=x&labels=3"),
    *("/v1/images/digits/1/7/0.webp?labels=%00", "/v1/images/digits/1/7/0.png?a=1&a=2"),
    *(
        "/openapi.json",
        "/docs",
        "/metrics",
        "/healthz",
        "/readyz",
        "/..%2f..%2fetc",
        "/%c0%ae",
        "//",
    ),
)
_HEADERS: Final[tuple[dict[str, str], ...]] = (
    *({}, {}, {}, {"Content-Type": "text/plain"}, {"Content-Type": "application/xml"}),
    *({"Content-Type": "application/json; charset=utf-7"}, {"Content-Type": ""}),
    *(
        {"Content-Encoding": "gzip"},
        {"X-Request-Id": "a" * 3000},
        {"If-None-Match": '"', "Range": "x"},
    ),
    *({"Authorization": "Bearer"}, {"Host": "a b"}, {"X-Forwarded-Proto": "javascript"}),
)


@final
@dataclass(frozen=True, kw_only=True)
class Hostile:
    """A request.

    Attributes:
        method: Of HTTP.
        path: With its query, encoded.
        content: The body.
        headers: Beside those that a client cannot leave out.
        key: Which key it brings, unless its headers say.
    """

    method: str
    path: str
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    key: Key = "good"

    def headers_with(self, tokens: Mapping[Key, str]) -> dict[str, str]:
        """All headers that its sender gives.

        Args:
            tokens: The good key of the server, and the one that is bounded.
        """
        if self.key == "none":
            return dict(self.headers)
        return {"Authorization": f"Bearer {tokens.get(self.key, _WRONG)}", **self.headers}


def keys_for(file: Path) -> dict[Key, str]:
    """Keys that hostile requests bring, added to the file of a server.

    Args:
        file: The file, which is made if it is missing.
    """
    return {
        "good": add_key(file, "ada"),
        "bounded": add_key(file, "bob", requests_per_minute=PER_MINUTE, images_per_minute=10**5),
    }


def hostile(n: int, *, seed: int) -> Iterator[Hostile]:
    """So many requests, the same for the same seed."""
    draw = random.Random(seed)
    for _ in range(n):
        headers = {"Content-Type": "application/json", **draw.choice(_HEADERS)}
        kind = draw.random()
        path = draw.choice(tuple(_FIELDS))
        (key,) = draw.choices([*_KEYS], [*_KEYS.values()])
        if kind < 0.25:
            place = draw.choice(_PATHS) if kind < 0.15 else _picture(draw)
            content = draw.choice(_BODIES) if draw.random() < 0.3 else b""
            method = draw.choice(_METHODS)
            yield Hostile(method=method, path=place, content=content, headers=headers, key=key)
            continue
        if kind < 0.26:
            content = _LARGE
        elif kind < 0.35:
            content = draw.choice(_BODIES)
        else:
            content = json.dumps(_body(draw, path)).encode()
            if kind > 0.9:
                content = _broken(draw, content)
        yield Hostile(method="POST", path=path, content=content, headers=headers, key=key)


def _body(draw: random.Random, path: str) -> dict[str, Any]:
    """A body that is well formed but for two fields at most."""
    body: dict[str, Any] = {"labels": 3, "seed": 7} if path == GENERATE else {"prompt": "3"}
    for name in draw.sample(_FIELDS[path], draw.randint(0, 2)):
        body[name] = _noise(draw) if name == "noise" else draw.choice(_VALUES)
    return body


def _picture(draw: random.Random) -> str:
    """The address of an image that is well formed but for two parts at most."""
    parts = {"name": "digits", "version": "1", "seed": "7", "k": "0", "form": "png"}
    query = {"labels": "3", "steps": "1"}
    for name in draw.sample((*parts, *query, "guidance", "extra"), draw.randint(0, 2)):
        value = draw.choice(_VALUES)
        (parts if name in parts else query)[name] = str(value).encode("utf-8", "replace").decode()
    path = "/".join(quote(parts[name], safe="") for name in ("name", "version", "seed", "k"))
    return f"/v1/images/{path}.{quote(parts['form'], safe='')}?{urlencode(query)}"


def _noise(draw: random.Random) -> str:
    shape = draw.choice(((1, 1, 28, 28), (1, 1, 8, 8), (0,), (), (2, 3), (65, 1, 28, 28)))
    kind = draw.choice(("<f4", "<f4", "<f8", "<i4", "|O"))
    file = io.BytesIO()
    np.save(file, np.full(shape, draw.choice((0.0, np.nan, np.inf))).astype("<f4"))
    content = file.getvalue().replace(b"<f4", kind.encode())
    if draw.random() < 0.5:
        content = _broken(draw, content)
    return base64.b64encode(content).decode() + draw.choice(("", "", "!", "="))


def _broken(draw: random.Random, content: bytes) -> bytes:
    """The same with a byte changed, or cut off."""
    place = draw.randrange(max(1, len(content)))
    if draw.random() < 0.3:
        return content[:place]
    return content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]


def fault_of(status: int, media: str, content: bytes, *, method: str = "GET") -> str:
    """Why an answer should not have been given; empty where it is as it should be.

    Args:
        status: Of HTTP.
        media: Its media type.
        content: The answer.
        method: Of the request; HEAD has no content.
    """
    if status >= 500:
        return f"status {status}: {content[:300]!r}"
    if status < 400 and media != "application/json":
        return ""
    if not content:
        return "" if method == "HEAD" else f"status {status} without a word"
    text = content.decode("utf-8", "replace")
    if (found := _LEAK.search(text)) is not None:
        return f"{found.group()!r} in {text[:300]!r}"
    if status >= 400 and media == "application/json" and "error" not in json.loads(text):
        return f"status {status} in another shape: {text[:300]!r}"
    return ""
