"""The reading side of the registry: which models there are and what is known of them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, final

from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.entities.model_registry import RegisteredModel

from .connection import Connection
from .entry import ModelEntry, UnreadableEntry
from .errors import ReferenceNotFound
from .lineage import Lineage
from .model_files import ModelFiles
from .reference import Alias, ModelVersion, parse_reference

_PAGE: Final = 200
_SHOWN: Final = 8


@final
class Catalogue:
    """Reads registered models from an MLflow store.

    Args:
        connection: The store.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client = connection.client

    def entries(self) -> tuple[ModelEntry | UnreadableEntry, ...]:
        """All versions that were registered by us, by name and number."""
        entries = [
            _read(version, _aliases(model, version))
            for model in self._models()
            for version in self._versions(f"name='{model.name}'")
            if ModelFiles.from_tags(version.tags) is not None
        ]
        return tuple(sorted(entries, key=lambda one: (one.reference.name, one.reference.version)))

    def made_by(self, run_id: str) -> ModelVersion | None:
        """The version that a run registered, or None.

        Args:
            run_id: MLflow run.

        Returns:
            The version; no record is read for it.
        """
        for version in self._versions(f"run_id='{run_id}'"):
            if ModelFiles.from_tags(version.tags) is not None:
                return ModelVersion(name=version.name, version=int(version.version))
        return None

    def entry(self, reference: str | ModelVersion) -> ModelEntry:
        """What is known about a model, without its weights.

        Args:
            reference: Version or alias.

        Returns:
            The entry.
        """
        version = self.resolve(reference)
        model = self.model(version.name)
        missing = f"there is no model {version}; run `onestep registry list` to see all"
        with self._connection.asking(missing=missing):
            found = self._client.get_model_version(version.name, str(version.version))
        return ModelEntry.read(found, aliases=_aliases(model, found))

    def resolve(self, reference: str | ModelVersion) -> ModelVersion:
        """The version that a reference means now; a version itself may still be missing.

        Args:
            reference: Version or alias.

        Returns:
            The version.

        Raises:
            ReferenceNotFound: If no registered model has the alias, or more than one.
        """
        parsed = parse_reference(reference) if isinstance(reference, str) else reference
        if isinstance(parsed, ModelVersion):
            return parsed
        models = list(self._models()) if parsed.name is None else [self.model(parsed.name)]
        found = [
            ModelVersion(name=model.name, version=int(model.aliases[parsed.alias]))
            for model in models
            if parsed.alias in model.aliases
        ]
        if len(found) > 1:
            raise ReferenceNotFound(
                f"alias {parsed.alias!r} belongs to several models: say "
                + " or ".join(f"{one.name}@{parsed.alias}" for one in found)
            )
        if not found:
            raise _no_alias(parsed, models)
        return found[0]

    def model(self, name: str) -> RegisteredModel:
        """A registered model with its tags and aliases.

        Args:
            name: Its name.

        Returns:
            The model as MLflow gives it.

        Raises:
            ReferenceNotFound: If there is none; the message says which there are.
        """
        try:
            with self._connection.asking(missing=f"there is no registered model {name!r}"):
                return self._client.get_registered_model(name)
        except ReferenceNotFound as error:
            raise ReferenceNotFound(f"{error}; {_known(self._models())}") from error

    def lineage(self, reference: str | ModelVersion) -> Lineage:
        """What a model was made from, back to the beginning.

        Args:
            reference: Version or alias.

        Returns:
            The tree, with the model at its root.
        """
        return self._lineage(self.entry(reference), role="")

    def _lineage(self, entry: ModelEntry, *, role: str) -> Lineage:
        return Lineage(
            reference=str(entry.reference),
            role=role,
            record=entry.record,
            aliases=entry.aliases,
            metrics=tuple(entry.metrics.items()),
            parents=tuple(
                self._parent(entry.record.model_parents.get(role), role=role, reference=reference)
                for role, reference in entry.record.parents.items()
            ),
        )

    def _parent(self, version: ModelVersion | None, *, role: str, reference: str) -> Lineage:
        if version is None:
            return Lineage(reference=reference, role=role)
        try:
            return self._lineage(self.entry(version), role=role)
        except ReferenceNotFound:
            return Lineage(reference=reference, role=role, is_gone=True)

    def _models(self) -> Iterator[RegisteredModel]:
        token = None
        while True:
            with self._connection.asking():
                page = self._client.search_registered_models(max_results=_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _versions(self, which: str) -> Iterator[MlflowVersion]:
        token = None
        while True:
            with self._connection.asking():
                page = self._client.search_model_versions(
                    which, max_results=_PAGE, page_token=token
                )
            yield from page
            token = page.token
            if not token:
                return


def _read(version: MlflowVersion, aliases: Sequence[str]) -> ModelEntry | UnreadableEntry:
    """One bad record does not hide the others."""
    try:
        return ModelEntry.read(version, aliases=aliases)
    except ValueError as error:
        return UnreadableEntry(
            reference=ModelVersion(name=version.name, version=int(version.version)),
            aliases=tuple(sorted(aliases)),
            reason=str(error),
        )


def _aliases(model: RegisteredModel, version: MlflowVersion) -> list[str]:
    return [alias for alias, at in model.aliases.items() if str(at) == str(version.version)]


def _no_alias(alias: Alias, models: list[RegisteredModel]) -> ReferenceNotFound:
    known = sorted(f"{model.name}@{name}" for model in models for name in model.aliases)
    there_is = (
        f"there is {', '.join(known)}" if known else f"there are no aliases; {_known(models)}"
    )
    message = f"no model has the alias {str(alias)!r}; {there_is}"
    if models:
        message += "; `onestep registry promote MODEL ALIAS --why REASON` sets one"
    if any(model.name == str(alias) for model in models):
        message += f"; {alias} is a model, whose versions are written like {alias}/1"
    return ReferenceNotFound(message)


def _known(models: Iterable[RegisteredModel]) -> str:
    """The first models by name, and a version as one is written."""
    names = sorted(model.name for model in models)
    if not names:
        return "no models are registered yet"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"registered are {', '.join(names[:_SHOWN])}{more}, with versions such as {names[0]}/1"
