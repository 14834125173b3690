"""Clocks: where the schedules of trials stand, and which stand apart when trials are compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import zip_longest
from typing import Final, final

from ..methods.core.record import Moment
from ..methods.core.rng import Rng
from ..methods.core.schedule import Clock, Position, Schedule
from ..platform.training.assembly import Assembly

TOLERANCE: Final = 0.01
"""Shares no further apart are the same: runs end at whole batches, which may differ in size."""
Standing = tuple[Position, ...]
"""What a schedule has left to do: where it stands in each move that is not over."""
_SHOWN: Final = 3


@final
@dataclass(frozen=True, kw_only=True)
class Difference:
    """A schedule that stands at different points in different trials.

    Attributes:
        path: Its dotted path, as overrides have it.
        standings: The different standings; an empty one is that of a schedule that moves no more.
    """

    path: str
    standings: tuple[Standing, ...]

    def __str__(self) -> str:
        texts = [_text(standing) for standing in self.standings]
        if len(texts) > _SHOWN:
            return f"{self.path} ({texts[0]}, ..., {texts[-1]})"
        return f"{self.path} ({', '.join(texts)})"


def schedules_of(assembly: Assembly) -> dict[str, Schedule]:
    """The schedules of an experiment by their dotted paths.

    Args:
        assembly: The experiment, built.

    Returns:
        That of the learning rate, and all that the method holds, down to the parts of its parts.
    """
    switches = {f"method.{name}": one for name, one in assembly.learner.switches.items()}
    return {
        "learning_rate": assembly.learning_rate,
        **dict(_found("method", assembly.learner)),
        **switches,
    }


def moment_after(assembly: Assembly, samples: int) -> Moment:
    """The moment of a run at which it has seen some samples, or its last one.

    Args:
        assembly: The experiment of the run.
        samples: Samples seen; a batch that they do not fill has not been seen.

    Returns:
        The moment. Of the last one the progress is 1.
    """
    training = assembly.experiment.training
    return Moment(
        step=min(samples // training.batch_size, training.steps),
        total=training.steps,
        rng=Rng.seeded(0),
        batch_size=training.batch_size,
    )


def planned(assembly: Assembly, samples: int) -> Assembly:
    """The same experiment as a run planned on other samples.

    Args:
        assembly: The experiment.
        samples: Samples of the run.

    Returns:
        The experiment, whose clock ``progress`` comes to its end with these samples.

    Raises:
        ValueError: If the settings of the training refuse so few samples.
    """
    experiment = assembly.experiment
    training = replace(experiment.training, samples=samples)
    return replace(assembly, experiment=replace(experiment, training=training))


def differences(trials: Sequence[Assembly], samples: int) -> tuple[Difference, ...]:
    """The schedules that stand at different points in trials that have seen equal samples.

    A comparison of the trials is fair if there are none. Values may differ, for they are what is
    tried. A schedule that never changes stands with those that have finished: neither has anything
    left to do. So does one that a trial of another method does not have.

    Args:
        trials: The trials.
        samples: Samples that each has seen.

    Returns:
        The schedules with their standings, in the order of their paths.
    """
    moments = [moment_after(trial, samples) for trial in trials]
    return apart([schedules_of(trial) for trial in trials], moments)


def apart(
    schedules: Sequence[Mapping[str, Schedule]], moments: Sequence[Moment]
) -> tuple[Difference, ...]:
    """The schedules that stand at different points in different trials.

    Args:
        schedules: Schedules by path, of each trial.
        moments: The moment at which each trial is.

    Returns:
        The schedules with their standings, in the order of their paths.
    """
    held = [
        {path: _left(one.positions(now)) for path, one in trial.items()}
        for trial, now in zip(schedules, moments, strict=True)
    ]
    found = []
    for path in sorted(set().union(*held)):
        standings = sorted({trial.get(path, ()) for trial in held}, key=_order)
        if not _agree(standings):
            found.append(Difference(path=path, standings=tuple(standings)))
    return tuple(found)


def _found(path: str, part: object) -> Iterator[tuple[str, Schedule]]:
    if isinstance(part, Schedule):
        yield path, part
    elif is_dataclass(part) and not isinstance(part, type):
        for field in fields(part):
            yield from _found(f"{path}.{field.name}", getattr(part, field.name))
    elif isinstance(part, Mapping):
        for key, value in part.items():
            yield from _found(f"{path}.{key}", value)
    elif isinstance(part, tuple | list):
        for place, value in enumerate(part):
            yield from _found(f"{path}.{place}", value)


def _left(positions: Standing) -> Standing:
    """The moves that are not over; their order within a product means nothing."""
    rounded = (replace(one, share=round(one.share, 9)) for one in positions)
    left = (one for one in rounded if one.share < 1.0)
    return tuple(sorted(left, key=lambda one: (one.clock, one.share)))


def _order(standing: Standing) -> tuple[int, list[tuple[str, float]]]:
    """Those that have most left first, those that move no more last."""
    return -len(standing), [(str(one.clock), one.share) for one in standing]


def _agree(standings: Sequence[Standing]) -> bool:
    """Whether the moves on each clock are equally far; one that is over counts as whole."""
    for clock in Clock:
        shares = [[one.share for one in each if one.clock is clock] for each in standings]
        moves = zip_longest(*shares, fillvalue=1.0)
        if any(max(move) - min(move) > TOLERANCE for move in moves):
            return False
    return True


def _text(standing: Standing) -> str:
    moves = [f"{one.share:.0%} of its move on the clock {one.clock}" for one in standing]
    return " and ".join(moves) or "at rest"
