"""`onestep sample`: pictures from a registered model."""

import argparse
from typing import ClassVar, final

from ..home import Home


@final
class Sample:
    """The command that draws samples."""

    name: ClassVar[str] = "sample"
    summary: ClassVar[str] = "draw samples from a registered model into a PNG"
    description: ClassVar[str] = """Draw samples from a registered model into a PNG.

A sample depends on the seed and its number alone.

examples:
  onestep sample champion
  onestep sample digits/3 --nfe 2 --n 100 --seed 1 --out digits.png
  onestep sample champion --label 3 --n 16
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("reference", help="such as digits/3 or champion")
        parser.add_argument("--nfe", type=int, default=1, help="network evaluations of a sample")
        parser.add_argument("--n", type=int, default=100, help="how many, in 1..10000")
        parser.add_argument("--label", type=int, help="class; all of them in turn by default")
        parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
        parser.add_argument("--out", default="samples.png", help="file to write")

    def run(self, arguments: argparse.Namespace) -> int:
        """Draw and write."""
        from pathlib import Path

        import torch

        from ..evaluation.figures import sample_grid, save_png, scatter_panels
        from ..evaluation.sampling import draw_samples, samplers_at
        from ..registry.model import dataset_of, load_flow_map
        from ..registry.store import Registry

        if not 1 <= arguments.n <= 10_000:
            raise ValueError(f"--n must be in 1..10000, got {arguments.n}")
        if arguments.seed < 0:
            raise ValueError(f"--seed must be at least 0, got {arguments.seed}")
        flow_map, record = load_flow_map(Registry.at(Home.here()), arguments.reference)
        labels = None
        if record.classes:
            labels = torch.arange(arguments.n) % record.classes
        if arguments.label is not None:
            if not 0 <= arguments.label < record.classes:
                raise ValueError(
                    f"--label must be in 0..{record.classes - 1}, got {arguments.label}"
                    if record.classes
                    else f"{arguments.reference} has no classes, got --label {arguments.label}"
                )
            labels = torch.full((arguments.n,), arguments.label)
        ((_, sampler),) = samplers_at(flow_map.domain, [arguments.nfe])
        x = draw_samples(
            flow_map, sampler, n=arguments.n, shape=record.shape, seed=arguments.seed, labels=labels
        )
        if x.dim() == 2:
            dataset = dataset_of(record, model=arguments.reference)
            held_out, _ = dataset.held_out.everything()
            figure = scatter_panels(held_out, {arguments.reference: {arguments.nfe: x}})
        else:
            columns = record.classes if labels is not None and arguments.label is None else 10
            columns = min(columns, len(x))
            blank = x.new_full((-len(x) % columns, *x.shape[1:]), -1.0)
            figure = sample_grid({arguments.reference: torch.cat([x, blank])}, columns=columns)
        save_png(figure, Path(arguments.out))
        print(f"{arguments.n} samples of {arguments.reference} by {sampler}: {arguments.out}")
        return 0
