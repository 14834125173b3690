"""A client of the service: plain HTTP, without torch, for programs that only want the images."""

import base64
import io
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Final, Self, final

import httpx
import numpy as np
from PIL import Image

from .npy import npy_rows

Label = int | str
_GENERATE: Final = "/v1/generate"
_LATER: Final = (429, 503)
_BROKEN: Final = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
"""A request that fails so is sent again: an image is a function of the request alone."""
_FIRST_WAIT_S: Final = 0.25
_LONGEST_WAIT_S: Final = 30.0


@final
class ServiceError(Exception):
    """The service did not answer, or refused.

    Args:
        message: One sentence.
        status: HTTP status; None where there was no answer.
        param: The field of the request that is at fault, if it is one.
        is_passing: Whether the same request may succeed later.
        retry_after_s: Seconds after which that may be, if the service says so.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        param: str | None = None,
        is_passing: bool = False,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.is_passing = is_passing
        self.retry_after_s = retry_after_s


@final
@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that may be asked for.

    Attributes:
        id: The name to ask for it by.
        version: The registered version behind the name.
        size: Width x height of its images.
        shape: Channels, height and width of them.
        classes: Number of classes; 0 without.
        labels: Names of its classes; empty without.
        steps: Network evaluations that it allows.
        default_steps: The number taken when a request names none.
        default_guidance: The scale taken when a request names none; None for a model without.
        metrics: Quality by name.
        problem: Why the name does not mean the version that it should; None where it does.
    """

    id: str
    version: str
    size: str
    shape: Sequence[int]
    classes: int
    labels: Sequence[str]
    steps: Sequence[int]
    default_steps: int
    default_guidance: float | None
    metrics: Mapping[str, float]
    problem: str | None


@final
@dataclass(frozen=True, kw_only=True)
class Generated:
    """Images as the network made them, and how to make them again.

    Attributes:
        images: float32 in the shape [n, c, h, w], in [-1, 1] but for the model's overshoot.
        model: The registered version that made them.
        steps: Network evaluations for each image.
        guidance: The guidance scale; None for a model that takes none.
        seed: Seed of all images; None where each has its own seed or noise.
        start: Number of the first image within the seed.
    """

    images: np.ndarray
    model: str
    steps: int
    guidance: float | None
    seed: int | None
    start: int


