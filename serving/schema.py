"""What travels over HTTP: OpenAI's images shape, with seed and steps beside it."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, PrivateAttr

from .asked import Asked, Whole
from .engine import MAX_IMAGES, MAX_SEED
from .errors import RETRY_AFTER_S
from .stage import Stage


def _example(**fields: JsonValue) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [fields]})


def _or_null(schema: dict[str, JsonValue]) -> None:
    """Says of a field's schema that null means what is taken where the field is left out."""
    about = ("default", "description", "title")
    own = {name: schema.pop(name) for name in [*schema] if name not in about}
    schema["anyOf"] = [own, {"type": "null"}]


def _left_out(default: JsonValue) -> BeforeValidator:
    """Takes null for a field that is left out."""
    return BeforeValidator(lambda value: default if value is None else value)


_PLACE: Final = "v1/images/digits/3/7/0.png?labels=3&steps=1"
_CARD: Final[dict[str, JsonValue]] = {
    "id": "digits@champion",
    "object": "model",
    "created": 1795363200,
    "owned_by": "digits",
    "version": "digits/3",
    "method": "MeanFlow",
    "size": "8x8",
    "labels": ["0", "1", "2", "3"],
    "steps": [1, 2, 4],
    "default_steps": 1,
    "default_guidance": None,
    "classes": 4,
    "shape": [1, 8, 8],
    "parents": {"teacher": "digits/1"},
    "lineage": [
        {
            "version": "digits/1",
            "method": "FlowMatching",
            "weights_sha256": "ab" * 32,
            "data_digest": "cd" * 32,
            "parents": {},
        }
    ],
    "card": {
        "registered": "2026-11-22T16:30:45+00:00",
        "network": "UNet",
        "weights": "online",
        "weights_sha256": "ef" * 32,
        "record_sha256": "01" * 32,
        "data_digest": "cd" * 32,
        "seed": 0,
        "revision": "b50d320",
        "licence": None,
        "source": None,
    },
    "metrics": {"eval/1nn/nfe_1": 0.61, "eval/1nn/nfe_4": 0.57},
    "nfe_curve": {"eval/1nn": {"1": 0.61, "4": 0.57}},
    "problem": None,
    "canary": None,
}


class ImagesRequest(Asked):
    """Asks for images of one class."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "3", "n": 4, "seed": 0, "steps": 1},
                {"prompt": "3", "n": 2, "response_format": "url", "output_format": "webp"},
            ]
        },
    )

    prompt: Annotated[
        str,
        Field(
            max_length=200,
            description="Class label: its number or its name. Empty for a model without classes.",
        ),
    ] = ""
    n: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_IMAGES,
            description="Number of images.",
            json_schema_extra=_or_null,
        ),
        Whole,
        _left_out(1),
    ] = 1
    size: Annotated[
        str | None,
        Field(
            max_length=20,
            description="Width x height, as in 8x8; the model's own only, which auto means.",
        ),
    ] = None
    response_format: Annotated[
        Literal["b64_json", "url"],
        Field(
            description="Files in base64, or addresses at which they are made when asked.",
            json_schema_extra=_or_null,
        ),
        _left_out("b64_json"),
    ] = "b64_json"
    output_format: Annotated[
        Literal["png", "webp"],
        Field(description="Kind of the files; both are without loss.", json_schema_extra=_or_null),
        _left_out("png"),
    ] = "png"
    background: Annotated[
        Literal["auto"] | None, Field(description="OpenAI's default, and nothing else.")
    ] = None
    moderation: Annotated[
        Literal["auto"] | None, Field(description="OpenAI's default, and nothing else.")
    ] = None
    stream: Annotated[
        Literal[False] | None,
        Field(description="OpenAI's default, and nothing else; /v1/generate streams."),
    ] = None
    user: Annotated[
        str | None,
        Field(
            max_length=200,
            description="Decides with which version of a canary it is; no image depends on it.",
        ),
    ] = None
    seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_SEED,
            description="Same seed, same images; left out, the server draws one and returns it.",
        ),
        Whole,
    ] = None


class ImageData(BaseModel):
    """One image, as a file or as the address of one.

    Attributes:
        b64_json: A file in base64.
        url: Where the file is; it names all that the image depends on.
    """

    b64_json: str | None = None
    url: str | None = None


class Measured(BaseModel):
    """What was measured at a number of evaluations when the version was registered.

    Attributes:
        metric: Its name.
        value: Its value.
    """

    metric: str
    value: float


class Usage(BaseModel):
    """What the images cost.

    Attributes:
        images: How many images were made.
        network_evaluations: Forwards of the network, summed over the images; 0 for addresses.
    """

    images: int
    network_evaluations: int


class ImagesResponse(BaseModel):
    """The images, and what is needed to make them again.

    Attributes:
        created: When, in seconds since 1970.
        data: The images, in the order of their noise.
        model: The registered version that made them.
        seed: The seed of the noise.
        steps: Network evaluations for each image.
        measured: What the version was registered with at so many; null where nothing was measured.
        guidance: The guidance scale; null for a model that takes none.
        size: Width x height.
        usage: What they cost.
    """

    model_config = _example(
        created=1795363200,
        data=[{"b64_json": None, "url": f"http://localhost:8000/{_PLACE}"}],
        model="digits/3",
        seed=7,
        steps=1,
        measured={"metric": "eval/1nn_deviation", "value": 0.11},
        guidance=None,
        size="8x8",
        usage={"images": 1, "network_evaluations": 0},
    )

    created: int
    data: list[ImageData]
    model: str
    seed: int
    steps: int
    measured: Measured | None
    guidance: float | None
    size: str
    usage: Usage
    _stages: tuple[Stage, ...] = PrivateAttr(default=())

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Where the time went, where the request asks."""
        return self._stages

    def timed(self, stages: tuple[Stage, ...]) -> Self:
        """The same answer, with where the time went.

        Args:
            stages: What the replica tells, beside the body.
        """
        answer = self.model_copy()
        answer._stages = stages
        return answer


