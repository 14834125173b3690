"""A walk: a sampler's way from noise to data, which stops wherever it asks its map."""

from dataclasses import dataclass
from typing import final

import torch
from greenlet import getcurrent, greenlet
from jaxtyping import Float, Int
from torch import Tensor

from ..methods.core.condition import Condition
from ..methods.core.flow_map import Domain, FlowMap
from ..methods.core.sampler import AbstractSampler


@final
@dataclass(frozen=True, kw_only=True)
class Question:
    """What a walk asks its map: the average velocity of each row.

    Attributes:
        x: States at s.
        s: Start times.
        t: End times.
        condition: Condition of each row, or None.
    """

    x: Float[Tensor, " b *d"]
    s: Float[Tensor, " b"]
    t: Float[Tensor, " b"]
    condition: Condition | None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Int[Tensor, " n"] | slice) -> "Question":
        condition = None if self.condition is None else self.condition[rows]
        return Question(x=self.x[rows], s=self.s[rows], t=self.t[rows], condition=condition)


@final
class Asking(FlowMap):
    """The map as a sampler on a walk sees it: it leaves the answer to whoever leads the walk.

    Args:
        domain: That of the map which will answer.
    """

    def __init__(self, *, domain: Domain) -> None:
        super().__init__(domain=domain)

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """The answer, once somebody has given it."""
        leader = getcurrent().parent
        assert leader is not None, "a sampler asks this map on a walk alone"
        answer: Tensor = leader.switch(Question(x=x, s=s, t=t, condition=condition))
        return answer


@final
class Walk:
    """One sampler on its way, on the thread that began it and no other.

    Args:
        sampler: The sampler.
        asking: The map that it asks.
        noise: Its noise.
        condition: Condition of each row, or None.

    Attributes:
        question: What it asks now; None at its end.
    """

    def __init__(
        self,
        sampler: AbstractSampler,
        asking: Asking,
        noise: Float[Tensor, "draws b *d"],
        condition: Condition | None,
    ) -> None:
        self._way = greenlet(lambda: sampler.sample(asking, noise, condition))
        self._end: Tensor | None = None
        self.question: Question | None = None
        self._go()

    def __del__(self) -> None:
        # One that is left half way ends its sampler's blocks here, which would turn gradients off.
        with torch.no_grad():
            del self._way

    @property
    def end(self) -> Float[Tensor, " b *d"]:
        """The samples, where nothing is left to ask."""
        assert self._end is not None, "a walk ends once all its questions are answered"
        return self._end

    def answer(self, u: Float[Tensor, " b *d"]) -> None:
        """Go on to the next question, or to the end.

        Args:
            u: Average velocity of each row of the question.
        """
        self._go(u)

    def _go(self, *answers: Tensor) -> None:
        # Samplers turn gradients off until their end, for the thread: others must not see it.
        with torch.no_grad():
            found: Question | Tensor = self._way.switch(*answers)
        self.question = found if isinstance(found, Question) else None
        self._end = found if isinstance(found, Tensor) else None