@final
class Client:
    """Asks a service for images; a context manager.

    Requests that meet a broken connection, a full queue or a service that starts are sent again,
    not before the service says so. That changes no image.

    Args:
        url: Where the service is.
        key: Sent as a bearer token; None for a service without keys.
        timeout_s: Seconds without a byte after which an answer is given up.
        retries: How often a request is sent again.
        longest_wait_s: Seconds that the service may ask to wait; where it asks for more, a request
            is not sent again.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 4,
        longest_wait_s: float = 60.0,
    ) -> None:
        if timeout_s <= 0 or retries < 0 or longest_wait_s < 0:
            raise ValueError(
                "timeout_s must be above 0, retries and longest_wait_s at least 0, "
                f"got {timeout_s}, {retries} and {longest_wait_s}"
            )
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)
        self._retries = retries
        self._longest_wait_s = longest_wait_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def ready(self) -> bool:
        """Whether every served model is loaded; asks once."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def models(self) -> list[ServedModel]:
        """The models that may be asked for; a request that names none gets the first."""
        cards = self._ask("GET", "/v1/models").json()["data"]
        names = [field.name for field in fields(ServedModel)]
        return [ServedModel(**{name: card[name] for name in names}) for card in cards]

    def images(
        self,
        prompt: Label = "",
        *,
        n: int = 1,
        seed: int | None = None,
        steps: int | None = None,
        quality: str | None = None,
        deadline_ms: int | None = None,
        guidance: float | None = None,
        model: str = "",
    ) -> list[Image.Image]:
        """Pictures of one class.

        Args:
            prompt: The class: its number or its name; empty for a model without classes.
            n: Number of images.
            seed: Same seed, same images; None lets the service draw one.
            steps: Network evaluations for each image; None for the model's default.
            quality: In the place of steps: high, low, standard or auto; None for none of them.
            deadline_ms: Milliseconds after which the service is to give up; without steps and
                quality it takes as many as fit.
            guidance: Scale of a model that takes one; None for its own.
            model: An id or a version; empty for the first model.

        Returns:
            The pictures; their ``info`` holds model, seed, k and steps, to make them again.
        """
        body = _body(
            prompt=str(prompt),
            n=n,
            seed=seed,
            steps=steps,
            quality=quality,
            deadline_ms=deadline_ms,
            guidance=guidance,
            model=model,
        )
        answer = self._ask("POST", "/v1/images/generations", body).json()
        found: list[Image.Image] = []
        for k, data in enumerate(answer["data"]):
            image = Image.open(io.BytesIO(base64.b64decode(data["b64_json"])))
            image.load()
            image.info.update({name: answer[name] for name in ("model", "seed", "steps")}, k=k)
            found.append(image)
        return found

    def generate(
        self,
        labels: Label | Sequence[Label] | None = None,
        *,
        n: int | None = None,
        seed: int | None = None,
        start: int = 0,
        seeds: Sequence[int] | None = None,
        noise: np.ndarray | None = None,
        steps: int | None = None,
        quality: str | None = None,
        deadline_ms: int | None = None,
        guidance: float | None = None,
        model: str = "",
    ) -> Generated:
        """Images to the bit, each of its own label and noise if need be.

        Args:
            labels: One class for all images, or one for each; None for a model without classes.
            n: Number of images; it may follow from the others.
            seed: Of all images together; drawn where neither seeds nor noise are given.
            start: Number of the first image within the seed.
            seeds: One for each image.
            noise: float32 in the shape [n, c, h, w]; [draws, n, c, h, w] where the sampler draws
                more than once.
            steps: Network evaluations for each image; None for the model's default.
            quality: In the place of steps: high, low, standard or auto; None for none of them.
            deadline_ms: Milliseconds after which the service is to give up; without steps and
                quality it takes as many as fit.
            guidance: Scale of a model that takes one; None for its own.
            model: An id or a version; empty for the first model.

        Returns:
            The images.
        """
        body = _body(
            labels=_plain(labels),
            n=n,
            seed=seed,
            start=start,
            seeds=_plain(seeds),
            noise=None if noise is None else _encoded(noise),
            steps=steps,
            quality=quality,
            deadline_ms=deadline_ms,
            guidance=guidance,
            model=model,
            format="npy",
        )
        answer = self._ask("POST", _GENERATE, body)
        return _generated(np.load(io.BytesIO(answer.content), allow_pickle=False), answer.headers)

    def stream(
        self,
        labels: Label | Sequence[Label] | None = None,
        *,
        n: int | None = None,
        seed: int | None = None,
        start: int = 0,
        seeds: Sequence[int] | None = None,
        steps: int | None = None,
        quality: str | None = None,
        guidance: float | None = None,
        model: str = "",
    ) -> Iterator[Generated]:
        """The same for many images, part by part while they are made, all by one version.

        A connection that breaks is taken up at the image that was due, by the same version.

        Args:
            labels: One class for all images, or one for each; None for a model without classes.
            n: Number of images; it may follow from the others.
            seed: Of all images together; drawn where no seeds are given.
            start: Number of the first image within the seed.
            seeds: One for each image.
            steps: Network evaluations for each image; None for the model's default.
            quality: In the place of steps: high, low, standard or auto; None for none of them.
            guidance: Scale of a model that takes one; None for its own.
            model: An id or a version; empty for the first model.

        Yields:
            Generated: The next images, 64 at most.
        """
        body = _body(
            labels=_plain(labels),
            n=n,
            seed=seed,
            start=start,
            seeds=_plain(seeds),
            steps=steps,
            quality=quality,
            guidance=guidance,
            model=model,
            format="npy",
            stream=True,
        )
        failures = 0
        while body:
            try:
                for part, left in self._parts(body):
                    body, failures = _rest(body, part, left), 0
                    yield part
                if body:
                    raise ServiceError("the stream ended before its last image", is_passing=True)
            except ServiceError as error:
                self._wait(error, failures)
                failures += 1

    def _parts(self, body: "_Body") -> "Iterator[tuple[Generated, int]]":
        """Parts of one answer, and how many images come after each."""
        try:
            with self._http.stream("POST", _GENERATE, json=body) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refused(answer)
                done = 0
                for images, left in npy_rows(answer.iter_bytes()):
                    yield _generated(images, answer.headers, done=done), left
                    done += len(images)
        except httpx.HTTPError as error:
            raise _failed(error) from error

    def _ask(self, method: str, path: str, body: "_Body | None" = None) -> httpx.Response:
        failures = 0
        while True:
            try:
                return self._once(method, path, body)
            except ServiceError as error:
                self._wait(error, failures)
                failures += 1

    def _once(self, method: str, path: str, body: "_Body | None") -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise _failed(error) from error
        if not answer.is_success:
            raise _refused(answer)
        return answer

    def _wait(self, error: ServiceError, failures: int) -> None:
        """Waits until a request may be sent again, or raises why it may not."""
        is_too_long = error.retry_after_s > self._longest_wait_s
        if not error.is_passing or failures >= self._retries or is_too_long:
            raise error
        own_s = min(_FIRST_WAIT_S * 2**failures, _LONGEST_WAIT_S)
        # Many clients that were refused at once must not come back at once.
        time.sleep(max(own_s, error.retry_after_s) * random.uniform(1.0, 1.5))


