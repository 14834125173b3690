"""`onestep doctor`: what this machine offers, and which derivative suits a network on it."""

import argparse
import json
from typing import ClassVar, final

from ..configuration import compose
from ..experiment import Experiment
from ..password import hide_passwords, without_passwords
from .arguments import add_overrides


@final
class Doctor:
    """The command that looks at the machine."""

    name: ClassVar[str] = "doctor"
    summary: ClassVar[str] = "check this machine, its derivatives and its gradients"
    description: ClassVar[str] = """Check this machine, and a method and a network on it.

Prints versions and where things are kept, and asks the model store. Measures for the chosen network
what each way to differentiate adds to a step of training in time and memory, on the device that
would train, with its error against float64, and says which one to use if the method takes one.
derivative@method.derivative=auto makes that choice before a run. Then two processes share a batch
of the chosen method, and their gradients are compared with those of one. Neither data nor parents
are needed: noise and random networks stand for them.

examples:
  onestep doctor
  onestep doctor method=mean_flow net=unet_digits data=digits
  onestep doctor method=shortcut net=unet_mnist data=mnist workers.gpus_per_worker=1
  onestep doctor method=mean_flow --dry-run         print the experiment and stop
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        add_overrides(parser, "Hydra override", shown="the resolved experiment")

    def run(self, arguments: argparse.Namespace) -> int:
        """Look, measure and print, or print what would be looked at."""
        from ..training.perception import with_perception

        experiment = with_perception(Experiment.from_dict(compose("train", arguments.overrides)))
        if arguments.dry_run:
            print(json.dumps(without_passwords(experiment.to_dict()), indent=2))
            return 0
        _show_machine(experiment)
        _show_derivatives(experiment)
        return _show_gradients(experiment)


def _show_machine(experiment: Experiment) -> None:
    import torch

    from ..registry.connection import check_tracking
    from ..registry.revision import installed_versions
    from ..training.assembly import home_of

    home = home_of(experiment)
    for name, version in installed_versions().items():
        print(f"{name:<12} {version}")
    print(f"{'devices':<12} {torch.cuda.device_count()} GPU, {torch.get_num_threads()} threads")
    print(f"{'home':<12} {home.root}")
    check_tracking(home.tracking_uri, artifacts=home.artifacts)
    print(f"{'model store':<12} {hide_passwords(home.tracking_uri)} answers")


def _show_derivatives(experiment: Experiment) -> None:
    from ..training.assembly import parts_of
    from ..training.derivative_choice import naming
    from ..training.derivative_costs import measure, recommend
    from ..training.place import place_of

    parts, device = parts_of(experiment), place_of(experiment).device
    precision = experiment.training.precision
    costs = measure(
        parts.net().to(device), parts.source.shape, parts.source.told_classes, precision=precision
    )
    print(
        f"\nderivatives of {experiment.net['_target_']} on {parts.source.name}, {device.type}, "
        f"{precision}:\na step with a quarter of its rows off the diagonal, over one without"
    )
    print(f"{'back-end':<28} {'time':>7} {'peak memory':>13} {'relative error':>15}")
    for cost in costs:
        numbers = f"{cost.step:>6.2f}x {cost.memory:>12.2f}x {cost.error:>15.1e}"
        print(f"{cost.name:<28} {f'refused: {cost.refusal}' if cost.refusal else numbers}")
    chosen = recommend(costs)
    print(f"\nbest: {chosen.name}")
    if "derivative" in experiment.method:
        print("use: " + " ".join(f"'{line}'" for line in naming(chosen.node)))


def _show_gradients(experiment: Experiment) -> int:
    from ..training.assembly import parts_of
    from ..training.derivative_choice import with_forward_mode
    from ..training.synchronisation import check_synchronised

    name = parts_of(experiment).name
    found = check_synchronised(with_forward_mode(experiment))
    state = "those of one" if found.holds else "NOT those of one"
    print(
        f"\ngradients of {name} in {found.workers} processes are {state}: "
        f"largest difference {found.difference:.1e} of the largest element"
    )
    return 0 if found.holds else 1
