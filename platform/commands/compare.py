"""`onestep compare`: several registered models in one table and one picture."""

import argparse
from typing import ClassVar, final

from .arguments import (
    OF_A_MEASUREMENT,
    add_device,
    add_yardstick,
    apply_overrides,
    check_yardstick,
    show,
)


@final
class Compare:
    """The command that compares."""

    name: ClassVar[str] = "compare"
    summary: ClassVar[str] = "compare registered models: a table, samples, quality against NFE"
    description: ClassVar[str] = """Compare registered models of one data set.

Writes table.md, table.csv, samples.png (all models from the same noise) and quality.png.

examples:
  onestep compare digits/1 digits/2 champion
  onestep compare digits/1 digits/2 --out comparison --nfe 1 2 4 8
  onestep compare digits/1 digits/2 storage.tracking_uri=http://mlflow:5000 evaluation.samples=400
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        taken = " or ".join(OF_A_MEASUREMENT)
        # One list, because nothing else says where models end and overrides begin.
        parser.add_argument(
            "overrides",
            nargs="+",
            metavar="reference",
            help=f"such as digits/3 or champion; with an = an override of {taken}",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="print what would be compared and stop"
        )
        add_yardstick(parser)
        add_device(parser)
        parser.add_argument("--out", default="comparison", help="folder to write into")

    def run(self, arguments: argparse.Namespace) -> int:
        """Measure all models on one benchmark, print the table and write the files."""
        from pathlib import Path

        from ..device import device_named
        from ..evaluation.comparison import compare
        from ..evaluation.named_sampler import check_nfes
        from ..registry.store import Registry

        references = [word for word in arguments.overrides if "=" not in word]
        arguments.overrides = [word for word in arguments.overrides if "=" in word]
        if not references:
            raise ValueError("compare needs one or more models, such as digits/3, got none")
        home = apply_overrides(arguments, allowed=OF_A_MEASUREMENT)
        check_yardstick(arguments)
        device = device_named(arguments.device)
        registry = Registry.at(home)
        entries = [registry.entry(reference) for reference in references]
        for entry in entries:
            check_nfes(entry.record, arguments.nfe)
        models = [str(entry.reference) for entry in entries]
        if arguments.dry_run:
            show(
                {
                    "models": models,
                    "nfe": arguments.nfe,
                    "samples": arguments.samples,
                    "seed": arguments.seed,
                    "device": str(device),
                    "out": arguments.out,
                },
                home,
            )
            return 0
        comparison = compare(
            registry,
            models,
            home=home.root,
            nfes=arguments.nfe,
            samples=arguments.samples,
            seed=arguments.seed,
            device=device,
        )
        folder = Path(arguments.out)
        files = comparison.write(folder)
        print(comparison.table)
        print("\n".join(str(file) for file in files))
        return 0