_Body = dict[str, object]


def _body(**fields: object) -> _Body:
    """What a request says; what is left out, the service decides."""
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _plain(values: Label | Sequence[Label] | None) -> Label | list[Label] | None:
    """Values that JSON knows; an array's numbers are none."""
    if isinstance(values, Sequence | np.ndarray) and not isinstance(values, str):
        return [_plain_one(value) for value in values]
    return None if values is None else _plain_one(values)


def _plain_one(value: Label) -> Label:
    if isinstance(value, str):
        return value
    if value % 1 != 0:
        raise ValueError(f"labels and seeds must be whole numbers or names, got {value}")
    return int(value)


def _encoded(noise: np.ndarray) -> str:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(noise), allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode()


def _generated(images: np.ndarray, headers: httpx.Headers, *, done: int = 0) -> Generated:
    def said(name: str) -> str | None:
        return headers.get(f"X-Onestep-{name}")

    seed, guidance = said("Seed"), said("Guidance")
    return Generated(
        images=images,
        model=headers["X-Onestep-Model"],
        steps=int(headers["X-Onestep-Steps"]),
        guidance=None if guidance is None else float(guidance),
        seed=None if seed is None else int(seed),
        start=0 if seed is None else int(said("Start") or 0) + done,
    )


def _rest(body: _Body, part: Generated, left: int) -> _Body:
    """The request for what comes after a part; empty for nothing."""
    if left == 0:
        return {}
    rest = {name: value for name, value in body.items() if name != "quality"}
    rest |= {"model": part.model, "steps": part.steps, "n": left}
    for name in ("labels", "seeds"):
        if isinstance(listed := body.get(name), list):
            rest[name] = listed[-left:]
    if "seeds" not in body:
        rest |= {"seed": part.seed, "start": part.start + len(part.images)}
    return rest


def _refused(answer: httpx.Response) -> ServiceError:
    try:
        error = answer.json()["error"]
        message, param = str(error["message"]), error["param"]
    except (ValueError, KeyError, TypeError):  # a proxy's page
        message, param = f"the service answered {answer.status_code}: {answer.text[:200]}", None
    after = answer.headers.get("Retry-After", "")
    return ServiceError(
        message,
        status=answer.status_code,
        param=param,
        is_passing=answer.status_code in _LATER,
        retry_after_s=float(after) if after.isdecimal() else 0.0,
    )


def _failed(error: httpx.HTTPError) -> ServiceError:
    message = f"the service at {error.request.url} does not answer: {str(error) or 'no byte came'}"
    return ServiceError(message, is_passing=isinstance(error, _BROKEN))