class CanaryCard(BaseModel):
    """The last trial of a version beside the one that a name means.

    Attributes:
        version: The version on trial.
        state: running, promoted, rolled_back or stopped.
        percent: Share of the requests.
        shadow: Whether it gets copies of them, whose answers nobody sees.
        images: Images that it made for requests, of so many.
        images_wanted: Images after which it is promoted.
        requests: Requests that it answered, or should have.
        errors: Those of them that the champion answered in its place.
        dropped: Shadows that were left out because others waited.
        latency: Median ratio of its time to the champion's for the same images; null until known.
        compared: Images of both that are compared so far.
        drift: Energy coefficient of its images and the champion's, in [0, 1]; null until known.
        p_value: Chance of such a drift of equal laws; null until known.
        why: The reason of its last move.
    """

    version: str
    state: Literal["running", "promoted", "rolled_back", "stopped"]
    percent: float
    shadow: bool
    images: int = 0
    images_wanted: int
    requests: int = 0
    errors: int = 0
    dropped: int = 0
    latency: float | None = None
    compared: int = 0
    drift: float | None = None
    p_value: float | None = None
    why: str


class Ancestor(BaseModel):
    """A registered version that a model was made from, itself or by way of others.

    Attributes:
        version: The version.
        method: The class of its method; null, as all else, where the registry cannot tell any more.
        weights_sha256: SHA-256 of the file of its weights.
        data_digest: SHA-256 of its data set and their split.
        parents: What it was made from, by role: versions, or checksums of pairs.
    """

    version: str
    method: str | None = None
    weights_sha256: str | None = None
    data_digest: str | None = None
    parents: dict[str, str] = {}


class RegistryCard(BaseModel):
    """What the registry holds about a version, to trust and to repeat it.

    Attributes:
        registered: When, in UTC, ISO 8601.
        network: The class of its network.
        weights: Which these are, such as online or a half-life of their average.
        weights_sha256: SHA-256 of their file.
        record_sha256: SHA-256 of the record that the registry keeps beside it.
        data_digest: SHA-256 of its data set and their split.
        seed: Seed of its run.
        revision: Revision of the code.
        licence: Terms of weights that were trained elsewhere; null for a run of its own.
        source: Address where such weights come from; null for none.
    """

    registered: str
    network: str
    weights: str
    weights_sha256: str
    record_sha256: str
    data_digest: str
    seed: int
    revision: str
    licence: str | None = None
    source: str | None = None


