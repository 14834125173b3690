"""What a model was made from, and what that was made from, as a tree."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from .record import ModelRecord

_METRICS_SHOWN: Final = 2


@final
@dataclass(frozen=True, kw_only=True)
class Lineage:
    """A model, or a checksum of something that is no model, and its parents.

    Attributes:
        reference: The version, or the checksum.
        role: What it was for its child, such as `teacher`; empty for the root.
        record: Its record; None for a checksum and for a model that is gone.
        aliases: Aliases that point to it.
        metrics: Its quality, the most telling first.
        parents: What it was made from.
        is_gone: Whether it is a model that the registry no longer has.
    """

    reference: str
    role: str = ""
    record: ModelRecord | None = None
    aliases: tuple[str, ...] = ()
    metrics: tuple[tuple[str, float], ...] = ()
    parents: tuple["Lineage", ...] = ()
    is_gone: bool = False

    def render(self, *, metric: str | None = None) -> str:
        """The tree as text, one line for each model.

        Args:
            metric: The metric to show; None for the first ones that each model has.

        Returns:
            Lines without a last line break.
        """
        return "\n".join([self._line(metric), *self._below("", metric)])

    def _below(self, indent: str, metric: str | None) -> Iterator[str]:
        for parent in self.parents:
            yield f"{indent}+-- {parent._line(metric)}"
            deeper = "    " if parent is self.parents[-1] else "|   "
            yield from parent._below(indent + deeper, metric)

    def _line(self, metric: str | None) -> str:
        words = [f"{self.role}: {self.reference}" if self.role else self.reference]
        if self.is_gone:
            words.append("(no longer registered)")
        if self.record is not None:
            words.append(self.record.method_name)
            if origin := self.record.origin:
                words.append(f"(from {origin['source']}, licence {origin['licence']})")
            if self.record.sweep:
                words.append(f"(best of sweep {self.record.sweep})")
            if self.aliases:
                words.append(f"[{', '.join(self.aliases)}]")
            shown = [
                f"{name} {value:.4g}"
                for name, value in self.metrics
                if metric is None or name == metric
            ][:_METRICS_SHOWN]
            if shown:
                words.append(f"({', '.join(shown)})")
        return " ".join(words)
