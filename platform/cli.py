"""The door: onestep <command>. Commands are found by their entry points."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Final, Protocol, final

from .. import __version__
from .password import hide_passwords

_GROUP: Final = "onestep.commands"
_ORDER: Final = (
    "train",
    "evaluate",
    "sample",
    "sweep",
    "compare",
    "average",
    "registry",
    "canary",
    "serve",
    "key",
    "submit",
    "doctor",
)
"""Commands as the help lists them; installed entry points are in the order of the alphabet."""
USER_ERROR: Final = 2
"""Exit code of what a user can mend."""


class Command(Protocol):
    """One subcommand."""

    name: ClassVar[str]
    summary: ClassVar[str]
    description: ClassVar[str]

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do the work and return the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        0, the command's own code, or 2 for what the user can mend.
    """
    # Threads that wait must not spin: with other processes on the cores that costs severalfold.
    # Read when torch is imported, which happens in the command.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    given = list(sys.argv[1:] if argv is None else argv)
    commands = {e.name: e for e in entry_points(group=_GROUP)}
    parser, sub, chosen = _parser(commands, given)
    arguments, rest = parser.parse_known_args(given)
    # argparse takes all overrides or none at the first option; the others come back as the rest.
    overrides: list[str] | None = vars(arguments).get("overrides")
    if rest and (overrides is None or any(word.startswith("-") for word in rest)):
        sub.error(f"unrecognized arguments: {hide_passwords(' '.join(rest))}")
    if overrides is not None:
        overrides.extend(rest)
    if chosen is None:
        parser.print_help()
        return USER_ERROR
    try:
        return chosen.run(arguments)
    except (ValueError, OSError) as error:
        if os.environ.get("ONESTEP_TRACEBACK"):
            raise
        print(f"onestep {chosen.name}: {_sentence(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return 130


def _sentence(error: Exception) -> str:
    return hide_passwords(" ".join(str(error).split())) or type(error).__name__


def _parser(
    commands: dict[str, EntryPoint], given: Sequence[str]
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, Command | None]:
    """The parser, that of the one command that is asked for or the same again, and the command.

    Only that command is imported: some take seconds.
    """
    parser = _Parser(
        prog="onestep",
        description="Train, compare and serve one-step image generators.",
        epilog="`onestep COMMAND --help` explains a command with examples.",
    )
    parser.add_argument("--version", action="version", version=f"onestep {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="command")
    asked = next((word for word in given if not word.startswith("-")), None)
    ordered = sorted(commands, key=lambda n: (_ORDER.index(n) if n in _ORDER else len(_ORDER), n))
    chosen: Command | None = None
    of_chosen = parser
    for name in ordered:
        if asked is not None and name != asked:
            subparsers.add_parser(name)
            continue
        command: Command = commands[name].load()()
        sub = subparsers.add_parser(
            name,
            help=command.summary,
            description=command.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == asked:
            command.configure(sub)
            chosen, of_chosen = command, sub
    return parser, of_chosen, chosen


@final
class _Parser(argparse.ArgumentParser):
    """A parser that says in words which numbers it takes, as do those of its actions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", int, _whole_number)
        self.register("type", float, _number)


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None


if __name__ == "__main__":
    sys.exit(main())
