"""`onestep train`: one experiment, from its configuration to a registered model."""

import argparse
import json
from typing import ClassVar, final

from ..configuration import compose
from ..experiment import Experiment


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
  onestep train method=mean_flow --dry-run                    print the experiment and stop
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("overrides", nargs="*", metavar="override", help="Hydra override")
        parser.add_argument(
            "--dry-run", action="store_true", help="print the resolved experiment and stop"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Train, or print what would be trained."""
        values = compose("train", arguments.overrides)
        experiment = Experiment.from_dict(values, tuple(arguments.overrides))
        # Imported late: torch, Ray and MLflow take seconds, and a wrong override should not.
        from ..training.assembly import assemble

        assembly = assemble(experiment)
        if arguments.dry_run:
            parameters = sum(p.numel() for p in assembly.net().parameters())
            summary = {"steps": experiment.training.steps, "parameters": parameters}
            print(json.dumps(experiment.to_dict() | {"summary": summary}, indent=2))
            return 0
        from ..training.launch import launch
        from ..training.watcher import Console

        trained = launch(experiment, Console())
        print(headline(trained.report.metrics()))
        print(f"\nmodel   {trained.reference}\nfolder  {trained.folder}")
        print(f"sample  onestep sample {trained.reference}")
        return 0


def headline(metrics: dict[str, float]) -> str:
    """The numbers that decide between models, a line for each number of evaluations."""
    shown = ("1nn_accuracy", "sliced_w2", "class_agreement", "mass_tv")
    nfes = sorted({int(name.rsplit("nfe_", 1)[1]) for name in metrics if "/nfe_" in name})
    lines = []
    for nfe in nfes:
        cells = [
            f"{short} {metrics[name]:.3f}"
            for short in shown
            if (name := f"eval/{short}/nfe_{nfe}") in metrics
        ]
        lines.append(f"{nfe:3d} NFE   " + "   ".join(cells))
    return "\n".join(lines)
