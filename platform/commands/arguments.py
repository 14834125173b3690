"""Arguments that several commands share."""

import argparse
import json
from collections.abc import Mapping
from typing import Any, Final

from ..configuration import compose
from ..experiment import ALL_SAMPLES, Evaluation, Storage
from ..home import Home
from ..password import without_passwords
from ..settings import settings

_STORE: Final = "storage.tracking_uri"
_YARDSTICK: Final = {
    "evaluation.nfes": "nfe",
    "evaluation.samples": "samples",
    "evaluation.seed": "seed",
}
NFES: Final = [1, 2, 4, 8]
"""Evaluations of the network at which models are measured."""
SAMPLER: Final = "sampler"
"""Group of the samplers that can be named."""
_DEFAULTS: Final[Mapping[str, Any]] = {"nfe": NFES, "samples": ALL_SAMPLES, "seed": 7}
OF_A_MEASUREMENT: Final = (_STORE, *_YARDSTICK)
"""Keys of `onestep train` that a command which measures models takes too."""
OF_A_STORE: Final = (_STORE,)
"""Keys of `onestep train` that a command which only reads a model takes too."""


def add_overrides(parser: argparse.ArgumentParser, what: str, *, shown: str) -> None:
    """Declare Hydra overrides, and a dry run that prints what they make.

    Args:
        parser: Parser of a command.
        what: Which overrides, for the help.
        shown: What a dry run prints.
    """
    parser.add_argument("overrides", nargs="*", metavar="override", help=what)
    parser.add_argument(
        "--dry-run", action="store_true", help=f"print {shown} and stop; data are not read"
    )


def add_yardstick(parser: argparse.ArgumentParser) -> None:
    """Declare what a measurement rests on: evaluations, samples and seed.

    Args:
        parser: Parser of a command.
    """
    parser.add_argument(
        "--nfe", type=int, nargs="+", default=_DEFAULTS["nfe"], help="network evaluations"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=_DEFAULTS["samples"],
        help="at most this many in each of eight draws",
    )
    parser.add_argument(
        "--seed", type=int, default=_DEFAULTS["seed"], help="seed of the noise, at least 0"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Declare where a model computes.

    Args:
        parser: Parser of a command.
    """
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda or cuda:N; by default a GPU where there is one. The noise is the same",
    )


def add_guidance(parser: argparse.ArgumentParser) -> None:
    """Declare the guidance scale of a model that takes one.

    Args:
        parser: Parser of a command.
    """
    parser.add_argument(
        "--guidance",
        type=float,
        help="guidance scale, at least 1, of a model that takes one; by default the one at which "
        "its training evaluated it",
    )


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


def apply_overrides(arguments: argparse.Namespace, *, allowed: tuple[str, ...]) -> Home:
    """The home with the store that overrides choose; those of the evaluation become options.

    Args:
        arguments: Parsed arguments with ``overrides``; the options of ``add_yardstick`` are set.
        allowed: Keys that the command takes.

    Returns:
        The home.

    Raises:
        ValueError: If an override is of another key, or an option says the same in other words.
    """
    given = {override.partition("=")[0] for override in arguments.overrides}
    if refused := sorted(given - set(allowed)):
        raise ValueError(
            f"{arguments.command} reads all else from the model's record: overrides must be of "
            f"{', '.join(allowed)}, got {refused[0]}"
        )
    values = compose("train", arguments.overrides)
    evaluation = settings(Evaluation, "evaluation", values["evaluation"])
    chosen = {"nfe": list(evaluation.nfes), "samples": evaluation.samples, "seed": evaluation.seed}
    for key in sorted(given & set(_YARDSTICK)):
        option = _YARDSTICK[key]
        if vars(arguments)[option] != _DEFAULTS[option]:
            raise ValueError(f"give either {key} or --{option}, got both")
        setattr(arguments, option, chosen[option])
    store = settings(Storage, "storage", values["storage"])
    return Home.here(tracking_uri=store.tracking_uri)


def show(plan: Mapping[str, Any], home: Home) -> None:
    """Print what a dry run would do.

    Args:
        plan: Plain values.
        home: Where the models are.
    """
    print(json.dumps(without_passwords({**plan, "tracking_uri": home.tracking_uri}), indent=2))
