"""Load by clients of this process that ask one after the other, with or without asking again."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final, final

import httpx

TRIES: Final = 10
WAIT_S: Final = 0.25
LONGEST_S: Final = 4.0
"""Between two tries, of which the last comes half a minute after the first."""
PASSING: Final = (429, 503)
"""What the project's client sends again, beside broken connections."""


@final
@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of one request.

    Attributes:
        began: Seconds on the clock that only grows.
        ended: The same.
        status: Of HTTP; 0 where the connection broke.
        model: The version that answered.
        tries: How often it was sent.
    """

    began: float
    ended: float
    status: int
    model: str = ""
    tries: int = 1


@final
@dataclass
class Load:
    """Clients at work until they are stopped.

    Attributes:
        steps: Network evaluations of each image.
        answers: What they found.
        stopped: Whether they are to stop.
    """

    steps: int = 1
    answers: list[Answer] = field(default_factory=list)
    stopped: bool = False

    async def run(self, url: str, *, clients: int, tries: int, seconds: float) -> list[Answer]:
        """Ask for images until stopped, or for so many seconds."""
        end = time.monotonic() + seconds
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=30.0, limits=limits) as http:
            await asyncio.gather(*(self._client(http, tries, end) for _ in range(clients)))
        return self.answers

    async def _client(self, http: httpx.AsyncClient, tries: int, end: float) -> None:
        while not self.stopped and time.monotonic() < end:
            answer = await ask(http, seed=len(self.answers), tries=tries, steps=self.steps)
            self.answers.append(answer)
            if answer.status in PASSING:  # a client that is refused waits, if only for a moment
                await asyncio.sleep(0.05)


async def ask(http: httpx.AsyncClient, *, seed: int, tries: int, steps: int = 1) -> Answer:
    """One image, asked for up to so often."""
    body = {"labels": 3, "seed": seed, "format": "npy", "steps": steps}
    began = time.monotonic()
    for attempt in range(1, tries + 1):
        status, model = 0, ""
        try:
            got = await http.post("/v1/generate", json=body)
            status, model = got.status_code, got.headers.get("X-Onestep-Model", "")
        except httpx.TransportError:
            pass
        if attempt == tries or status not in (0, *PASSING):
            break
        await asyncio.sleep(min(LONGEST_S, WAIT_S * 2 ** (attempt - 1)))
    return Answer(began=began, ended=time.monotonic(), status=status, model=model, tries=attempt)
