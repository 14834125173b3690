"""The command ``onestep sweep``: tries lists of overrides and says which one is best."""

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final, final

from ..platform.commands.arguments import add_overrides
from ..platform.password import hide_passwords, without_passwords

if TYPE_CHECKING:
    from .plan import Plan
    from .report import SweepResult

_DESCRIPTION: Final = """\
Search for better settings with Ray Tune and Optuna. A trial is a list of overrides of
`onestep train`; pasting its line into a shell repeats it.

  onestep sweep                                     the sweep mean_flow_curriculum
  onestep sweep sweep=mean_flow_curriculum sweep.trials=20 sweep.concurrency=4
  onestep sweep sweep=mean_flow_population          members that go on from each other
  onestep sweep data=moons net=mlp training.samples=50000   overrides of every trial
  onestep sweep 'hydra.searchpath=[FOLDER]' sweep=NAME      your own FOLDER/sweep/NAME.yaml
  onestep sweep --dry-run                           the resolved sweep and one trial
  onestep sweep --resume NAME [sweep.trials=40]     go on after an interruption, or further
  onestep sweep ... resume=auto                     go on if it was begun, else begin
  onestep sweep list                                the sweeps that were begun here
  onestep sweep report NAME                         write the page of one, while it runs, too

A sweep that has ended leaves report.html and table.md in sweeps/NAME of ONESTEP_HOME: ranked
trials, what they cost, samples of the best. Each trial is a run of MLflow, and with
sweep.wandb=true one of Weights & Biases, offline unless WANDB_MODE says otherwise.

Trials that have ended are kept in Optuna's database (optuna.db in ONESTEP_HOME, or
sweep.storage=URL), their runs in MLflow's (mlflow.db); look at them with
  optuna-dashboard sqlite:///.onestep/optuna.db     of the package onestep[dashboard]
  mlflow ui --backend-store-uri sqlite:///.onestep/mlflow.db
where .onestep stands for the folder that ONESTEP_HOME names.
"""
_AUTO: Final = "resume=auto"
_REPORT: Final = "report"
_LIST: Final = "list"
_WORD: Final = re.compile(r"\w+")
"""What is no override, and could be meant for what is to be done."""
_COUNTS: Final = ("sweep.trials", "sweep.concurrency", "sweep.retries")
_ADDRESS: Final = "sweep.address"
_WANDB: Final = "sweep.wandb"
_CHANGEABLE: Final = (*_COUNTS, _ADDRESS, _WANDB)
_BUDGET: Final = "sweep.budget."


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
        parser.usage = """onestep sweep [option ...] [override ...]
       onestep sweep list
       onestep sweep report NAME"""
        add_overrides(
            parser,
            "sweep=... and sweep.KEY=... for the sweep, all others for every trial",
            shown="the resolved sweep and one trial,",
        )
        parser.add_argument("--resume", metavar="NAME", help="go on with this sweep")
        parser.add_argument(
            "--any-code",
            action="store_true",
            help="go on although the code has changed since the sweep was begun",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Sweeps.

        Args:
            arguments: What ``configure`` made the parser read.

        Returns:
            The exit status.

        Raises:
            ValueError: If the sweep is refused, or all trials fail.
        """
        words = arguments.overrides
        if words and _WORD.fullmatch(words[0]) and words[0] not in (_REPORT, _LIST):
            raise ValueError(
                f"`onestep sweep` knows the words {_LIST} and {_REPORT} NAME, and else takes "
                f"overrides KEY=VALUE, got {words[0]!r}"
            )
        if arguments.overrides[:1] == [_REPORT]:
            return self._report(arguments)
        if arguments.overrides[:1] == [_LIST]:
            return self._list(arguments)
        if arguments.resume and arguments.dry_run:
            raise ValueError("--resume goes on with a sweep that is known; drop --dry-run")
        overrides = [one for one in arguments.overrides if one != _AUTO]
        is_auto = len(overrides) < len(arguments.overrides)
        if is_auto and arguments.resume:
            raise ValueError(f"--resume names the sweep to go on with; drop {_AUTO}")
        if arguments.any_code and not (is_auto or arguments.resume):
            raise ValueError(f"--any-code belongs to --resume or {_AUTO}")
        if arguments.dry_run:
            return self._show(overrides)
        # Torch, MLflow and Ray are slow to import, and --help needs none of them.
        from .board import Board
        from .search import resume, sweep, sweep_or_resume
        from .settings import settings_of

        with Board(sys.stdout) as board:
            say, show, any_code = board.say, board.show, arguments.any_code
            if arguments.resume:
                changed = changes_of(overrides, of=arguments.resume)
                result = resume(
                    arguments.resume,
                    **changed,
                    any_code=any_code,
                    say=say,
                    show=show,
                )
            elif is_auto:
                settings = settings_of(overrides)
                result = sweep_or_resume(settings, any_code=any_code, say=say, show=show)
            else:
                result = sweep(settings_of(overrides), say=say, show=show)
        print(text_of(result))
        return 0

    def _list(self, arguments: argparse.Namespace) -> int:
        if len(arguments.overrides) > 1 or _has_option(arguments):
            raise ValueError("write `onestep sweep list`, with no other word and no option")
        from .listing import listing

        print("\n".join(listing()))
        return 0

    def _report(self, arguments: argparse.Namespace) -> int:
        words = arguments.overrides[1:]
        if len(words) != 1 or _has_option(arguments):
            raise ValueError("write `onestep sweep report NAME`, with one name and no option")
        from .findings import Findings
        from .page import write_page

        print(write_page(Findings.of(words[0])))
        return 0

    def _show(self, overrides: Sequence[str]) -> int:
        from ..platform.data.stream_sample import load
        from ..platform.training.assembly import registry_of
        from .earlier import first_points
        from .plan import Plan
        from .record import command_line
        from .settings import settings_of

        plan = Plan.of(settings_of(overrides))
        if plan.has_parents:
            plan = plan.with_versions(registry_of(plan.experiment))
        first = first_points(plan)
        plan.check_measurable(load(plan.assembly.source, stream=plan.experiment.training.stream))
        print(json.dumps(without_passwords(plan.settings.to_dict()), indent=2))
        print(f"\none trial:\n  {command_line(tuple(map(hide_passwords, plan.example)))}")
        space = plan.settings.space
        for line in space.sentences(space.first):
            print(f"  with {line}")
        if said := first.sentences(plan.settings.founders):
            print("", *said, sep="\n")
        if plan.settings.unlearned:
            print(f"\n{plan.settings.unlearned}")
        if plan.settings.scheduler.is_population:
            print(f"\n{generations_of(plan)}")
        print(f"\n{estimate_of(plan)}")
        if (posthoc := plan.settings.posthoc) is not None:
            print(f"then the weights of each trial are measured in {1 + posthoc.trials} settings")
        return 0


def _has_option(arguments: argparse.Namespace) -> bool:
    return bool(arguments.dry_run or arguments.resume or arguments.any_code)


def generations_of(plan: "Plan") -> str:
    """What a population does, in one sentence.

    Args:
        plan: The sweep.
    """
    settings, members = plan.settings, plan.settings.population
    most = settings.scheduler.samples_of_a_trial(plan.budgets)
    copies = max(1, int(settings.scheduler.quantile * members))
    return (
        f"{members} members of {plan.samples} samples in {settings.generations} generations of at "
        f"most {most}; after each, the worst {copies} go on from the best {copies}"
    )


def estimate_of(plan: "Plan") -> str:
    """How long the trainings of a sweep will take, from a few steps on this machine.

    Args:
        plan: The sweep.
    """
    from ..platform.training.cost import cost_of

    settings, trials = plan.settings, plan.settings.trials
    found = [cost_of(one, {}, is_measured=True)["time"] for one in plan.outermost]
    lowest, highest = (3600.0 * one["hours"] for one in found)
    each = max(lowest, highest)
    samples = settings.scheduler.expected_samples(trials, plan.budgets)
    share = samples / (trials * plan.samples)
    why = "of the run each" if settings.scheduler.is_population else "with early stopping"
    early = "" if share == 1.0 else f", {share:.0%} of their samples {why}"
    paid, said = _paid(plan, each, samples=samples)
    at_once = min(settings.concurrency, math.ceil(trials * paid))
    total = each * trials * share * paid / at_once
    return (
        f"about {each:.3g} s to train a whole trial on {found[0]['device']}, the dearer of two: "
        f"{lowest:.3g} with the first value of every key, {highest:.3g} with the last; {trials} "
        f"trials{early}{said}, {at_once} at once: {total:.3g} s in all if the cores do not share, "
        "without measuring"
    )


def _paid(plan: "Plan", each: float, *, samples: int) -> tuple[float, str]:
    """The share of a sweep that its budget pays for, as a number and in words.

    Args:
        plan: The sweep.
        each: Seconds of a whole trial.
        samples: Samples of all trials.
    """
    from .cost import Cost

    scheduler, budget = plan.settings.scheduler, plan.settings.budget
    workers = plan.experiment.workers
    gpus = workers.num_workers * workers.gpus_per_worker

    def cost(samples: int) -> Cost:
        wall_s = each * samples / plan.samples
        return Cost(wall_s=wall_s, gpu_s=wall_s * gpus, samples=samples)

    if scheduler.is_halving:
        share = min(1.0, budget.share(cost(samples)))
        return share, f", of which the budget pays for {share:.0%}" if share < 1.0 else ""
    trials = plan.settings.trials
    whole = cost(scheduler.samples_of_a_trial(plan.budgets))
    paid = min(trials, budget.trials(whole, at_once=plan.settings.concurrency))
    return paid / trials, f", of which the budget pays for {paid:g}" if paid < trials else ""


def text_of(result: "SweepResult") -> str:
    """What is printed when a sweep has ended, without the password of its database.

    Args:
        result: What the sweep found; its table has been written.
    """
    from .page import PAGE
    from .report import TABLE, promotion

    winner = ""
    if result.model is not None:
        winner = f"""
registered {result.model}; let an alias mean it, which is then served:
  {promotion(result.model, result.study_name)}
"""
    return f"""\
{(result.folder / TABLE).read_text()}{winner}
the page: {result.folder / PAGE}
all trials: optuna-dashboard {hide_passwords(result.storage)}"""


def changes_of(overrides: Sequence[str], *, of: str) -> dict[str, Any]:
    """What a resumed sweep takes in place of its own: counts, a budget and where it runs.

    Args:
        overrides: Those of the command line.
        of: Name of the sweep.

    Returns:
        The settings that change, by their fields.

    Raises:
        ValueError: If another setting is among them, or a value is none for its key.
    """
    from ..platform.configuration import question
    from ..platform.settings import settings
    from .cost import Budget
    from .note import SweepNote

    changed: dict[str, Any] = {}
    amounts: dict[str, object] = {}
    for one in overrides:
        key, _, value = one.partition("=")
        if key in _COUNTS:
            changed[key.removeprefix("sweep.")] = _whole(key, value)
        elif key == _ADDRESS:
            changed["address"] = value
        elif key == _WANDB:
            if value not in ("true", "false"):
                raise ValueError(f"{key} must be true or false, got {value!r}")
            changed["wandb"] = value == "true"
        elif key.startswith(_BUDGET):
            amounts[key.removeprefix(_BUDGET)] = _number(value)
        else:
            limits = [f"{_BUDGET}{field.name}" for field in fields(Budget)]
            raise ValueError(
                f"a resumed sweep keeps its settings but {', '.join(_CHANGEABLE)} and those of "
                f"{_BUDGET.rstrip('.')}, got {one!r}{question(key, [*_CHANGEABLE, *limits])}"
            )
    if amounts:
        known = asdict(SweepNote.of(of).settings.budget)
        changed["budget"] = settings(Budget, _BUDGET.rstrip("."), known | amounts)
    return changed


def _whole(key: str, text: str) -> int:
    """The whole number that a text writes; who knows the key refuses one out of range."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{key} must be a whole number, got {text!r}") from None


def _number(text: str) -> object:
    """The number that a text writes, or the text, which is refused by who knows the key."""
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return text
