"""The address of an image: all that it depends on, so that the server need not keep it."""

from hashlib import sha256
from typing import Annotated, Final, Literal
from urllib.parse import quote, urlencode

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from .engine import MAX_GUIDANCE, MAX_SEED, MAX_STEPS, Draw
from .native import GenerateRequest, Made

PATH: Final = "/v1/images/{name}/{version}/{seed}/{k}.{form}"
Picture = Literal["png", "webp"]
Name = Annotated[str, Path(max_length=100)]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Whole53 = Annotated[int, Path(ge=0, le=MAX_SEED)]


class LinkQuery(BaseModel):
    """What stands behind the question mark; what is left out, the model decides."""

    model_config = ConfigDict(extra="forbid")

    labels: Annotated[str, Field(max_length=200, description="The class: number or name.")] = ""
    steps: Annotated[int | None, Field(ge=1, le=MAX_STEPS, description="Network evaluations.")] = (
        None
    )
    guidance: Annotated[
        float | None,
        Field(ge=1.0, le=MAX_GUIDANCE, description="Scale of a model that takes one."),
    ] = None

    def request(self, version: str, seed: int, k: int, form: Picture) -> GenerateRequest:
        """The request for the image at this address.

        Args:
            version: The registered version, such as ``digits/3``.
            seed: Seed of its noise.
            k: Its number within the seed.
            form: Kind of the file.

        Returns:
            A request for one image.
        """
        return GenerateRequest(
            model=version,
            labels=int(self.labels) if _is_number(self.labels) else self.labels or None,
            seed=seed,
            start=k,
            steps=self.steps,
            guidance=self.guidance,
            format=form,
        )


def _is_number(text: str) -> bool:
    """Whether a text is a class number, as it stands in an address, and no name."""
    return text.isascii() and text.isdecimal()


def link(version: str, draw: Draw, k: int, form: Picture) -> str:
    """Where an image of a request is, below the root of the server.

    Args:
        version: The registered version, such as ``digits/3``.
        draw: The accepted request.
        k: Number of the image within it.
        form: Kind of the file.

    Returns:
        The path with its query, as in ``v1/images/digits/3/7/0.png?labels=3&steps=1``.
    """
    given = {"labels": draw.label, "steps": draw.steps, "guidance": draw.guidance}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    return f"v1/images/{quote(version)}/{draw.seed}/{k}.{form}?{query}"


def cache_headers(made: Made, *, is_private: bool) -> dict[str, str]:
    """What caches may do with an image that is never another.

    The tag is made of the bytes, so that it says no more than is true where an engine that is not
    strict rounds a level the other way.

    Args:
        made: The file.
        is_private: Whether it is for this client alone.

    Returns:
        Headers of the answer.
    """
    whose = "private" if is_private else "public"
    return {
        "Cache-Control": f"{whose}, max-age=31536000, immutable",
        "ETag": f'"{sha256(made.content).hexdigest()[:32]}"',
        "Vary": "Authorization",
    }


def is_known(etag: str, if_none_match: str) -> bool:
    """Whether a client has the file already.

    Args:
        etag: Tag of the file.
        if_none_match: The header of that name; empty where there is none.

    Returns:
        True where the header names the tag, or any.
    """
    named = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return etag in named or "*" in named
