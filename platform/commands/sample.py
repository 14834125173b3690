"""`onestep sample`: pictures from a registered model."""

import argparse
from typing import TYPE_CHECKING, ClassVar, final

from .arguments import OF_A_STORE, add_overrides, apply_overrides, show

if TYPE_CHECKING:  # torch takes seconds to import, and `--help` needs none of it
    from torch import Tensor


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
  onestep sample champion storage.tracking_uri=http://mlflow:5000
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("reference", help="such as digits/3 or champion")
        add_overrides(parser, " or ".join(OF_A_STORE), shown="what would be drawn")
        parser.add_argument("--nfe", type=int, default=1, help="network evaluations of a sample")
        parser.add_argument("--n", type=int, default=100, help="how many, in 1..10000")
        parser.add_argument("--label", type=int, help="class; all of them in turn by default")
        parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
        parser.add_argument("--out", default="samples.png", help="file to write")

    def run(self, arguments: argparse.Namespace) -> int:
        """Draw and write."""
        from pathlib import Path

        import torch

        from ...methods.core.flow_map import Domain
        from ..evaluation.figures import sample_grid, save_png, scatter_panels
        from ..evaluation.sampling import clipped, draw_samples, samplers_at
        from ..registry.decoder import load_decoder
        from ..registry.model import dataset_of, load_flow_map
        from ..registry.store import Registry

        if not 1 <= arguments.n <= 10_000:
            raise ValueError(f"--n must be in 1..10000, got {arguments.n}")
        if arguments.seed < 0:
            raise ValueError(f"--seed must be at least 0, got {arguments.seed}")
        home = apply_overrides(arguments, allowed=OF_A_STORE)
        registry = Registry.at(home)
        entry = registry.entry(arguments.reference)
        reference, record = str(entry.reference), entry.record
        if record.latents is not None and record.latents.decoder is None:
            raise ValueError(
                f"{reference} makes latents of shape {record.shape}, and has no decoder that "
                "makes pictures of them"
            )
        labels = _labels(arguments, record.classes)
        ((_, sampler),) = samplers_at(Domain.from_dict(dict(record.domain)), [arguments.nfe])
        if arguments.dry_run:
            show(
                {
                    "model": reference,
                    "nfe": arguments.nfe,
                    "n": arguments.n,
                    "label": arguments.label,
                    "seed": arguments.seed,
                    "out": arguments.out,
                },
                home,
            )
            return 0
        decoder = load_decoder(registry, reference)
        flow_map, _ = load_flow_map(registry, reference)
        x = draw_samples(
            flow_map,
            sampler,
            n=arguments.n,
            shape=record.shape,
            seed=arguments.seed,
            labels=labels,
            finish=clipped if decoder is None else decoder,
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


def _labels(arguments: argparse.Namespace, classes: int) -> "Tensor | None":
    import torch

    if arguments.label is None:
        return torch.arange(arguments.n) % classes if classes else None
    if not 0 <= arguments.label < classes:
        raise ValueError(
            f"--label must be in 0..{classes - 1}, got {arguments.label}"
            if classes
            else f"{arguments.reference} has no classes, got --label {arguments.label}"
        )
    return torch.full((arguments.n,), arguments.label)
