"""The command ``onestep sweep``: tries lists of overrides and says which one is best."""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, final

from ..platform.commands.arguments import add_overrides
from ..platform.password import hide_passwords, without_passwords

if TYPE_CHECKING:
    from .report import SweepResult

_DESCRIPTION: Final = """\
Search for better settings with Ray Tune and Optuna. A trial is a list of overrides of
`onestep train`; pasting its line into a shell repeats it.

  onestep sweep                                     the sweep mean_flow_curriculum
  onestep sweep sweep=mean_flow_curriculum sweep.trials=20 sweep.concurrency=4
  onestep sweep data=moons net=mlp training.samples=50000   overrides of every trial
  onestep sweep --dry-run                           the resolved sweep and one trial
  onestep sweep --resume NAME [sweep.trials=40]     go on after an interruption, or further

Trials that have ended are kept in Optuna's database (optuna.db in ONESTEP_HOME, or
sweep.storage=URL); look at them with
  optuna-dashboard sqlite:///.onestep/optuna.db
"""
_RESUMABLE: Final = ("sweep.trials", "sweep.concurrency")


@final
class Sweep:
    """Runs a sweep, or goes on with one."""

    name = "sweep"
    summary = "search for better settings with Ray Tune and Optuna"
    description = _DESCRIPTION

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the arguments of the command.

        Args:
            parser: Parser of this command alone.
        """
        add_overrides(
            parser,
            "sweep=... and sweep.KEY=... for the sweep, all others for every trial",
            shown="the resolved sweep and one trial,",
        )
        parser.add_argument("--resume", metavar="NAME", help="go on with this sweep")

    def run(self, arguments: argparse.Namespace) -> int:
        """Sweeps.

        Args:
            arguments: What ``configure`` made the parser read.

        Returns:
            The exit status.

        Raises:
            ValueError: If the sweep is refused, or all trials fail.
        """
        if arguments.resume and arguments.dry_run:
            raise ValueError("--resume goes on with a sweep that is known; drop --dry-run")
        if arguments.dry_run:
            return self._show(arguments.overrides)
        # Torch, MLflow and Ray are slow to import, and --help needs none of them.
        from ..platform.training.watcher import Console
        from .search import resume, sweep
        from .settings import settings_of

        say = Console().say
        if arguments.resume:
            changes = _counts(arguments.overrides)
            result = resume(
                arguments.resume,
                trials=changes.get("sweep.trials"),
                concurrency=changes.get("sweep.concurrency"),
                say=say,
            )
        else:
            result = sweep(settings_of(arguments.overrides), say=say)
        print(text_of(result))
        return 0

    def _show(self, overrides: Sequence[str]) -> int:
        from .plan import Plan
        from .record import command_line
        from .settings import settings_of

        plan = Plan.of(settings_of(overrides))
        print(json.dumps(without_passwords(plan.settings.to_dict()), indent=2))
        print(f"\none trial:\n  {command_line(tuple(map(hide_passwords, plan.example)))}")
        space = plan.settings.space
        for line in space.sentences(space.first):
            print(f"  with {line}")
        return 0


def text_of(result: "SweepResult") -> str:
    """What is printed when a sweep has ended, without the password of its database.

    Args:
        result: What the sweep found; its table has been written.
    """
    from .report import TABLE

    return f"""\
{(result.folder / TABLE).read_text()}
table, figure and reports: {result.folder}
all trials: optuna-dashboard {hide_passwords(result.storage)}"""


def _counts(overrides: Sequence[str]) -> dict[str, int]:
    changes = {}
    for one in overrides:
        key, _, value = one.partition("=")
        if key not in _RESUMABLE or not value.isdecimal():
            raise ValueError(
                f"a resumed sweep keeps its settings but {' and '.join(_RESUMABLE)}, got {one!r}"
            )
        changes[key] = int(value)
    return changes
