"""`onestep compare`: several registered models in one table and one picture."""

import argparse
from typing import ClassVar, final

from ..home import Home
from .arguments import add_yardstick, check_yardstick


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
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("references", nargs="+", help="such as digits/3 or champion")
        add_yardstick(parser)
        parser.add_argument("--out", default="comparison", help="folder to write into")

    def run(self, arguments: argparse.Namespace) -> int:
        """Measure all models on one benchmark, print the table and write the files."""
        from pathlib import Path

        from ..evaluation.comparison import compare
        from ..registry.store import Registry

        check_yardstick(arguments)
        home = Home.here()
        registry = Registry.at(home)
        comparison = compare(
            registry,
            [str(registry.resolve(reference)) for reference in arguments.references],
            home=home.root,
            nfes=arguments.nfe,
            samples=arguments.samples,
            seed=arguments.seed,
        )
        folder = Path(arguments.out)
        files = comparison.write(folder)
        print(comparison.table)
        print("\n".join(str(file) for file in files))
        return 0
