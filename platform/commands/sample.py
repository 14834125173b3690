"""`onestep sample`: pictures from a registered model."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, final

from .arguments import (
    OF_A_STORE,
    SAMPLER,
    add_device,
    add_guidance,
    add_overrides,
    apply_overrides,
    show,
)

if TYPE_CHECKING:  # torch takes seconds to import, and `--help` needs none of it
    from torch import Tensor

    from ...methods.core.condition import Condition
    from ...methods.core.flow_map import Domain
    from ...methods.core.sampler import AbstractSampler
    from ..registry.record import ModelRecord


@final
class Sample:
    """The command that draws samples."""

    name: ClassVar[str] = "sample"
    summary: ClassVar[str] = "draw samples from a registered model into a PNG"
    description: ClassVar[str] = """Draw samples from a registered model into a PNG.

A sample depends on the seed and its number alone. The model's domain chooses the sampler, but for
one that a sweep has found for its number of evaluations. Another one can be named, with its own
number of steps: anchored, ddim, ddim_clock, dpm_solver, edm or heun for a velocity; jumps, renoise,
anchored_jumps or gamma, with the times between 0 and 1, for a map that jumps.

examples:
  onestep sample champion
  onestep sample digits/3 --nfe 2 --n 100 --seed 1 --out digits.png
  onestep sample champion --label 3 --n 16
  onestep sample digits/4 --guidance 2              a model that takes a guidance scale
  onestep sample digits/1 sampler=dpm_solver sampler.grid.steps=20
  onestep sample digits/2 sampler=renoise sampler.grid.inner=[0.3,0.6]
  onestep sample captioned_digits/2 --caption "a seven on white"
  onestep sample champion storage.tracking_uri=http://mlflow:5000
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("reference", help="such as digits/3 or champion")
        add_overrides(parser, " or ".join((*OF_A_STORE, SAMPLER)), shown="what would be drawn")
        parser.add_argument("--nfe", type=int, help="network evaluations of a sample, 1 by default")
        parser.add_argument("--n", type=int, default=100, help="how many, in 1..10000")
        parser.add_argument("--label", type=int, help="class; all of them in turn by default")
        parser.add_argument("--caption", help="caption, for a model of captions; none by default")
        parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
        add_guidance(parser)
        add_device(parser)
        parser.add_argument("--out", default="samples.png", help="file to write")

    def run(self, arguments: argparse.Namespace) -> int:
        """Draw and write."""
        from pathlib import Path

        import torch

        from ...methods.core.flow_map import Domain
        from ..device import device_named
        from ..evaluation.figures import sample_grid, save_png, scatter_panels
        from ..evaluation.named_sampler import apart
        from ..evaluation.sampling import clipped, draw_samples
        from ..registry.decoder import load_decoder
        from ..registry.model import check_scale, dataset_of, load_generator
        from ..registry.store import Registry

        if not 1 <= arguments.n <= 10_000:
            raise ValueError(f"--n must be in 1..10000, got {arguments.n}")
        if arguments.seed < 0:
            raise ValueError(f"--seed must be at least 0, got {arguments.seed}")
        device = device_named(arguments.device)
        named, arguments.overrides = apart(arguments.overrides)
        home = apply_overrides(arguments, allowed=OF_A_STORE)
        registry = Registry.at(home)
        entry = registry.entry(arguments.reference)
        reference, record = str(entry.reference), entry.record
        if record.latents is not None and record.latents.decoder is None:
            raise ValueError(
                f"{reference} makes latents of shape {record.shape}, and has no decoder that "
                "makes pictures of them"
            )
        check_scale(record, arguments.guidance, model=reference)
        condition = _condition(arguments, record)
        domain = Domain.from_dict(dict(record.domain))
        sampler = _sampler(record, domain, nfe=arguments.nfe, named=named)
        nfe = sampler.evaluations(domain) or 0
        if arguments.dry_run:
            show(
                {
                    "model": reference,
                    "nfe": nfe,
                    "sampler": str(sampler),
                    "n": arguments.n,
                    "label": arguments.label,
                    "caption": arguments.caption,
                    "guidance": arguments.guidance,
                    "seed": arguments.seed,
                    "device": str(device),
                    "out": arguments.out,
                },
                home,
            )
            return 0
        decoder = load_decoder(registry, reference, device)
        flow_map, _ = load_generator(registry, reference, device, guidance=arguments.guidance)
        x = draw_samples(
            flow_map,
            sampler,
            n=arguments.n,
            shape=record.shape,
            seed=arguments.seed,
            condition=condition,
            finish=clipped if decoder is None else decoder,
        )
        if x.dim() == 2:
            dataset = dataset_of(record, model=arguments.reference)
            held_out, _ = dataset.held_out.everything()
            figure = scatter_panels(held_out, {arguments.reference: {nfe: x}})
        else:
            columns = record.classes if record.classes and arguments.label is None else 10
            columns = min(columns, len(x))
            white = x.new_ones(-len(x) % columns, *x.shape[1:])
            how = type(sampler).__name__ if named else f"{nfe} NFE"
            figure = sample_grid({f"{reference}, {how}": torch.cat([x, white])}, columns=columns)
        save_png(figure, Path(arguments.out))
        print(f"{arguments.n} samples of {arguments.reference} by {sampler}: {arguments.out}")
        return 0


def _sampler(
    record: "ModelRecord", domain: "Domain", *, nfe: int | None, named: Sequence[str]
) -> "AbstractSampler":
    """The sampler that is named, or the model's own at a number of evaluations."""
    from ..evaluation.named_sampler import own_sampler, sampler_for_record
    from ..evaluation.sampling import samplers_at

    if not named:
        wanted = [1 if nfe is None else nfe]
        ((_, sampler),) = samplers_at(domain, wanted, named=own_sampler(record))
        return sampler
    if nfe is not None:
        raise ValueError(f"give either --nfe or a sampler with its own steps, got both: {named[0]}")
    return sampler_for_record(named, record)


def _condition(arguments: argparse.Namespace, record: "ModelRecord") -> "Condition | None":
    from ...methods.core.condition import Condition
    from ..registry.model import captioned

    if arguments.caption is not None:
        captions = [arguments.caption] * arguments.n
        return captioned(record, captions, model=arguments.reference)
    label = _label(arguments, record.classes)
    return None if label is None else Condition(label=label)


def _label(arguments: argparse.Namespace, classes: int) -> "Tensor | None":
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
