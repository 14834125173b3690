"""The list of sweeps: what each is for, how far it is, and what came of it."""

from ..platform.commands.columns import aligned
from .findings import Findings
from .note import names_of_sweeps
from .record import Outcome
from .report import shown

_HEAD = ("sweep", "trials of", "ended", "best", "model")


def listing() -> list[str]:
    """A line for each sweep of this home, the one that was begun last at the end, below a head."""
    rows = [_row(name) for name in names_of_sweeps()]
    return aligned([_HEAD, *rows]) if rows else ["no sweep has been begun yet"]


def _row(name: str) -> tuple[str, ...]:
    try:
        findings = Findings.of(name)
    except ValueError as error:  # its database is another or gone
        return (name, f"cannot be read: {error}", "", "", "")
    settings = findings.settings
    named = dict(one.partition("=")[::2] for one in settings.base)
    purpose = " ".join(named[key] for key in ("experiment", "method", "data") if key in named)
    trials = f"{len(findings.ended)} of {settings.trials}"
    best = findings.best
    value = "-"
    if best is not None and best.outcome is not Outcome.UNDERWAY:
        value = f"{findings.objectives.lead} {shown(best.results[0].value)}"
    state = f"{trials}, over" if findings.ending else trials
    return (name, purpose or "-", state, value, findings.model or "-")
