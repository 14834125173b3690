"""What travels over HTTP without a detour: labels, seeds or noise in, exact images out."""

import base64
import io
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeVar, final

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from torch import Tensor

from .asked import Asked, Whole
from .engine import MAX_IMAGES, MAX_SEED, Engine
from .errors import RequestRefused
from .image import encode_png, encode_webp, to_uint8
from .npy import npy_header
from .rows import Rows
from .schema import ImagesRequest, ImagesResponse
from .stage import Stage

MAX_STREAMED: Final = 4096
"""Most images in one request that is streamed."""
MAX_STREAMED_BYTES: Final = 2**29
"""Most bytes of them: Ray Serve keeps what a slow client has not taken, be it the whole file."""
Format = Literal["png", "webp", "npy", "safetensors", "grid"]
MEDIA: Final[Mapping[Format, str]] = {
    "png": "image/png",
    "webp": "image/webp",
    "grid": "image/png",
    "npy": "application/x-npy",
    "safetensors": "application/x-safetensors",
}
_LONGEST_NOISE: Final = 2**26


def _label(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 == value % 1:
        return value
    if isinstance(value, str):
        return value
    raise PydanticCustomError("label", "Input should be the number or the name of a class")


def _labels_of(value: object) -> object:
    """What is no label is told so, and not that it is no list."""
    return value if isinstance(value, list | None) else _label(value)


_Label = Annotated[
    Annotated[int, Field(ge=0), Whole] | Annotated[str, Field(max_length=200)],
    BeforeValidator(_label),
]
MAX_NOISE: Final = 1000.0
"""Largest value of noise, of which a standard normal one is below 10 in all practice."""
_Seed = Annotated[int, Field(ge=0, le=MAX_SEED), Whole]


class GenerateRequest(Asked):
    """Asks for images, each of its own label and noise if need be."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"labels": [3, "4"], "seeds": [0, 7], "format": "npy"},
                {"labels": 3, "n": 1000, "seed": 7, "format": "npy", "stream": True},
            ]
        },
    )

    labels: Annotated[
        Annotated[list[_Label], Field(min_length=1, max_length=MAX_STREAMED)] | _Label | None,
        Field(description="Numbers or names of classes: one for all images, or one for each."),
        BeforeValidator(_labels_of),
    ] = None
    n: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_STREAMED,
            description=f"Number of images; it may follow from the others. Above {MAX_IMAGES} "
            "only where they are streamed.",
        ),
        Whole,
    ] = None
    seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_SEED,
            description="Of all images together, as in /v1/images/generations; left out, drawn.",
        ),
        Whole,
    ] = None
    start: Annotated[
        int,
        Field(ge=0, le=MAX_SEED, description="Number of the first image within the one seed."),
        Whole,
    ] = 0
    seeds: Annotated[
        list[_Seed] | None,
        Field(
            min_length=1,
            max_length=MAX_STREAMED,
            description="One for each: the image that this seed gives alone.",
        ),
    ] = None
    noise: Annotated[
        str | None,
        Field(
            max_length=_LONGEST_NOISE,
            description="A float32 npy file in base64, of shape (n, c, h, w); (draws, n, c, h, w) "
            "where the sampler draws more than once.",
        ),
    ] = None
    format: Annotated[
        Format,
        Field(
            description="png, webp: the one image, without loss; grid: all in one PNG; npy, "
            "safetensors: float32, to the bit, in [-1, 1] but for the model's overshoot."
        ),
    ] = "png"
    stream: Annotated[
        bool,
        Field(
            description="Sends the file while its images are made, all by one version; for npy "
            f"without noise, up to {MAX_STREAMED} images.",
        ),
    ] = False


@final
@dataclass(frozen=True, kw_only=True)
class Made:
    """A file of images.

    Attributes:
        content: The file.
        media: Its media type.
        headers: How it was made, by name of an HTTP header.
        stages: Where the time went, where the request asks.
    """

    content: bytes
    media: str
    headers: Mapping[str, str]
    stages: tuple[Stage, ...] = ()


RequestT = TypeVar("RequestT", ImagesRequest, GenerateRequest)
"""A request for images by either route."""
AnswerT = TypeVar("AnswerT", ImagesResponse, Made)
"""What answers it."""


def accept(engine: Engine, request: GenerateRequest) -> Rows:
    """Checks a request against the model.

    Args:
        engine: The model.
        request: What a user asked for.

    Returns:
        The accepted request.

    Raises:
        RequestRefused: If the model cannot do it, or a part contradicts another.
    """
    given = [name for name in ("seed", "seeds", "noise") if getattr(request, name) is not None]
    _check_together(request, given)
    steps = engine.check(steps=request.steps, guidance=request.guidance)
    origins: tuple[tuple[int, int], ...] | Tensor
    if request.noise is not None:
        origins = _noise(request.noise, engine, steps)
        n = origins.shape[1]
    elif request.seeds is not None:
        origins, n = tuple((seed, 0) for seed in request.seeds), len(request.seeds)
    else:
        listed = len(request.labels) if isinstance(request.labels, list) else 1
        n = listed if request.n is None else request.n
        seed = secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed
        origins = tuple((seed, request.start + k) for k in range(n))
    most, more = _most(engine) if request.stream else (MAX_IMAGES, " without stream")
    if not 1 <= n <= most:
        param = "n" if given in ([], ["seed"]) else given[0]
        raise RequestRefused(f"n must be in 1..{most}{more}, got {n}", param=param)
    if request.n not in (None, n):
        raise RequestRefused(f"n must be that of the {given[0]}, {n}, got {request.n}", param="n")
    if request.format in ("png", "webp") and n > 1:
        raise RequestRefused(
            f"format {request.format} is for one image, got n = {n}; "
            "allowed: grid, npy, safetensors",
            param="format",
        )
    labels = _labels(request, engine, n)
    return Rows(labels=labels, origins=origins, steps=steps, guidance=request.guidance)


def _check_together(request: GenerateRequest, given: list[str]) -> None:
    if len(given) > 1:
        raise RequestRefused(
            f"at most one of seed, seeds and noise may be given, got {' and '.join(given)}",
            param=given[-1],
        )
    if request.start and given not in ([], ["seed"]):
        raise RequestRefused(
            f"start must be left out beside {given[0]}, got {request.start}", param="start"
        )
    if request.stream and request.format != "npy":
        raise RequestRefused(
            f"format must be npy for a stream, got {request.format}", param="format"
        )
    if request.stream and request.deadline_ms is not None:
        raise RequestRefused(
            f"deadline_ms must be left out of a stream, got {request.deadline_ms}",
            param="deadline_ms",
        )
    if request.stream and request.noise is not None:
        raise RequestRefused("noise must be left out of a stream, got some", param="noise")


def _most(engine: Engine) -> tuple[int, str]:
    """Most images of a stream, and of what kind of images."""
    fitting = MAX_STREAMED_BYTES // (4 * math.prod(engine.image_shape))
    return min(MAX_STREAMED, fitting), f" for images of {engine.size} in a stream"


def _labels(request: GenerateRequest, engine: Engine, n: int) -> tuple[int, ...] | None:
    asked = request.labels if isinstance(request.labels, list) else [request.labels] * n
    if len(asked) != n:
        raise RequestRefused(
            f"labels must be one for all images or one for each, got {len(asked)} for {n}",
            param="labels",
        )
    found = [engine.label("" if one is None else one, param="labels") for one in asked]
    numbers = tuple(label for label in found if label is not None)
    return numbers if len(numbers) == n else None


def _noise(text: str, engine: Engine, steps: int) -> Float[Tensor, "draws n c h w"]:
    draws = engine.draws(steps)
    lead = "n" if draws == 1 else f"{draws}, n"
    wanted = f"({', '.join([lead, *map(str, engine.noise_shape)])})"
    array = _array(text, wanted)
    rows = array[None] if draws == 1 else array
    if rows.ndim != 2 + len(engine.noise_shape) or (
        (len(rows), *rows.shape[2:]) != (draws, *engine.noise_shape)
    ):
        raise _refused_noise(wanted, f"shape {array.shape}")
    if not (np.abs(array) <= MAX_NOISE).all():  # nor what is no number
        far = int((~(np.abs(array) <= MAX_NOISE)).sum())
        raise _refused_noise(wanted, f"{far} values that are not")
    return torch.from_numpy(rows.copy())


def _array(text: str, wanted: str) -> np.ndarray:
    """The array of an npy file, whose header is believed only as far as there is data."""
    try:
        payload = base64.b64decode(text, validate=True)
        file = io.BytesIO(payload)
        shape, by_column, kind = npy_header(file)
    except ValueError as error:
        raise _refused_noise(wanted, "no such file") from error
    data = payload[file.tell() :]
    if kind != np.dtype("<f4") or by_column or min(shape, default=0) < 0:
        raise _refused_noise(wanted, f"{kind}{', by column' if by_column else ''}")
    if len(data) != math.prod(shape) * kind.itemsize:
        raise _refused_noise(wanted, f"{len(data)} bytes for shape {shape}")
    return np.frombuffer(data, dtype=kind).reshape(shape)


def _refused_noise(wanted: str, got: str) -> RequestRefused:
    return RequestRefused(
        "noise must be an npy file in base64, by row, of float32 numbers in "
        f"-{MAX_NOISE:g}..{MAX_NOISE:g} in the shape {wanted}, got {got}",
        param="noise",
    )


def encode(
    images: Float[Tensor, "n c h w"],
    rows: Rows,
    *,
    form: Format,
    engine: Engine,
    version: str,
    quality: str,
) -> Made:
    """The file of some images.

    Args:
        images: As the engine made them; of a stream, those of its first part.
        rows: What they were made of, and what the rest of a stream will be.
        form: Kind of the file.
        engine: What made them.
        version: Its registered version.
        quality: What was measured at so many evaluations, in words.

    Returns:
        The file, and how to make it again.
    """
    guidance = engine.guidance if rows.guidance is None else rows.guidance
    facts = {"model": version, "steps": str(rows.steps), "n": str(rows.n), "quality": quality}
    facts |= {} if guidance is None else {"guidance": f"{guidance:g}"}
    if not isinstance(rows.origins, Tensor):
        facts |= _seeds(rows.origins)
    headers = {f"X-Onestep-{name.capitalize()}": value for name, value in facts.items()}
    content = _file(images.contiguous(), form, facts)
    return Made(content=content, media=MEDIA[form], headers=headers)


def _seeds(origins: tuple[tuple[int, int], ...]) -> dict[str, str]:
    """The seed of all images and the number of the first, or the seed of each where that fits."""
    seed, start = origins[0]
    if origins == tuple((seed, start + k) for k in range(len(origins))):
        return {"seed": str(seed)} | ({"start": str(start)} if start else {})
    if len(origins) > MAX_IMAGES:  # too long for a header, and the client has sent them
        return {}
    return {"seeds": ",".join(str(seed) for seed, _ in origins)}


def _file(images: Tensor, form: Format, facts: dict[str, str]) -> bytes:
    match form:
        case "npy":
            file = io.BytesIO()
            np.save(file, images.numpy(), allow_pickle=False)
            return file.getvalue()
        case "safetensors":
            return safetensors.torch.save({"images": images}, metadata=facts)
        case "png":
            return encode_png(to_uint8(images)[0])
        case "webp":
            return encode_webp(to_uint8(images)[0])
        case "grid":
            return encode_png(_grid(to_uint8(images)))


def _grid(levels: Tensor) -> Tensor:
    """All images in rows from the top left, nearly square; what is left over is black."""
    n, height, width, channels = levels.shape
    columns = math.ceil(math.sqrt(n))
    lines = math.ceil(n / columns)
    filled = torch.zeros(lines * columns, height, width, channels, dtype=torch.uint8)
    filled[:n] = levels
    cells = filled.reshape(lines, columns, height, width, channels).permute(0, 2, 1, 3, 4)
    return cells.reshape(lines * height, columns * width, channels)
