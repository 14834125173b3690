"""What every request for images may say, whatever its shape."""

import math
from typing import Annotated, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr
from pydantic_core import PydanticCustomError

from .engine import MAX_GUIDANCE, MAX_STEPS
from .quality import Quality

MAX_DEADLINE_MS: Final = 60_000
"""Most that a client may set; the server has a bound of its own."""


def _whole(value: object) -> object:
    """JSON has one kind of number: 11.0 is an integer there; true is none."""
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _scale(value: object) -> object:
    """True is no number."""
    if isinstance(value, bool):
        raise PydanticCustomError("float_type", "Input should be a number")
    return value


Whole = BeforeValidator(_whole)
_Scale = BeforeValidator(_scale)


class Asked(BaseModel):
    """A request for images; it says what model makes them and how."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[
        str,
        Field(max_length=200, description="An id or version from /v1/models; left out, the first."),
    ] = ""
    steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_STEPS,
            description="Network evaluations for each image; left out, the model's default.",
        ),
        Whole,
    ] = None
    guidance: Annotated[
        float | None,
        Field(
            ge=1.0,
            le=MAX_GUIDANCE,
            allow_inf_nan=False,
            description="Guidance scale of a model that takes one; left out, the model's own.",
        ),
        _Scale,
    ] = None
    quality: Annotated[
        Quality | None,
        Field(
            description="Evaluations in the place of steps: the best (high, hd), the fewest (low), "
            "the default (standard, medium), or what the queue and the deadline allow (auto)."
        ),
    ] = None
    deadline_ms: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_DEADLINE_MS,
            description="Milliseconds from arrival after which nobody needs the images; without "
            "steps and quality it means auto.",
        ),
        Whole,
    ] = None
    _asker: str = PrivateAttr(default="")
    _within_s: float = PrivateAttr(default=math.inf)
    _is_timed: bool = PrivateAttr(default=False)
    _is_begun: bool = PrivateAttr(default=False)

    @property
    def asker(self) -> str:
        """Name of the API key that it came with; empty for none."""
        return self._asker

    def asked_by(self, name: str) -> Self:
        """The same request, with the name of the API key that it came with."""
        request = self.model_copy()
        request._asker = name
        return request

    @property
    def within_s(self) -> float:
        """Seconds after which the server itself needs no answer any more."""
        return self._within_s

    def needed_within(self, seconds: float) -> Self:
        """The same request, of which the server needs no answer after so many seconds."""
        request = self.model_copy()
        request._within_s = seconds
        return request

    @property
    def is_timed(self) -> bool:
        """Whether its answer tells where the time went."""
        return self._is_timed

    def timed(self) -> Self:
        """The same request, whose answer tells where the time went."""
        request = self.model_copy()
        request._is_timed = True
        return request

    @property
    def is_begun(self) -> bool:
        """Whether it is a part of an answer that is being sent, which no queue is too full for."""
        return self._is_begun

    def begun(self) -> Self:
        """The same request, as a part of an answer that is being sent."""
        request = self.model_copy()
        request._is_begun = True
        return request
