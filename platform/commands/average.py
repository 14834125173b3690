"""`onestep average`: moving averages of other widths, after the training."""

import argparse
from typing import TYPE_CHECKING, ClassVar, final

from .arguments import (
    OF_A_MEASUREMENT,
    add_device,
    add_overrides,
    add_yardstick,
    apply_overrides,
    check_yardstick,
    show,
)

if TYPE_CHECKING:  # torch and MLflow take seconds to import, and `--help` needs neither
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from ..evaluation.report import Report
    from ..home import Home
    from ..registry.record import ModelRecord


@final
class Average:
    """The command that makes averages of other widths."""

    name: ClassVar[str] = "average"
    summary: ClassVar[str] = "try moving averages of other widths after a training"
    description: ClassVar[str] = """Try moving averages of other widths after a training.

The run has to have kept snapshots (training.ema_snapshots=16). A width is the standard deviation
of the weights in time over the length of the run: 0.05 is short, 0.2 long.

examples:
  onestep average my-run --width 0.03 0.06 0.12
  onestep average my-run --width 0.06 --keep        register it, the run's model as its parent
  onestep average my-run storage.tracking_uri=http://mlflow:5000 --width 0.06
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("run", help="name of the run, the last part of its folder")
        add_overrides(parser, " or ".join(OF_A_MEASUREMENT), shown="what would be averaged")
        parser.add_argument(
            "--width", type=float, nargs="+", required=True, help="relative widths, in (0, 0.25]"
        )
        add_yardstick(parser)
        add_device(parser)
        parser.add_argument("--keep", action="store_true", help="register each as a new version")

    def run(self, arguments: argparse.Namespace) -> int:
        """Make, measure and print a table."""
        from dataclasses import asdict, replace

        from ..device import device_named
        from ..evaluation.table import to_markdown
        from ..registry.store import Registry
        from ..training.power_average import PowerProfile
        from ..training.run_note import model_of
        from ..training.snapshot import average_of_width

        home = apply_overrides(arguments, allowed=OF_A_MEASUREMENT)
        check_yardstick(arguments)
        device = device_named(arguments.device)
        for width in arguments.width:
            PowerProfile.of_width(width)  # refuses one out of range
        folder = home.runs / arguments.run
        parent = model_of(folder)
        registry = Registry.at(home)
        entry = registry.entry(parent)
        if arguments.dry_run:
            names = ("run", "width", "nfe", "samples", "seed", "keep")
            plan = {name: vars(arguments)[name] for name in names}
            show({"model": parent, **plan, "device": str(device)}, home)
            return 0
        made = {
            f"relative width {width:g}": average_of_width(folder, width)
            for width in arguments.width
        }
        reports = _measured(made, entry.record, parent, home, arguments, device)
        for ema, report in reports.items() if arguments.keep else ():
            record = replace(
                entry.record,
                ema=ema,
                parents={"averaged": parent, **entry.record.parents},
                metrics=report.metrics(),
                provenance=asdict(report.provenance),
            )
            version = registry.register(
                record, made[ema], run_id=entry.run_id, decoder=registry.decoder(parent)
            )
            print(f"{version}  {ema}")
        print(to_markdown(tuple(reports.values())))
        return 0


def _measured(
    made: "Mapping[str, Mapping[str, Tensor]]",
    record: "ModelRecord",
    parent: str,
    home: "Home",
    arguments: argparse.Namespace,
    device: "torch.device",
) -> "dict[str, Report]":
    """The report on each of a model's averages, by what it is called."""
    from ..evaluation.evaluate import benchmark_of, evaluate_on
    from ..registry.model import at_scale, build_flow_map, fill, own_scale

    benchmark = benchmark_of(
        record,
        model=parent,
        home=home.root,
        samples=arguments.samples,
        seed=arguments.seed,
    )
    reports = {}
    for ema, weights in made.items():
        flow_map = build_flow_map(record)
        fill(flow_map, weights, model=parent)
        flow_map = flow_map.to(device).eval().requires_grad_(False)
        reports[ema] = evaluate_on(
            benchmark,
            at_scale(flow_map, own_scale(record), model=parent),
            model=f"{parent}, {ema}",
            nfes=arguments.nfe,
            ema=ema,
        )
    return reports
