"""`onestep canary`: a version on trial beside the one that an alias means."""

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING, ClassVar, final

from ..home import Home

if TYPE_CHECKING:  # MLflow takes seconds to import, and `--help` needs none of it
    from ..registry.canary import Canary as Trial
    from ..registry.canary_ledger import CanaryLedger


@final
class Canary:
    """The command that begins, moves, shows and ends trials."""

    name: ClassVar[str] = "canary"
    summary: ClassVar[str] = "put a version on trial beside the champion that is served"
    description: ClassVar[str] = """Put a version on trial beside the one that an alias means.

A service that follows the alias gives the version a share of the requests, or copies of them, and
promotes it or takes it away by what it sees. All moves are kept: `onestep registry history
digits@champion-canary`.

examples:
  onestep canary start digits/4 champion --percent 10 --why "trained on more data"
  onestep canary start digits/4 champion --percent 50 --shadow --images 5000 --why "new network"
  onestep canary move champion --percent 25 --why "nothing seen in a day"
  onestep canary status
  onestep canary stop champion --why "the data were wrong"
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "--tracking-uri", help="MLflow store; by default MLFLOW_TRACKING_URI or the local one"
        )
        actions = parser.add_subparsers(dest="action", required=True, metavar="action")
        start = actions.add_parser("start", help="begin a trial")
        start.add_argument("reference", help="the version, such as digits/4")
        move = actions.add_parser("move", help="give a trial another share")
        status = actions.add_parser("status", help="how a trial stands, or how it ended")
        stop = actions.add_parser("stop", help="end a trial; the alias stays where it is")
        for action in (start, move, stop):
            action.add_argument("alias", help="such as champion or digits@champion")
        status.add_argument("alias", nargs="?", default="champion", help="by default champion")
        for action in (start, move, stop):
            action.add_argument("--why", required=True, help="the reason, kept in the history")
            action.add_argument("--who", help="who does it; by default user@host")
        start.add_argument("--percent", type=float, help="share of the requests; by default 10")
        move.add_argument("--percent", type=float, required=True, help="share of the requests")
        start.add_argument(
            "--shadow",
            action="store_const",
            const=True,
            help="give it copies of requests, whose answers nobody sees",
        )
        start.add_argument("--images", type=int, help="images until promotion; by default 2000")
        start.add_argument("--max-errors", type=float, help="share of requests; by default 0.01")
        start.add_argument(
            "--max-latency", type=float, help="time of its images in the champion's; default 1.5"
        )
        start.add_argument(
            "--max-drift", type=float, help="energy coefficient in [0, 1]; by default 0.05"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Do what was asked for.

        Args:
            arguments: Parsed arguments.

        Returns:
            Exit code of the process.
        """
        from ..registry.canary import CanaryState
        from ..registry.canary_ledger import CanaryLedger
        from ..registry.store import Registry

        registry = Registry.at(Home.here(tracking_uri=arguments.tracking_uri))
        ledger, alias = CanaryLedger(registry), arguments.alias
        match arguments.action:
            case "start":
                self._start(ledger, arguments)
            case "move":
                moved = ledger.move(
                    ledger.find(alias), arguments.percent, why=arguments.why, who=arguments.who
                )
                print(f"{moved.version} gets {moved.terms.percent:g} % of {alias} now")
            case "stop":
                ended = ledger.end(
                    ledger.find(alias),
                    CanaryState.STOPPED,
                    why=arguments.why,
                    numbers={},
                    who=arguments.who,
                )
                print(f"{ended.version} is no canary of {alias} any more")
            case _:
                name = registry.resolve(alias).name
                found = ledger.read(name, alias.rpartition("@")[2])
                print("\n".join(_told(alias, found)))
        return 0

    @staticmethod
    def _start(ledger: "CanaryLedger", arguments: argparse.Namespace) -> None:
        from ..registry.canary import CanaryTerms

        given = {field.name: vars(arguments)[field.name] for field in fields(CanaryTerms)}
        terms = CanaryTerms(**{name: value for name, value in given.items() if value is not None})
        begun = ledger.start(
            arguments.reference, arguments.alias, terms, why=arguments.why, who=arguments.who
        )
        what = "copies of the requests" if terms.shadow else "the requests"
        print(f"{begun.version} gets {terms.percent:g} % of {what} to {arguments.alias}")


def _told(alias: str, canary: "Trial | None") -> list[str]:
    from ..registry.canary import canary_alias

    if canary is None:
        return [f"{alias} never had a canary"]
    terms = canary.terms
    share = f"{'copies of ' * terms.shadow}{terms.percent:g} % of the requests"
    lines = [f"{canary.version} beside {alias}: {canary.state}; {share}; {canary.why}"]
    lines += [f"  measured: {name} {value:g}" for name, value in canary.numbers.items()]
    if canary.is_running:
        lines += [
            f"  to be promoted after {terms.images} images, with at most {terms.max_errors:g} of "
            f"the requests failed, {terms.max_latency:g} times the time and a drift of "
            f"{terms.max_drift:g}",
            "  what it has done so far: GET /v1/models of the service, under canary",
        ]
    moves = canary_alias(canary.alias)
    lines.append(f"  its moves: onestep registry history {canary.version.name}@{moves}")
    return lines
