import io
import re

from onestep.sweeps.board import Board


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and knows what stands on its screen."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        """The lines that are seen, after all movements of the cursor."""
        lines: list[str] = []
        for text in re.split(r"(\x1b\[\d+F\x1b\[0J)", self.getvalue()):
            if up := re.fullmatch(r"\x1b\[(\d+)F\x1b\[0J", text):
                del lines[len(lines) - int(up[1]) :]
            else:
                lines += text.splitlines()
        return lines


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_table_is_redrawn_below_what_is_said() -> None:
    terminal = Terminal()
    with Board(terminal) as board:
        board.say("sweep toy")
        board.show(["0 ended", "none", "trial 0"])
        board.show(["1 ended", "best 0"])
        board.say("trial 0: 1.0")
        assert terminal.screen == ["sweep toy", "trial 0: 1.0", "1 ended", "best 0"]
        board.show(["2 ended", "best 0", "trial 2", "trial 3"])
    assert terminal.screen == ["sweep toy", "trial 0: 1.0"]


def test_a_line_is_never_longer_than_the_terminal(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "5")
    terminal = Terminal()
    board = Board(terminal)
    board.show(["x" * 50, *map(str, range(10))])
    assert terminal.screen == ["x" * 19, "0", "1"]


def test_a_file_gets_a_summary_now_and_then_and_no_movement_of_a_cursor() -> None:
    file, clock = io.StringIO(), Clock()
    with Board(file, every_s=60.0, clock=clock) as board:
        board.say("sweep toy")
        for second in range(150):
            clock.now = float(second)
            board.show([f"{second} ended", "best 0", "trial 0"])
        board.say("trial 0: 1.0")
    assert file.getvalue().splitlines() == [
        "sweep toy",
        "60 ended; best 0",
        "120 ended; best 0",
        "trial 0: 1.0",
    ]
