"""`onestep train`: one experiment, from its configuration to a registered model."""

import argparse
import json
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
  onestep train method=mean_flow --dry-run                    print the experiment and stop
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        add_overrides(parser, "Hydra override", shown="the resolved experiment")

    def run(self, arguments: argparse.Namespace) -> int:
        """Train, or print what would be trained."""
        from ..training.sequence import StageSequence

        sequence = StageSequence.from_overrides(arguments.overrides)
        experiments = sequence.check()
        if arguments.dry_run:
            for experiment in experiments:
                print(json.dumps(without_passwords(resolved(experiment)), indent=2))
            return 0
        from ..training.watcher import Console

        for trained in sequence.run(Console()).values():
            print(headline(trained.report.metrics()))
            print(f"\nmodel   {trained.reference}\nfolder  {trained.folder}")
            print(f"sample  onestep sample {trained.reference}\n")
        return 0


def resolved(experiment: Experiment) -> dict[str, Any]:
    """An experiment as plain values, with what follows from it."""
    from ..training.assembly import assemble

    parameters = sum(p.numel() for p in assemble(experiment).net().parameters())
    summary = {"steps": experiment.training.steps, "parameters": parameters}
    return experiment.to_dict() | {"summary": summary}


def headline(metrics: dict[str, float]) -> str:
    """The numbers that decide between models, a line for each number of evaluations."""
    from ..evaluation.compare import HEADLINES

    nfes = sorted({int(name.rsplit("nfe_", 1)[1]) for name in metrics if "/nfe_" in name})
    lines = []
    for nfe in nfes:
        cells = [
            f"{metric.removeprefix('eval/')} {metrics[name]:.3f}"
            for metric in HEADLINES
            if (name := f"{metric}/nfe_{nfe}") in metrics
        ]
        lines.append(f"{nfe:3d} NFE   " + "   ".join(cells))
    return "\n".join(lines)
