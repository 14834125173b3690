"""`onestep doctor`: what this machine offers, and which derivative suits a network on it."""

import argparse
from typing import ClassVar, final

from ..configuration import compose
from ..experiment import Experiment
from ..home import Home
from ..password import hide_passwords


@final
class Doctor:
    """The command that looks at the machine."""

    name: ClassVar[str] = "doctor"
    summary: ClassVar[str] = "check this machine, and measure derivatives for a network"
    description: ClassVar[str] = """Check this machine, and measure derivatives for a network.

Prints versions and where things are kept, asks the model store, and measures for the chosen
network what each way to differentiate costs beside one forward pass, with its error against
float64, and which one to use if the chosen method takes one.

examples:
  onestep doctor
  onestep doctor net=unet_digits data=digits
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("overrides", nargs="*", metavar="override", help="Hydra override")

    def run(self, arguments: argparse.Namespace) -> int:
        """Look, measure and print."""
        experiment = Experiment.from_dict(compose("train", arguments.overrides))
        import torch

        from ..registry.connection import check_tracking
        from ..registry.revision import installed_versions
        from ..training.assembly import assemble
        from ..training.derivative_costs import measure, recommend

        home = Home.here(tracking_uri=experiment.storage.tracking_uri or None)
        for name, version in installed_versions().items():
            print(f"{name:<12} {version}")
        print(f"{'devices':<12} {torch.cuda.device_count()} GPU, {torch.get_num_threads()} threads")
        print(f"{'home':<12} {home.root}")
        check_tracking(home.tracking_uri, artifacts=home.artifacts)
        print(f"{'model store':<12} {hide_passwords(home.tracking_uri)} answers")
        assembly = assemble(experiment)
        costs = measure(assembly.net(), assembly.source.shape, assembly.source.told_classes)
        print(f"\nderivatives of {experiment.net['_target_']} on {assembly.source.name}")
        print(f"{'back-end':<28} {'over a forward':>14} {'relative error':>15}")
        for cost in costs:
            print(f"{cost.name:<28} {cost.ratio:>13.2f}x {cost.error:>15.1e}")
        chosen = recommend(costs)
        print(f"\nbest: {chosen.name}")
        if "derivative" in experiment.method:
            fields = ",".join(f"{key}:{value}" for key, value in chosen.node.items())
            print(f"use: '~method.derivative' '+method.derivative={{{fields}}}'")
        return 0