class ModelCard(BaseModel):
    """A model that is served.

    Attributes:
        id: The name to ask for it by.
        object: Always model.
        created: When it was loaded, in seconds since 1970.
        owned_by: The registered model's name.
        version: The registered version behind the name.
        method: The class of its method.
        size: Width x height of its images.
        labels: Names of its classes, in the order of their numbers; empty without classes.
        steps: Network evaluations that it allows.
        default_steps: The number taken when the request names none.
        default_guidance: The scale taken when the request names none; null for a model without.
        classes: Number of classes; 0 without.
        shape: Channels, height and width of its images.
        noise_shape: Those of its noise: models that share them and a seed share the noise.
        parents: What it was made from, by role: versions, or checksums of pairs.
        lineage: The registered versions among these, those that they were made from, and so on to
            the beginning, each once and the nearest first.
        card: What the registry holds about the version; null for one that is in none.
        metrics: Quality by name, as it was registered.
        nfe_curve: Of each metric that was measured so, its value at numbers of evaluations.
        problem: Why the name does not mean the version that it should; null where it does.
        canary: The last version on trial for the name; null where there never was one.
    """

    model_config = _example(**_CARD)

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    version: str
    method: str
    size: str
    labels: list[str]
    steps: list[int]
    default_steps: int
    default_guidance: float | None
    classes: int
    shape: list[int]
    noise_shape: list[int]
    parents: dict[str, str]
    lineage: list[Ancestor] = []
    card: RegistryCard | None = None
    metrics: dict[str, float]
    nfe_curve: dict[str, dict[int, float]]
    problem: str | None = None
    canary: CanaryCard | None = None


class ModelList(BaseModel):
    """All models that are served.

    Attributes:
        object: Always list.
        data: Those that are loaded; a request that names none gets the first.
        missing: Names of those that are not, and why.
    """

    model_config = _example(
        object="list", data=[_CARD], missing={"faces@champion": "it is not loaded yet"}
    )

    object: Literal["list"] = "list"
    data: list[ModelCard]
    missing: dict[str, str] = {}


class Health(BaseModel):
    """The server answers, and with which version."""

    model_config = _example(status="ok", model="digits/3")

    status: Literal["ok"] = "ok"
    model: str


class Ready(BaseModel):
    """Every served model is loaded."""

    model_config = _example(status="ok")

    status: Literal["ok"] = "ok"


Kind = Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]


class Fault(BaseModel):
    """Why a request was refused.

    Attributes:
        message: One sentence: what, got, allowed.
        type: Whose fault it is.
        param: The field at fault, if it is one.
        code: Its kind in one word, for programs; null for a field that is out of range.
    """

    message: str
    type: Kind
    param: str | None
    code: str | None


class Refusal(BaseModel):
    """A refused request."""

    model_config = _example(
        error={
            "message": "n must be less than or equal to 64, got 65",
            "type": "invalid_request_error",
            "param": "n",
            "code": None,
        }
    )

    error: Fault
    _status: int = PrivateAttr(default=500)
    _retry_after_s: int = PrivateAttr(default=RETRY_AFTER_S)
    _is_predicted: bool = PrivateAttr(default=False)

    @property
    def status(self) -> int:
        """HTTP status of the answer."""
        return self._status

    @property
    def retry_after_s(self) -> int:
        """Seconds until another attempt may do better, told with 429 and 503."""
        return self._retry_after_s

    @property
    def is_predicted(self) -> bool:
        """Whether it was only predicted that the images would come too late."""
        return self._is_predicted

    def at(self, status: int, *, retry_after_s: int, is_predicted: bool = False) -> Self:
        """The same refusal, with what is known beside the body.

        Args:
            status: HTTP status.
            retry_after_s: Seconds until another attempt may do better.
            is_predicted: Whether it was only predicted that the images would come too late.
        """
        found = self.model_copy()
        found._status, found._retry_after_s = status, retry_after_s
        found._is_predicted = is_predicted
        return found
