"""Arguments that several commands share."""

import argparse


def add_overrides(parser: argparse.ArgumentParser, what: str, *, shown: str) -> None:
    """Declare Hydra overrides, and a dry run that prints what they make.

    Args:
        parser: Parser of a command.
        what: Which overrides, for the help.
        shown: What a dry run prints.
    """
    parser.add_argument("overrides", nargs="*", metavar="override", help=what)
    parser.add_argument("--dry-run", action="store_true", help=f"print {shown} and stop")


def add_yardstick(parser: argparse.ArgumentParser) -> None:
    """Declare what a measurement rests on: evaluations, samples and seed.

    Args:
        parser: Parser of a command.
    """
    parser.add_argument(
        "--nfe", type=int, nargs="+", default=[1, 2, 4, 8], help="network evaluations"
    )
    parser.add_argument(
        "--samples", type=int, default=2000, help="at most this many in each of eight draws"
    )
    parser.add_argument("--seed", type=int, default=7, help="seed of the noise, at least 0")


def check_yardstick(arguments: argparse.Namespace) -> None:
    """Refuse numbers that no measurement can rest on, before anything is loaded.

    Args:
        arguments: What ``add_yardstick`` made the parser read.

    Raises:
        ValueError: If a number is out of range.
    """
    if min(arguments.nfe) < 1:
        raise ValueError(f"--nfe must be at least 1, got {min(arguments.nfe)}")
    if arguments.samples < 8:
        raise ValueError(f"--samples must be at least 8, got {arguments.samples}")
    if arguments.seed < 0:
        raise ValueError(f"--seed must be at least 0, got {arguments.seed}")
