"""Moves aliases in the MLflow registry and writes down every move before it is made."""

import getpass
import socket
from datetime import UTC, datetime
from typing import Final, final

from mlflow.exceptions import MlflowException

from .catalogue import Catalogue
from .connection import Connection
from .errors import PromotionRefused
from .gate import Gate
from .promotion import Promotion, following, read_history
from .reference import ModelVersion, check_alias

_ATTEMPTS: Final = 5


@final
class AliasLedger:
    """Aliases of registered models, with a history that only grows.

    MLflow's alias is not compare-and-swap. So the entry is written first, under a key that no
    other promoter can write, and the alias is then moved to wherever the *last* entry points until
    no new entry appears. Of two promoters at the same moment both are in the history, all readers
    agree on who was last, and the other is told. A promoter that dies between the two writes
    leaves an entry and an alias that has not followed; the next promotion mends that.

    Args:
        connection: The store.
        catalogue: Its reading side.
    """

    def __init__(self, connection: Connection, catalogue: Catalogue) -> None:
        self._connection = connection
        self._catalogue = catalogue

    def move(
        self, version: ModelVersion, alias: str, *, why: str, who: str | None, gate: Gate | None
    ) -> Promotion:
        """Let an alias point to a version.

        Where it already does, and the history says so, nothing is written: the history is of moves.

        Args:
            version: An existing version.
            alias: The alias.
            why: Reason in words.
            who: Who moves it; None for the user of this process.
            gate: The condition that the version has met, for the history.

        Returns:
            The entry in the history.

        Raises:
            PromotionRefused: If another promoter moved the alias at the same moment.
        """
        current, history = self.read(version.name, alias)
        if history and current == version and history[-1].version == version:
            return history[-1]
        return self.write(version.name, alias, to=version, why=why, who=who, gate=gate)

    def write(
        self,
        name: str,
        alias: str,
        *,
        to: ModelVersion | None,
        why: str,
        who: str | None,
        gate: Gate | None = None,
        facts: str = "",
        after: str | None = None,
    ) -> Promotion:
        """Write an entry, and let the alias follow it.

        Args:
            name: Registered model.
            alias: The alias.
            to: An existing version of it; None takes the alias away.
            why: Reason in words.
            who: Who moves it; None for the user of this process.
            gate: The condition that the version has met, for the history.
            facts: What a program needs to know beside the reason, as JSON.
            after: Digest that the last entry must have, empty for none; None for any.

        Returns:
            The entry in the history.

        Raises:
            PromotionRefused: If another moved the alias at the same moment, or the last entry is
                not the one expected.
        """
        current, history = self.read(name, alias)
        if after is not None and after != (history[-1].digest if history else ""):
            raise PromotionRefused(
                f"{name}@{alias} has been moved meanwhile; look at its history and try again"
            )
        number, previous = following(history)
        promotion = Promotion(
            alias=alias,
            number=number,
            at=datetime.now(UTC).isoformat(timespec="microseconds"),
            who=current_user() if who is None else who,
            why=why,
            source="" if current is None else str(current),
            to="" if to is None else str(to),
            gate="" if gate is None else str(gate),
            previous=previous,
            facts=facts,
        )
        with self._connection.asking():
            self._connection.client.set_registered_model_tag(
                name, promotion.key, promotion.to_json()
            )
        last = self._follow(name, alias)
        if last != promotion and (last.version, last.facts) != (to, facts):
            raise PromotionRefused(
                f"promotion of {to or 'nothing'} to {alias!r} was overtaken by that of "
                f"{last.to or 'nothing'} by {last.who}; look at the history and promote again"
            )
        return promotion

    def read(self, name: str, alias: str) -> tuple[ModelVersion | None, tuple[Promotion, ...]]:
        """Where an alias points, and how it came there.

        Args:
            name: Registered model.
            alias: The alias.

        Returns:
            The version that has the alias, if any, and all promotions, oldest first.
        """
        check_alias(alias)
        model = self._catalogue.model(name)
        version = model.aliases.get(alias)
        current = None if version is None else ModelVersion(name=name, version=int(version))
        return current, read_history(model.tags, alias, model=name)

    def _follow(self, name: str, alias: str) -> Promotion:
        _, history = self.read(name, alias)
        while True:
            last = history[-1]
            self._point(name, last.version, alias)
            _, history = self.read(name, alias)
            if history[-1] == last:
                return last

    def _point(self, name: str, version: ModelVersion | None, alias: str) -> None:
        if version is None:
            with self._connection.asking():
                self._connection.client.delete_registered_model_alias(name, alias)
            return
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._connection.asking(missing=f"there is no model {version}"):
                    self._connection.client.set_registered_model_alias(
                        version.name, alias, str(version.version)
                    )
                return
            except MlflowException as error:
                # MLflow looks whether the alias is there and inserts it if not. Of two promoters
                # of a new alias, one can come second with an insert that the database refuses.
                if error.error_code != "BAD_REQUEST" or attempt == _ATTEMPTS:
                    raise


def current_user() -> str:
    """Who runs this process, as user@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no entry in the password file
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
