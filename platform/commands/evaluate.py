"""`onestep evaluate`: measure a registered model again, on the data that it was trained on."""

import argparse
from typing import ClassVar, final

from ..home import Home


@final
class Evaluate:
    """The command that measures."""

    name: ClassVar[str] = "evaluate"
    summary: ClassVar[str] = "measure a registered model against held-out data"
    description: ClassVar[str] = """Measure a registered model against held-out data.

Every number comes with its floor (data against data), the trivial baselines and an interval.

examples:
  onestep evaluate champion
  onestep evaluate digits/3 --nfe 1 2 --samples 400 --json report.json
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("reference", help="such as digits/3 or champion")
        parser.add_argument(
            "--nfe", type=int, nargs="+", default=[1, 2, 4, 8], help="network evaluations"
        )
        parser.add_argument(
            "--samples", type=int, default=2000, help="at most this many in each of eight draws"
        )
        parser.add_argument("--seed", type=int, default=7, help="seed of the noise")
        parser.add_argument("--json", metavar="FILE", help="write the whole report here")

    def run(self, arguments: argparse.Namespace) -> int:
        """Measure and print a table."""
        from pathlib import Path

        from ..atomic import write_text
        from ..evaluation.benchmark import Benchmark
        from ..evaluation.compare import to_markdown
        from ..evaluation.evaluate import evaluate_on
        from ..registry.model import dataset_of, load_flow_map
        from ..registry.store import Registry

        home = Home.here()
        flow_map, record = load_flow_map(Registry.at(home), arguments.reference)
        dataset = dataset_of(record, model=arguments.reference)
        benchmark = Benchmark.prepare(
            dataset, home=home.root, samples=arguments.samples, seed=arguments.seed
        )
        report = evaluate_on(
            benchmark, flow_map, model=arguments.reference, nfes=arguments.nfe, ema=record.ema
        )
        print(to_markdown([report]))
        if arguments.json:
            write_text(Path(arguments.json), report.to_json())
        return 0
