"""The web application: routes, refusals and pages, over any service."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_args

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from .answer import respond
from .body import BodyLimit
from .count import count_images
from .errors import NOT_READY, RequestRefused, UnknownModel, shown
from .gate import Gate, KeyGate
from .journal import Journal
from .link import PATH, LinkQuery, Name, Number, Picture, Whole53, cache_headers, is_known
from .meter import Meter
from .native import MEDIA, GenerateRequest, Made, RequestT
from .pages import add_pages
from .refusal import refusal
from .request_trace import Trace, trace_of
from .schema import (
    Health,
    ImagesRequest,
    ImagesResponse,
    ModelCard,
    ModelList,
    Ready,
    Refusal,
)
from .service import Service
from .settings import AppSettings
from .stream import OpenStreams, StreamAnswer, Streamed, stream
from .tally import metrics_page
from .threshold import Doorkeeper, Threshold
from .turnstile import Turnstile
from .waiting import while_wanted, with_time_left

if TYPE_CHECKING:
    from .tracer import Tracer

T = TypeVar("T")
_DEFAULTS: Final = AppSettings()
_SUBJECT: Final = re.compile(r"^\w+ should ")  # how pydantic begins its sentences
_UNREADABLE: Final = (
    "the body must be JSON in UTF-8 without deep nesting or very long numbers, got one that cannot "
    "be read"
)
_NO_OBJECT: Final = (
    "the body must be a JSON object with the header Content-Type: application/json, got another"
)
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_GENERATE: Final = "/v1/generate"
_GENERATIONS: Final = "/v1/images/generations"
_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {
            media: {"schema": {"type": "string", "format": "binary"}}
            for media in dict.fromkeys(MEDIA.values())
        },
        "description": "The file; headers X-Onestep-* say how it was made",
    }
}
_PICTURE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {
            MEDIA[form]: {"schema": {"type": "string", "format": "binary"}}
            for form in get_args(Picture)
        },
        "description": "The image; ETag is that of its bytes",
    },
    304: {"description": "The client has it already"},
}
_FAILED: Final[dict[int | str, dict[str, Any]]] = {
    500: {"model": Refusal, "description": "The server failed; its log says why"},
    503: {"model": Refusal, "description": "No model is ready"},
}
_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": Refusal, "description": "No such model is served"},
    422: {"model": Refusal, "description": "Out of range, unknown field, or not JSON"},
    408: {"model": Refusal, "description": "The body or the images came, or would come, too late"},
    413: {"model": Refusal, "description": "The body is too large"},
    429: {"model": Refusal, "description": "Too many requests wait, or too many of this key"},
    **_FAILED,
}


def build_api(
    service: Service,
    settings: AppSettings = _DEFAULTS,
    *,
    ingress: str = "local",
    is_echoed: bool = False,
    threshold: Threshold | None = None,
    crowd: Callable[[], int] | None = None,
) -> FastAPI:
    """The application that answers over HTTP with this service.

    Args:
        service: Whatever makes the images, in this process or across Ray.
        settings: Who may ask, and what is written down of it.
        ingress: Which of several web applications behind one address this is.
        is_echoed: Whether a proxy before it adds the id that a request came with to the answer.
        threshold: What requests pass, for who means to close it.
        crowd: What ``Turnstile`` asks; None lets all pass to the service.

    Returns:
        The application.
    """
    tracer = _tracer(settings, ingress)
    # FastAPI's own documentation page loads scripts from elsewhere; ours needs no network.
    api = FastAPI(
        title="onestep",
        description="Images of a class, made in one network evaluation.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the address of the other would be taken from the request's Host
        lifespan=None if tracer is None else _until_closed(tracer),
    )
    api.add_exception_handler(RequestValidationError, _answer_invalid)
    api.add_exception_handler(RequestRefused, _answer_refused)
    api.add_exception_handler(HTTPException, _answer_http)
    gate, meter, streams = Gate(settings.keys), Meter(ingress), OpenStreams(settings.max_streams)
    # The one that is added last sees a request first.
    api.add_middleware(BodyLimit, max_mb=settings.max_body_mb, timeout_s=settings.body_timeout_s)
    if crowd is not None:
        api.add_middleware(Turnstile, paths={_GENERATE, _GENERATIONS}, crowd=crowd)
    api.add_middleware(KeyGate, gate=gate)
    threshold = threshold or Threshold()
    if tracer is not None:
        threshold.last = tracer.close
    api.add_middleware(Doorkeeper, threshold=threshold)
    api.add_middleware(
        Journal,
        headers=_HEADERS,
        meter=meter,
        access_log=settings.access_log,
        access_file=settings.access_file,
        is_echoed=is_echoed,
        tracer=tracer,
    )
    _declare_keys(api, gate)

    async def wanted(work: Awaitable[T], http: Request, deadline_ms: int | None = None) -> T:
        return await while_wanted(
            work, http, deadline_ms=deadline_ms, timeout_s=settings.request_timeout_s
        )

    @api.get("/healthz", responses=_FAILED)
    async def health() -> Health:
        """Answers while the replica that is asked has a model that answers; names the first one."""
        models = (await service.describe()).data
        if not models:
            raise RequestRefused(NOT_READY, status=503)
        return Health(model=models[0].version)

    @api.get("/readyz", responses=_FAILED)
    async def ready() -> Ready:
        """Answers while all replicas have every served model, loaded and answering."""
        if missing := await service.missing():
            raise RequestRefused(
                f"every replica must have every served model, still missing: {', '.join(missing)}",
                status=503,
            )
        return Ready()

    @api.get("/v1/models", responses=_FAILED)
    async def models() -> ModelList:
        """The models that are served: what they may be asked for, and what is known of them."""
        return await service.describe()

    @api.get("/v1/models/{name:path}", responses=_REFUSED)
    async def model(name: str) -> ModelCard:
        """One of them, by its id or its version."""
        models = await service.describe()
        for card in models.data:
            if name in (card.id, card.version):
                return card
        if (why := models.missing.get(name)) is not None:
            raise RequestRefused(f"{name} is not loaded: {why}", param="model", status=503)
        ids = (*(card.id for card in models.data), *models.missing)
        raise UnknownModel(name, allowed=ids)

    @api.post(_GENERATIONS, response_model=ImagesResponse, responses=_REFUSED)
    async def generate(request: ImagesRequest, http: Request) -> ImagesResponse | Response:
        """Images of one class; the same seed gives the same images."""
        trace = trace_of(http.scope)
        if (refused := gate.charge(trace, count_images(request))) is not None:
            return refused
        request = _timed(with_time_left(request.asked_by(trace.asker), trace), trace)
        answer = await wanted(service.generate(request), http, request.deadline_ms)
        if isinstance(answer, Refusal):
            return respond(answer)
        for image in answer.data:  # only here it is known where the server is reached
            image.url = image.url and f"{http.base_url}{image.url}"
        trace.version, trace.steps = answer.model, answer.steps
        trace.note(answer.stages)
        return answer

    @api.get(PATH, response_class=Response, responses={**_PICTURE, **_REFUSED})
    async def picture(
        name: Name,
        version: Number,
        seed: Whole53,
        k: Whole53,
        form: Picture,
        query: Annotated[LinkQuery, Query()],
        http: Request,
    ) -> Response:
        """Image k of a seed, by a version; caches may keep it for ever."""
        trace = trace_of(http.scope)
        if (refused := gate.charge(trace, 1)) is not None:
            return refused
        asked = _timed(query.request(f"{name}/{version}", seed, k, form), trace)
        answer = await wanted(service.make(asked), http)
        if isinstance(answer, Refusal):
            return respond(answer)
        _note(trace, answer)
        headers = cache_headers(answer, is_private="authorization" in http.headers)
        if is_known(headers["ETag"], http.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        headers |= answer.headers
        return Response(answer.content, media_type=answer.media, headers=headers)

    @api.post(_GENERATE, response_class=Response, responses={**_FILE, **_REFUSED})
    async def make(request: GenerateRequest, http: Request) -> Response:
        """A file of images, each of its own label and noise if need be; float32 to the bit."""
        trace = trace_of(http.scope)
        if (refused := gate.charge(trace, count_images(request))) is not None:
            return refused
        request = _timed(with_time_left(request.asked_by(trace.asker), trace), trace)
        if request.stream:
            with ExitStack() as place:
                place.enter_context(streams.place())
                begun = await wanted(stream(service, request, trace.note), http)
                if isinstance(begun, Refusal):
                    return respond(begun)
                _note(trace, begun)
                return StreamAnswer(begun, place.pop_all())
        answer = await wanted(service.make(request), http, request.deadline_ms)
        if isinstance(answer, Refusal):
            return respond(answer)
        _note(trace, answer)
        return Response(answer.content, media_type=answer.media, headers=dict(answer.headers))

    @api.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        page = metrics_page(meter, await service.tally())
        return Response(page, headers={"Content-Type": CONTENT_TYPE_LATEST})

    for path, asked in (("/healthz", health), ("/readyz", ready)):
        api.add_api_route(path, asked, methods=["HEAD"], include_in_schema=False)
    add_pages(api)
    return api


def _note(trace: Trace, answer: Made | Streamed) -> None:
    """Tell a request's trace by which version it is answered, and in how many steps."""
    headers = answer.headers
    trace.version, trace.steps = headers["X-Onestep-Model"], int(headers["X-Onestep-Steps"])
    if isinstance(answer, Made):  # a stream tells it part by part
        trace.note(answer.stages)


