"""The board: what is told of a sweep, with a table that a terminal redraws in place below it."""

import shutil
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, TextIO, final

Show = Callable[[Sequence[str]], None]
"""Takes the lines of a table, of which the first ones say in short what all say."""
_EVERY_S: Final = 60.0
_SHORT: Final = 2
_UP_AND_CLEAR: Final = "\x1b[{}F\x1b[0J"


@final
class Board:
    """Lines, and below them a table that is drawn anew whenever it changes.

    Where the stream is no terminal, such as a file, the first lines of the table are written now
    and then as lines of their own.

    Args:
        stream: Where to.
        every_s: Pause between two such summaries, in seconds.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        every_s: float = _EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._every_s, self._clock = stream, every_s, clock
        self._is_terminal = stream.isatty()
        self._lines: tuple[str, ...] = ()
        self._drawn, self._summed_at = 0, clock()

    def say(self, line: str) -> None:
        """Write one line above the table."""
        self._clear()
        self._stream.write(f"{line}\n")
        self._draw()

    def show(self, lines: Sequence[str]) -> None:
        """Put another table in place of the one that is shown."""
        if not self._is_terminal:
            self._sum_up(lines)
            return
        self._clear()
        self._lines = tuple(lines)
        self._draw()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.show(())

    def _sum_up(self, lines: Sequence[str]) -> None:
        now = self._clock()
        if lines and now - self._summed_at >= self._every_s:
            self._summed_at = now
            self._stream.write("; ".join(lines[:_SHORT]) + "\n")
            self._stream.flush()

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write(_UP_AND_CLEAR.format(self._drawn))
            self._drawn = 0

    def _draw(self) -> None:
        size = shutil.get_terminal_size()
        shown = self._lines[: max(1, size.lines - 2)]  # a line that scrolls away stays for ever
        for line in shown:
            self._stream.write(f"{line[: size.columns - 1]}\n")
        self._drawn = len(shown)
        self._stream.flush()  # in a file a line would else come when the sweep is over, or never
