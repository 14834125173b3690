"""Endings: whether a sweep has come to its end, also one that ended early."""

from dataclasses import asdict
from typing import Any, Final

from optuna.study import Study

from .settings import SweepSettings

_ENDED: Final = "ended"
"""With how many trials, and on which budget, a sweep came to its end."""


def mark_ended(study: Study, settings: SweepSettings) -> None:
    """Let a study remember that its sweep has come to its end.

    Args:
        study: The study.
        settings: Settings of the sweep.
    """
    study.set_user_attr(_ENDED, _counts(settings))


def has_ended(study: Study, settings: SweepSettings) -> bool:
    """Whether a sweep has come to its end, with as many trials and on such a budget.

    Args:
        study: Its study.
        settings: Its settings.
    """
    return bool(study.user_attrs.get(_ENDED) == _counts(settings))


def _counts(settings: SweepSettings) -> dict[str, Any]:
    return {"trials": settings.trials, "budget": asdict(settings.budget)}