def _timed(request: RequestT, trace: Trace) -> RequestT:
    """The request, which asks where its time goes if it is traced."""
    return request.timed() if trace.is_timed else request


def _tracer(settings: AppSettings, ingress: str) -> "Tracer | None":
    """What sends traces, if they are wanted; otherwise nothing of it is imported."""
    if settings.traces is None:
        return None
    from .tracer import Tracer

    return Tracer(settings.traces, share=settings.trace_share, ingress=ingress)


def _until_closed(tracer: "Tracer") -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Lets the last traces be sent when the server ends."""

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        del api
        try:
            yield
        finally:
            await asyncio.to_thread(tracer.close)

    return lifespan


def _declare_keys(api: FastAPI, gate: Gate) -> None:
    """Lets the schema of the application say where a key is asked for."""
    plain = api.openapi

    def declared() -> dict[str, Any]:
        if api.openapi_schema is None:
            gate.declare(plain())  # which it keeps
        return plain()

    api.openapi = declared  # type: ignore[method-assign]  # as FastAPI's documentation tells to


async def _answer_refused(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, RequestRefused)
    return respond(refusal(error))


async def _answer_http(request: Request, error: Exception) -> Response:
    """What the framework itself refuses, in the shape of every other refusal."""
    assert isinstance(error, HTTPException)
    match error.status_code:
        case 400:  # FastAPI's answer where a body is wrong in another way than its syntax
            return respond(refusal(RequestRefused(_UNREADABLE)))
        case 404 | 405:
            message = f"there is no {request.method} {request.url.path}; see /docs"
        case 408:  # of the body: images that are late are refused otherwise
            trace_of(request.scope).reason = "slow_body"
            message = error.detail
        case _:
            message = error.detail
    answer = respond(refusal(RequestRefused(message, status=error.status_code)))
    answer.headers.update(error.headers or {})
    if error.status_code == 405:  # the framework names the verbs of the first route alone
        answer.headers["Allow"] = ", ".join(sorted(_verbs(request)))
    return answer


def _verbs(request: Request) -> set[str]:
    """What the path of a request may be asked with."""
    return {
        verb
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for verb in route.methods or ()
    }


async def _answer_invalid(request: Request, error: Exception) -> Response:
    """The first thing that is wrong with the body, in one sentence."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "path", "query")]
    match first["type"]:
        case "json_invalid":
            message, param = "the body must be JSON, got text that is not", None
        case "missing":
            message, param = "the body must be a JSON object, got nothing", None
        case "model_attributes_type":
            message, param = _NO_OBJECT, None
        case "extra_forbidden":
            allowed = ", ".join(_asked(request).model_fields)
            message, param = f"unknown field {place[0]!r}; allowed: {allowed}", place[0]
        case _:
            param = place[0] if place else None
            rule = _SUBJECT.sub("must ", str(first["msg"]))
            message = f"{param or 'the body'} {rule}, got {shown(first['input'])}"
    return respond(refusal(RequestRefused(message, param=param)))


def _asked(request: Request) -> type[BaseModel]:
    if request.method == "GET":
        return LinkQuery
    return GenerateRequest if request.url.path.endswith(_GENERATE) else ImagesRequest
