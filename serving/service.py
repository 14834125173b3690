"""A service answers requests with models; the web application asks it, here or across Ray."""

import asyncio
import base64
import secrets
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from typing import Final, Protocol, TypeVar, final

from jaxtyping import Float
from torch import Tensor

from .batcher import Batcher
from .count import count_images
from .engine import MAX_IMAGES, MAX_SEED, Draw, Engine
from .errors import RequestRefused, UnknownModel
from .image import encode_png, encode_webp, to_uint8
from .known import Known
from .link import link
from .native import GenerateRequest, Made, RequestT, accept, encode
from .quality import choose, curve_of
from .refusal import refusal
from .rows import Rows
from .schema import (
    ImageData,
    ImagesRequest,
    ImagesResponse,
    Measured,
    ModelCard,
    ModelList,
    Refusal,
    Usage,
)
from .stage import Stage, Stopwatch
from .tally import Counts, ModelTally, Tally
from .waiting import room

T = TypeVar("T")
_SMALL: Final = 2**13
"""Values of images whose files are made in less time than two threads need to take turns."""


class Service(Protocol):
    """What the web application needs to know about whatever makes the images.

    Both answers are plain values, so that they may come from another process.
    """

    async def describe(self) -> ModelList:
        """The models that are served now."""
        ...

    async def missing(self) -> list[str]:
        """The served names whose model has not been loaded."""
        ...

    async def tally(self) -> list[Tally] | None:
        """What each replica counts; None where one does not answer in time."""
        ...

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        """Images, or the reason why there are none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        ...

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        """A file of images, or the reason why there is none.

        Args:
            request: What a user asked for. Of a stream it is checked as a whole, and the file
                has its first part.

        Returns:
            The answer.
        """
        ...


@final
class EngineService:
    """The service of one engine in this process.

    Args:
        engine: The model.
        name: The name that users ask for it by, such as ``champion``.
        version: The registered version behind the name, such as ``digits/3``.
        max_waiting: Requests that may wait before the next is refused.
        timeout_s: Seconds that a request may take which gives no deadline.
        cores: Numbers of the cores that forwards run on; none for any.
        known: What the registry knows about the version; None for one that is in none.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        version: str,
        max_waiting: int = 256,
        timeout_s: float = 60.0,
        cores: Set[int] = frozenset(),
        known: Known | None = None,
    ) -> None:
        self._engine = engine
        self._known = known or Known()
        self._name = name
        self._version = version
        self._created = int(time.time())
        self._timeout_s = timeout_s
        self._counts = Counts()
        self._curve = curve_of(_curve(engine.record.metrics), engine.steps)
        self._batcher = Batcher(engine, max_waiting=max_waiting, counts=self._counts, cores=cores)

    @property
    def engine(self) -> Engine:
        """The model."""
        return self._engine

    @property
    def nbytes(self) -> int:
        """Bytes of the model's parameters and buffers."""
        return self._engine.nbytes

    def close(self) -> None:
        """Ends its thread; no request is under way, and none may come."""
        self._batcher.close()

    def check(self, *, stuck_s: float) -> None:
        """Raises ``ModelDead`` if a loaded model answers no more, however much waits for it.

        Args:
            stuck_s: Seconds that one forward may take.
        """
        self._batcher.check(stuck_s=stuck_s)

    async def describe(self) -> ModelList:
        """The one model."""
        return ModelList(data=[self.card])

    async def missing(self) -> list[str]:
        """None: the model is there."""
        return []

    async def tally(self) -> list[Tally]:
        """What the one model counts."""
        return [Tally(models=(self.counted,), loads=1)]

    @property
    def counted(self) -> ModelTally:
        """What the model has done, and what waits for it."""
        return ModelTally(
            version=self._version,
            counts=replace(self._counts),
            waiting=self._batcher.waiting,
            loaded_bytes=self.nbytes,
        )

    def _count(self, draw: Draw | Rows, encoding_s: float) -> None:
        self._counts.encoding_seconds += encoding_s
        self._counts.images += draw.n
        self._counts.evaluations += draw.n * draw.steps

    @property
    def card(self) -> ModelCard:
        """What is known about the model."""
        record = self._engine.record
        numbers = [str(label) for label in range(record.classes)]
        return ModelCard(
            id=self._name,
            created=self._created,
            owned_by=record.name,
            version=self._version,
            method=record.method_name,
            size=self._engine.size,
            labels=list(record.label_names) or numbers,
            steps=list(self._engine.steps),
            default_steps=self._engine.default_steps,
            default_guidance=self._engine.guidance,
            classes=record.classes,
            shape=list(self._engine.image_shape),
            noise_shape=list(self._engine.noise_shape),
            parents=dict(record.parents),
            lineage=list(self._known.lineage),
            card=self._known.card,
            metrics=dict(record.metrics),
            nfe_curve=_curve(record.metrics),
        )

    async def generate(self, request: ImagesRequest) -> ImagesResponse | Refusal:
        """Images, or the reason why there are none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        try:
            self._check_name(request.model)
            draw = self._accept(self._with_steps(request))
            data, stages = await self._data(request, draw)
        except RequestRefused as refused:
            return refusal(refused)
        answer = ImagesResponse(
            created=int(time.time()),
            data=data,
            model=self._version,
            seed=draw.seed,
            steps=draw.steps,
            measured=self._measured(draw.steps),
            guidance=self._engine.guidance if draw.guidance is None else draw.guidance,
            size=self._engine.size,
            usage=Usage(
                images=draw.n,
                network_evaluations=draw.n * draw.steps * (request.response_format != "url"),
            ),
        )
        return answer.timed(stages) if stages else answer

    def _measured(self, steps: int) -> Measured | None:
        value = self._curve.values.get(steps)
        return None if value is None else Measured(metric=self._curve.metric, value=value)

    async def _data(
        self, request: ImagesRequest, draw: Draw
    ) -> tuple[list[ImageData], tuple[Stage, ...]]:
        """The images themselves, or where they will be made; and what they took, if it is asked."""
        if request.response_format == "url":
            form = request.output_format
            return [ImageData(url=link(self._version, draw, k, form)) for k in range(draw.n)], ()
        stopwatch = Stopwatch() if request.is_timed else None
        images = _finite(await self._images(draw, request, stopwatch), self._version)
        began = time.perf_counter()
        encode_one = encode_webp if request.output_format == "webp" else encode_png
        files = await _beside(images, lambda: [encode_one(image) for image in to_uint8(images)])
        encoding_s = time.perf_counter() - began
        self._count(draw, encoding_s)
        stages = () if stopwatch is None else stopwatch.stages(encoding_s)
        return [ImageData(b64_json=base64.b64encode(file).decode()) for file in files], stages

    async def make(self, request: GenerateRequest) -> Made | Refusal:
        """A file of images, or the reason why there is none.

        Args:
            request: What a user asked for.

        Returns:
            The answer.
        """
        try:
            self._check_name(request.model)
            request = self._with_steps(request)
            if request.noise is None:
                rows = accept(self._engine, request)
            else:  # which may be large
                rows = await asyncio.to_thread(accept, self._engine, request)
            first = rows.first(MAX_IMAGES)
            stopwatch = Stopwatch() if request.is_timed else None
            images = _finite(await self._images(first, request, stopwatch), self._version)
        except RequestRefused as refused:
            return refusal(refused)
        began = time.perf_counter()
        made = await _beside(
            images,
            lambda: encode(
                images,
                rows,
                form=request.format,
                engine=self._engine,
                version=self._version,
                quality=self._curve.told(rows.steps),
            ),
        )
        encoding_s = time.perf_counter() - began
        self._count(first, encoding_s)
        return made if stopwatch is None else replace(made, stages=stopwatch.stages(encoding_s))

    def _check_name(self, name: str) -> None:
        if name not in ("", self._name, self._version):
            names = tuple(dict.fromkeys((self._name, self._version)))
            raise UnknownModel(name, allowed=names)

    def _with_steps(self, request: RequestT) -> RequestT:
        """The request with the number of evaluations that its quality or deadline means."""
        if request.steps is not None and request.quality is not None:
            raise RequestRefused(
                "quality must be left out where steps is given, "
                f"got {request.quality} and {request.steps}",
                param="quality",
            )
        has_deadline = request.deadline_ms is not None
        if request.steps is not None or not (request.quality or has_deadline):
            return request
        ahead = self._batcher.forecast(min(count_images(request), MAX_IMAGES))
        steps = choose(
            request.quality or "auto",
            self._curve.frontier,
            default=self._engine.default_steps,
            seconds=ahead.seconds,
            room_s=self._room_s(request),
            forwards_ahead=0.0 if has_deadline else ahead.forwards_ahead,
        )
        return request.model_copy(update={"steps": steps})

    def _room_s(self, request: ImagesRequest | GenerateRequest) -> float:
        """Seconds in which the request must have its images."""
        return min(room(request.deadline_ms, self._timeout_s), request.within_s)

    async def _images(
        self,
        draw: Draw | Rows,
        request: ImagesRequest | GenerateRequest,
        stopwatch: Stopwatch | None,
    ) -> Float[Tensor, "n c h w"]:
        return await self._batcher.submit(
            draw,
            within_s=self._room_s(request),
            is_asked=request.deadline_ms is not None,
            is_begun=request.is_begun,
            stopwatch=stopwatch,
        )

    def _accept(self, request: ImagesRequest) -> Draw:
        return self._engine.accept(
            request.prompt,
            n=request.n,
            size=None if request.size == "auto" else request.size,
            seed=secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed,
            steps=request.steps,
            guidance=request.guidance,
        )


def _finite(images: Tensor, version: str) -> Tensor:
    """The images, unless a model makes of this request what is none."""
    if not images.isfinite().all():
        raise RequestRefused(f"{version} made an image that is not finite", status=500)
    return images


async def _beside(images: Tensor, work: Callable[[], T]) -> T:
    """Makes files of images; in a thread only where that takes longer than the way to one."""
    return work() if images.numel() <= _SMALL else await asyncio.to_thread(work)


def _curve(metrics: Mapping[str, float]) -> dict[str, dict[int, float]]:
    """Values by metric and number of evaluations, of the metrics whose names end in the latter."""
    curve: dict[str, dict[int, float]] = {}
    for name, value in metrics.items():
        metric, found, nfe = name.rpartition("/nfe_")
        if found and nfe.isdecimal():
            curve.setdefault(metric, {})[int(nfe)] = value
    return {metric: dict(sorted(values.items())) for metric, values in curve.items()}
