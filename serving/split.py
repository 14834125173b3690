"""Which requests a version on trial gets: always the same ones for the same key."""

import json
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, final

from .engine import MAX_SEED
from .native import GenerateRequest, RequestT
from .schema import ImagesRequest

_ORIGIN: Final = {"labels", "seed", "start", "seeds", "noise"}
_DIGEST_BYTES: Final = 8


@final
@dataclass(frozen=True, kw_only=True)
class Split:
    """A share of all keys, which grows and shrinks at its edge alone.

    Attributes:
        version: The version on trial; another one gets other keys.
        percent: The share, in (0, 100].
        shadow: Whether it gets copies, whose answers nobody sees.
    """

    version: str
    percent: float
    shadow: bool = False

    def takes(self, key: str) -> bool:
        """Whether requests of a key belong to the share.

        Args:
            key: As ``sticky_key`` tells it.
        """
        digest = sha256(f"{self.version}\n{key}".encode()).digest()[:_DIGEST_BYTES]
        place = int.from_bytes(digest, "big") / 2 ** (8 * _DIGEST_BYTES)
        return 100.0 * place < self.percent


def seeded(request: RequestT) -> RequestT:
    """The request with a seed, drawn where it has none, so that it can be made again.

    Args:
        request: A request.
    """
    if request.seed is not None:
        return request
    if isinstance(request, GenerateRequest) and (request.seeds or request.noise) is not None:
        return request
    return request.model_copy(update={"seed": secrets.randbelow(MAX_SEED + 1)})


def sticky_key(request: ImagesRequest | GenerateRequest) -> str:
    """What decides on which side of a split a request is.

    The ``user`` of an OpenAI client, under the API key that it came with; else the key; else the
    labels and seeds, so that the same request gets the same answer.

    Args:
        request: A request that has its seed.
    """
    if isinstance(request, ImagesRequest) and request.user:
        return f"user {json.dumps([request.asker, request.user])}"
    if request.asker:
        return f"key {request.asker}"
    if isinstance(request, ImagesRequest):
        return f"images {json.dumps([request.prompt, request.seed])}"
    return f"rows {request.model_dump_json(include=_ORIGIN)}"
