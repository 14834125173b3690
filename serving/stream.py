"""A long file while it is made: one request in parts, all answered by one version."""

import asyncio
import io
import math
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final, final

import numpy as np
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from .engine import MAX_IMAGES
from .errors import RequestRefused
from .native import GenerateRequest, Made
from .npy import npy_header
from .schema import Refusal
from .service import Service
from .stage import Note

IN_FLIGHT: Final = 2
"""Parts that are asked for at once: one is computed while another waits for its turn."""
_WAITS_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
_LATER: Final = (404, 429, 503)
"""Refusals that pass: a replica that has not heard of a swap yet, is busy, or starts again."""
_ROW: Final = np.dtype("<f4")


class StreamBroken(RuntimeError):
    """A part of a stream was not made, after the first was sent."""


@final
@dataclass(frozen=True, kw_only=True)
class Streamed:
    """A file that is made while it is sent.

    Attributes:
        content: Its bytes, part by part; an error where one is not made.
        media: Its media type.
        headers: How it is made and how long it is, by name of an HTTP header.
    """

    content: AsyncIterator[bytes]
    media: str
    headers: Mapping[str, str]


@final
class OpenStreams:
    """Places of the streams that are sent at once: each holds parts of its file in memory.

    Args:
        most: How many there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for as long as the block takes.

        Yields:
            None: Nothing.

        Raises:
            RequestRefused: If all are taken.
        """
        if self._taken >= self._most:
            raise RequestRefused(
                f"{self._taken} streams are sent already; try again in a second", status=429
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


@final
class StreamAnswer(StreamingResponse):
    """The HTTP answer that a stream is.

    Args:
        streamed: The stream.
        place: What it holds until its end, or until its client has left, however early.
    """

    def __init__(self, streamed: Streamed, place: ExitStack) -> None:
        super().__init__(
            streamed.content, media_type=streamed.media, headers=dict(streamed.headers)
        )
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream."""
        with self._place:
            await super().__call__(scope, receive, send)


async def stream(service: Service, request: GenerateRequest, note: Note) -> Streamed | Refusal:
    """Begins a stream.

    The service checks the whole request and makes the first part; its version makes all others.

    Args:
        service: Whatever makes the images.
        request: What a user asked for, to be streamed.
        note: Is told where the time of each part went, as far as the request asks.

    Returns:
        The file, or the reason why it is not begun.
    """
    first = await service.make(request)
    if isinstance(first, Refusal):
        return first
    note(first.stages)
    shape, rows = _opened(first)
    shape = (int(first.headers["X-Onestep-N"]), *shape[1:])
    head = _header(shape)
    size = len(head) + math.prod(shape) * _ROW.itemsize
    return Streamed(
        content=_content(service, head + rows, _rest(request, first, shape[0]), note),
        media=first.media,
        headers={**first.headers, "Content-Length": str(size)},
    )


def _rest(request: GenerateRequest, first: Made, n: int) -> Iterator[GenerateRequest]:
    """The requests for all parts but the first, by its version, its seed and its evaluations."""
    steps = int(first.headers["X-Onestep-Steps"])
    model = first.headers["X-Onestep-Model"]
    fixed = {"stream": False, "model": model, "steps": steps, "quality": None}
    for begin in range(MAX_IMAGES, n, MAX_IMAGES):
        end = min(begin + MAX_IMAGES, n)
        own: dict[str, object] = {"n": end - begin}
        if isinstance(request.labels, list):
            own["labels"] = request.labels[begin:end]
        if request.seeds is None:
            seed = int(first.headers["X-Onestep-Seed"])
            own |= {"seed": seed, "start": request.start + begin}
        else:
            own["seeds"] = request.seeds[begin:end]
        yield request.model_copy(update=fixed | own).begun()


async def _content(
    service: Service,
    beginning: bytes,
    rest: Iterator[GenerateRequest],
    note: Note,
) -> AsyncIterator[bytes]:
    coming: deque[asyncio.Task[bytes]] = deque()
    try:
        part: bytes | None = beginning
        while part is not None:
            for request in islice(rest, IN_FLIGHT - len(coming)):
                coming.append(asyncio.create_task(_rows(service, request, note)))
            yield part
            part = await coming.popleft() if coming else None
    finally:  # the client went away, or a part was not made
        for task in coming:
            task.cancel()


async def _rows(service: Service, request: GenerateRequest, note: Note) -> bytes:
    """The rows of one part, asked for again while a refusal may pass."""
    waits = iter(_WAITS_S)
    while isinstance(answer := await service.make(request), Refusal):
        wait_s = next(waits, None) if answer.status in _LATER else None
        if wait_s is None:
            raise StreamBroken(f"a part of a stream was refused: {answer.error.message}")
        await asyncio.sleep(wait_s)
    assert answer.headers["X-Onestep-Model"] == request.model, "one version makes a stream"
    note(answer.stages)
    return _opened(answer)[1]


def _opened(made: Made) -> tuple[tuple[int, ...], bytes]:
    """Shape and rows of an npy file of ours."""
    file = io.BytesIO(made.content)
    shape, _, kind = npy_header(file)
    assert kind == _ROW
    return shape, made.content[file.tell() :]


def _header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    described = {"descr": _ROW.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()
