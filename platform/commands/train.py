"""`onestep train`: one experiment, from its configuration to a registered model."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, final

from ..experiment import Experiment
from ..password import without_passwords
from .arguments import add_overrides


@final
class Train:
    """The command that trains."""

    name: ClassVar[str] = "train"
    summary: ClassVar[str] = "train a model, evaluate it and register it"
    description: ClassVar[str] = """Train a model, evaluate it and register it.

Overrides choose things (data=, net=, method=, optimizer=, learning_rate=, experiment=) and set
their fields. Everything is checked before the first step.

examples:
  onestep train method=mean_flow data=digits training.samples=200000
  onestep train method=shortcut data=eight_gaussians net=mlp
  onestep train method=reflow parents.teacher=digits/1 parents.initial=digits/1
  onestep train method=mean_flow workers.num_workers=2        two processes, the same result
  onestep train run=first training.checkpoint_every=50000     repeat the line to go on after a kill
  onestep train stages=digits_reflow                          a teacher, then its student
  onestep train stages=digits_reflow run=first                goes on after a kill, stage by stage
  onestep train method=mean_flow --dry-run                    print the experiment and stop
  onestep train method=mean_flow --dry-run --measure          and time a step on this machine

A dry run counts memory in bytes and operations of a worker, and the hours that these take at least
at the best speed of this machine; with --measure, the hours by the time of a step. What it cannot
count is null. At a paper's scale (experiment=cifar10_...) it also says what the paper reports, as
published.
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        add_overrides(parser, "Hydra override", shown="the resolved experiment")
        parser.add_argument(
            "--measure", action="store_true", help="time a step of random data in a dry run"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Train, or print what would be trained."""
        if arguments.measure and not arguments.dry_run:
            raise ValueError("--measure belongs to a dry run: add --dry-run")
        from ..training.sequence import StageSequence

        sequence = StageSequence.from_overrides(arguments.overrides)
        experiments = sequence.check()
        for experiment in experiments:
            _advise(experiment)
        if arguments.dry_run:
            names = (stage.name for stage in sequence.stages)
            done: dict[str, Experiment] = {}
            for name, experiment in zip(names, experiments, strict=True):
                shown = resolved(experiment, done, is_measured=arguments.measure)
                print(json.dumps(without_passwords(shown), indent=2))
                done[name] = experiment
            return 0
        from ..evaluation.table import to_markdown
        from ..training.watcher import Console

        for trained in sequence.run(Console()).values():
            print(to_markdown((trained.report,)))
            print(f"model   {trained.reference}\nfolder  {trained.folder}")
            print(f"sample  onestep sample {trained.reference}\n")
        return 0


def _advise(experiment: Experiment) -> None:
    """Name the network for points to who left the one for images in its place."""
    from ..training.assembly import parts_of

    chosen = {line.partition("=")[0] for line in experiment.overrides}
    if not chosen & {"net", "experiment"} and len(parts_of(experiment).source.shape) == 1:
        print(
            "onestep train: net=mlp is made for points in the plane; the default network is one "
            "of images, and a step of it takes longer",
            file=sys.stderr,
        )


def resolved(
    experiment: Experiment, stages: Mapping[str, Experiment], *, is_measured: bool
) -> dict[str, Any]:
    """An experiment as plain values, with what follows from it.

    Args:
        experiment: The experiment.
        stages: Those of earlier stages, by their names.
        is_measured: Whether a step is timed.

    Returns:
        Plain values; those under ``summary`` follow from the others.
    """
    from ..training.cost import cost_of

    return experiment.to_dict() | {"summary": cost_of(experiment, stages, is_measured=is_measured)}
