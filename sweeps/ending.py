"""Endings: whether a sweep has come to its end, also one that ended early."""

from dataclasses import asdict
from typing import Any, Final

from optuna.study import Study

from .settings import SweepSettings

_ENDED: Final = "ended"
"""With how many trials, and on which budget, a sweep came to its end."""
_WHY: Final = "ended_because"
NOTHING_LEFT: Final = "nothing was left to start"
"""Why a sweep ended of which no more is known."""
NO_POINTS_LEFT: Final = "the grid has no points left"
"""Why a point is not tried that a grid gives again, and why its sweep has ended."""
ANEW: Final = "begin a new sweep, without --resume and resume=auto"
"""What is left to do where a sweep cannot go on."""


def mark_ended(study: Study, settings: SweepSettings, why: str) -> None:
    """Let a study remember that its sweep has come to its end.

    Args:
        study: The study.
        settings: Settings of the sweep.
        why: Why nothing was left to start.
    """
    study.set_user_attr(_WHY, why)
    study.set_user_attr(_ENDED, _counts(settings))


def why_ended(study: Study, settings: SweepSettings) -> str:
    """Why a sweep has come to its end, in words; nothing while it has not.

    Args:
        study: Its study.
        settings: Its settings.
    """
    if not has_ended(study, settings):
        return ""
    return str(study.user_attrs.get(_WHY, NOTHING_LEFT))


def has_ended(study: Study, settings: SweepSettings) -> bool:
    """Whether a sweep has come to its end, with as many trials and on such a budget.

    Args:
        study: Its study.
        settings: Its settings.
    """
    return bool(study.user_attrs.get(_ENDED) == _counts(settings))


def _counts(settings: SweepSettings) -> dict[str, Any]:
    return {"trials": settings.trials, "budget": asdict(settings.budget)}
