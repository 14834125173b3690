"""What a served name means: to a replica, and by the registry."""

from dataclasses import dataclass, field
from typing import final

from ..platform.registry.reference import ModelVersion
from .schema import CanaryCard
from .settings import AppSettings
from .split import Split
from .trial import Counted


@final
@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a served name means on a replica.

    Attributes:
        version: The version that answers; empty where none is loaded.
        problem: Why it is not the one that it should be; empty where it is.
        split: Which requests a version on trial gets; None where none is.
        counted: What that version has done here.
        canary: What users are told of the trial.
    """

    version: str
    problem: str
    split: Split | None = None
    counted: Counted = field(default_factory=Counted)
    canary: CanaryCard | None = None


def look(settings: AppSettings, name: str) -> str:
    """The version that a served name means by the registry, which is asked for aliases alone.

    Args:
        settings: Which registry.
        name: A reference.

    Returns:
        The version.
    """
    if ModelVersion.is_written(name):
        return name
    from .loading import version_of  # MLflow takes seconds to import

    return version_of(settings.with_model(name))
