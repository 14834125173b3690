"""Walks that share their forwards: rows of any sampler, class, seed and step run side by side."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
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
        rows: Most rows of a forward.
    """

    def __init__(self, *, rows: int) -> None:
        self._rows = rows
        self._turns: deque[_Turn[KeyT]] = deque()
        self._away: list[Round[KeyT]] = []

    def __len__(self) -> int:
        return len(self._turns) + sum(len(each.turns) for each in self._away)

    @property
    def waiting(self) -> int:
        """Walks of which no row is in a forward."""
        return len(self._turns)

    @property
    def absent(self) -> list[KeyT]:
        """Keys of these walks, also while another thread takes or gives."""
        return [turn.key for turn in self._turns.copy()]

    @property
    def rows_waiting(self) -> int:
        """Rows of their questions that no forward has taken."""
        return sum(turn.rows - turn.answered for turn in self._turns)

    @property
    def left(self) -> list[tuple[int, int]]:
        """Rows and evaluations that each walk still needs, at most, after the rounds under way."""
        away = [one for each in self._away for one in each.left]
        return [(turn.rows, turn.left) for turn in self._turns] + away

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
        away = [turn for each in self._away for turn in each.turns]
        keys = [turn.key for turn in (*away, *self._turns)]
        self._away.clear()
        self._turns.clear()
        return keys

    def take(self) -> "Round[KeyT]":
        """The rows of the next forward, of at least one walk that waits."""
        taken: Round[KeyT] = Round([], [])
        self._away.append(taken)
        free = self._rows
        while free and self._turns:
            taken.turns.append(self._turns.popleft())
            taken.parts.append(taken.turns[-1].take(free))
            free -= len(taken.parts[-1])
        return taken

    def give(
        self, taken: "Round[KeyT]", u: Float[Tensor, " b *d"]
    ) -> list[tuple[KeyT, Float[Tensor, " n *d"]]]:
        """Answers the rows of a forward.

        Args:
            taken: The rows.
            u: Average velocity of each, and of those that fill the forward.

        Returns:
            Keys and samples of the walks that came to their end.
        """
        ended = []
        answers = u[: taken.rows].split([len(part) for part in taken.parts])
        for turn, part in zip(taken.turns, answers, strict=True):
            if turn.give(part):
                ended.append((turn.key, turn.walk.end))
            else:
                self._turns.append(turn)
        self._away.remove(taken)
        return ended

    def lose(self, taken: "Round[KeyT]") -> list[KeyT]:
        """Leave the walks of a forward that has no answer.

        Args:
            taken: Its rows.

        Returns:
            The keys of the walks.
        """
        self._away.remove(taken)
        self._turns = deque(turn for turn in self._turns if turn not in taken.turns)
        return [turn.key for turn in taken.turns]

    def advance(self, answer: Answer) -> list[tuple[KeyT, Float[Tensor, " n *d"]]]:
        """Run one forward.

        Args:
            answer: Answers a question of at most as many rows as a forward has.

        Returns:
            Keys and samples of the walks that came to their end.
        """
        taken = self.take()
        return self.give(taken, answer(taken.question))


@final
@dataclass(frozen=True, eq=False)
class Round(Generic[KeyT]):
    """Rows that go through the map together.

    Attributes:
        turns: The walks that they are of.
        parts: The rows of each.
    """

    turns: list["_Turn[KeyT]"]
    parts: list[Question]

    @property
    def rows(self) -> int:
        """How many they are."""
        return sum(map(len, self.parts))

    @property
    def question(self) -> Question:
        """All of them, laid together anew."""
        return _joined(self.parts)

    @property
    def left(self) -> list[tuple[int, int]]:
        """Rows and evaluations that its walks still need, at most, once it is answered."""
        found = []
        for turn, part in zip(self.turns, self.parts, strict=True):
            left = turn.left - (turn.answered + len(part) == turn.rows)
            if left:
                found.append((turn.rows, left))
        return found


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

    @property
    def answered(self) -> int:
        """Rows of the present one that are answered."""
        return sum(map(len, self._answers))

    def take(self, most: int) -> Question:
        """The next rows of the question."""
        return self._question[self.answered : self.answered + most]

    def give(self, u: Tensor) -> bool:
        """Answers the rows taken; true where that was the walk's last question."""
        self._answers.append(u)
        if self.answered < self.rows:
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
