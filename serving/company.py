"""Walks that share their forwards: rows of any sampler, class, seed and step run side by side."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from ..methods.core.condition import Condition
from .walk import Question, Walk

KeyT = TypeVar("KeyT")
Answer = Callable[[Question], Float[Tensor, " b *d"]]


@final
class Company(Generic[KeyT]):
    """Walks under way, of which each forward takes as many rows as it holds.

    Each in its turn gives what rows still fit, and the rest in its next: many rows of one do not
    keep a few of another waiting for longer than a round.

    Args:
        answer: Answers a question of at most so many rows.
        rows: Most rows of a forward.
    """

    def __init__(self, answer: Answer, *, rows: int) -> None:
        self._answer = answer
        self._rows = rows
        self._turns: deque[_Turn[KeyT]] = deque()
        self._running: list[_Turn[KeyT]] = []

    def __len__(self) -> int:
        return len(self._turns) + len(self._running)

    @property
    def waiting(self) -> int:
        """Walks of which no row is in the present forward."""
        return len(self._turns)

    @property
    def absent(self) -> list[KeyT]:
        """Keys of these walks, also while another thread runs the forward."""
        return [turn.key for turn in self._turns.copy()]

    @property
    def left(self) -> list[tuple[int, int]]:
        """Rows and evaluations that each walk still needs, at most; between two forwards."""
        return [(turn.rows, turn.left) for turn in self._turns]

    def add(self, key: KeyT, walk: Walk, *, steps: int = 1) -> None:
        """Take a walk in.

        Args:
            key: By which its end is returned.
            walk: A walk that has a question.
            steps: How many it will ask.
        """
        self._turns.append(_Turn(key, walk, steps=steps))

    def keep(self, wanted: Callable[[KeyT], bool]) -> None:
        """Leave all walks that nobody waits for.

        Args:
            wanted: Whether somebody waits for the walk of a key.
        """
        self._turns = deque(turn for turn in self._turns if wanted(turn.key))

    def clear(self) -> list[KeyT]:
        """Leave all walks.

        Returns:
            Their keys.
        """
        keys = [turn.key for turn in (*self._running, *self._turns)]
        self._running.clear()
        self._turns.clear()
        return keys

    def advance(self) -> list[tuple[KeyT, Float[Tensor, " n *d"]]]:
        """Run one forward.

        Returns:
            Keys and samples of the walks that came to their end.
        """
        questions: list[Question] = []
        free = self._rows
        while free and self._turns:
            self._running.append(self._turns.popleft())
            questions.append(self._running[-1].take(free))
            free -= len(questions[-1])
        answers = self._answer(_joined(questions)).split([len(part) for part in questions])
        ended = []
        for turn, u in zip(self._running, answers, strict=True):
            if turn.give(u):
                ended.append((turn.key, turn.walk.end))
            else:
                self._turns.append(turn)
        self._running.clear()
        return ended


@final
class _Turn(Generic[KeyT]):
    """A walk, and how many rows of its question are answered."""

    def __init__(self, key: KeyT, walk: Walk, *, steps: int) -> None:
        self.key, self.walk, self.left = key, walk, steps
        self._answers: list[Tensor] = []

    @property
    def rows(self) -> int:
        """Rows of each of its questions."""
        return len(self._question)

    def take(self, most: int) -> Question:
        """The next rows of the question."""
        question = self._question
        begin = sum(map(len, self._answers))
        return question[begin : begin + most]

    def give(self, u: Tensor) -> bool:
        """Answers the rows taken; true where that was the walk's last question."""
        self._answers.append(u)
        if sum(map(len, self._answers)) < len(self._question):
            return False
        whole, self._answers = torch.cat(self._answers), []
        self.walk.answer(whole)
        self.left -= 1
        return self.walk.question is None

    @property
    def _question(self) -> Question:
        assert self.walk.question is not None, "a walk in company has a question"
        return self.walk.question


def _joined(parts: list[Question]) -> Question:
    conditions = [part.condition for part in parts if part.condition is not None]
    assert len(conditions) in (0, len(parts)), "all walks of a model have a condition, or none has"
    return Question(
        x=torch.cat([part.x for part in parts]),
        s=torch.cat([part.s for part in parts]),
        t=torch.cat([part.t for part in parts]),
        condition=Condition.joined(conditions) if conditions else None,
    )
