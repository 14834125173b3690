"""Why a request gets no images: each reason is one sentence and one HTTP status.

RequestRefused (422)
    UnknownModel (404)
    Overloaded (429)
    DeadlineUnmet (408)
    ClientLeft (499)
    LoadFailed (503)
    ModelDead (503)
"""

import re
from typing import Final, final

FAILED: Final = "the server failed to answer; its log says why"
NOT_READY: Final = "no model is ready; try again in a second"
RETRY_AFTER_S: Final = 1
"""Seconds until a client should ask again where nothing better is known."""
_LONGEST: Final = 80
_PLACE: Final = "(a place on the server)"
_QUOTED: Final = re.compile(r"(?<!\w)(['\"`])(.*?)\1(?!\w)", re.DOTALL)
_WORD: Final = re.compile(r"([(\[]*)\S*[/\\\0]\S*?([)\].,;:]*)(?!\S)")
"""What holds a slash, or the mark of a place that was found; the punctuation around it stays."""
_READABLE: Final = re.compile(
    r"['\"`(\[]*(?:[A-Za-z0-9][\w.-]*/\d+|(?:image|application|text)/[a-z0-9+-]+)"
    r"(?:'s)?['\"`)\].,;:!?]*"
)
"""A reference, a quotient, or a media type."""
_BESIDE: Final = re.compile(r"\0(?:\s+(?:\w+\s+){0,2}\0)+")
"""Parts of one place with blanks in it, or two places."""


class RequestRefused(ValueError):
    """The request asks for what the model cannot give.

    Args:
        message: One sentence: what, got, allowed.
        param: The field of the request that is at fault, if it is one.
        status: HTTP status of the answer.
        retry_after_s: Seconds until another attempt may do better, where one may.
        is_predicted: Whether it was only predicted that the images would come too late.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        status: int = 422,
        retry_after_s: int = RETRY_AFTER_S,
        is_predicted: bool = False,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.status = status
        self.retry_after_s = retry_after_s
        self.is_predicted = is_predicted


@final
class UnknownModel(RequestRefused):
    """The request names a model that is not served here.

    Args:
        got: The name in the request.
        allowed: The names that are served.
    """

    def __init__(self, got: str, *, allowed: tuple[str, ...]) -> None:
        names = ", ".join(allowed)
        super().__init__(
            f"model must be one that is served here, got {shown(got)}; allowed: {names}",
            param="model",
            status=404,
        )


@final
class Overloaded(RequestRefused):
    """Too many requests wait already, or they ask for too many images.

    Args:
        waiting: How many requests wait.
        retry_after_s: Seconds until there may be room.
    """

    def __init__(self, waiting: int, *, retry_after_s: int = RETRY_AFTER_S) -> None:
        when = "a second" if retry_after_s == 1 else f"{retry_after_s} s"
        super().__init__(
            f"{waiting} requests wait already; try again in {when}",
            status=429,
            retry_after_s=retry_after_s,
        )


@final
class DeadlineUnmet(RequestRefused):
    """The images would come too late, or were not there in time.

    Args:
        room_s: Seconds that the request still had.
        is_asked: Whether the request gave the deadline, or the server did.
        predicted_s: Seconds that it was predicted to take; None where its time was over.
        steps: Its evaluations; None where its time was over.
    """

    def __init__(
        self,
        room_s: float,
        *,
        is_asked: bool,
        predicted_s: float | None = None,
        steps: int | None = None,
    ) -> None:
        got = f"{1000 * room_s:.0f} ms"
        what = "deadline_ms" if is_asked else "the time that a request may take"
        message = f"{what} must leave room for the images, but {got} went by without them"
        if predicted_s is not None:
            needed = f"the {1000 * predicted_s:.0f} ms that {steps} steps are predicted to take now"
            message = f"{what} must leave {needed}, got {got}"
        super().__init__(
            message,
            param="deadline_ms" if is_asked else None,
            status=408,
            is_predicted=predicted_s is not None,
        )


@final
class ClientLeft(RequestRefused):
    """Nobody waits for the answer any more."""

    def __init__(self) -> None:
        super().__init__("the client left before its answer", status=499)


@final
class LoadFailed(RequestRefused):
    """A model that is served here does not load now.

    Args:
        version: Its version.
        why: What is wrong with it.
        retry_after_s: Seconds until it may be tried again.
    """

    def __init__(self, version: str, *, why: str, retry_after_s: int = RETRY_AFTER_S) -> None:
        self.why = without_paths(why)
        super().__init__(
            f"{version} does not load: {self.why}", status=503, retry_after_s=retry_after_s
        )


@final
class ModelDead(RequestRefused):
    """A model that was loaded answers no more.

    Args:
        why: What happened, for the log.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__("the model answers no more; try again in a second", status=503)


def shown(value: object) -> str:
    """What a user sent, short enough for one sentence."""
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def without_paths(text: str) -> str:
    """A reason as users may read it: without the folders and addresses of the server.

    Whatever holds a slash or a backslash is taken for one, up to the next blanks, or up to its
    quotes.

    Args:
        text: One sentence; a reference such as digits/3 is no path.

    Returns:
        The sentence.
    """
    text = _QUOTED.sub(_marked_quote, text)
    text = _WORD.sub(_marked_word, text)
    return _BESIDE.sub("\0", text).replace("\0", _PLACE)


def _marked_quote(found: re.Match[str]) -> str:
    words = re.findall(r"\S*[/\\]\S*", found[2])
    return found[0] if all(map(_READABLE.fullmatch, words)) else "\0"


def _marked_word(found: re.Match[str]) -> str:
    if _READABLE.fullmatch(found[0]):
        return found[0]
    return f"{found[1]}\0{found[2]}"
