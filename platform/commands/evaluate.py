"""`onestep evaluate`: measure a registered model again, on the data that it was trained on."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, final

from .arguments import (
    NFES,
    OF_A_MEASUREMENT,
    SAMPLER,
    add_device,
    add_guidance,
    add_overrides,
    add_yardstick,
    apply_overrides,
    check_yardstick,
    show,
)

if TYPE_CHECKING:  # torch and MLflow take seconds to import, and `--help` needs neither
    import torch

    from ...methods.core.sampler import AbstractSampler
    from ..evaluation.fid import Fid
    from ..evaluation.report import Report
    from ..home import Home
    from ..registry.record import ModelRecord
    from ..registry.store import Registry


@final
class Evaluate:
    """The command that measures."""

    name: ClassVar[str] = "evaluate"
    summary: ClassVar[str] = "measure a registered model against held-out data"
    description: ClassVar[str] = """Measure a registered model against held-out data.

Every number but FID comes with its floor (data against data), the trivial baselines and an
interval.

examples:
  onestep evaluate champion
  onestep evaluate digits/3 --nfe 1 2 --samples 400 --json report.json
  onestep evaluate digits/3 --keep                  the numbers join the model in the registry
  onestep evaluate cifar10/2 --fid FILE             FID too, with these Inception weights
  onestep evaluate faces/1 --decoded                a model of latents by its images
  onestep evaluate digits/4 --guidance 2            a model that takes a guidance scale
  onestep evaluate digits/1 sampler=dpm_solver      another sampler, at its own number of steps
  onestep evaluate digits/3 --device cuda:1         by default a GPU where there is one
  onestep evaluate digits/3 storage.tracking_uri=http://mlflow:5000 evaluation.nfes=[1,2]
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("reference", help="such as digits/3 or champion")
        allowed = (*OF_A_MEASUREMENT, SAMPLER)
        add_overrides(parser, " or ".join(allowed), shown="what would be measured")
        add_yardstick(parser)
        add_device(parser)
        add_guidance(parser)
        parser.add_argument("--json", metavar="FILE", help="write the whole report here")
        parser.add_argument(
            "--decoded", action="store_true", help="judge images, decoded from latents"
        )
        parser.add_argument("--keep", action="store_true", help="add the numbers to the registry")
        parser.add_argument(
            "--fid", metavar="FILE", help="Inception weights; adds FID (the extra onestep[fid])"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Measure and print a table."""
        from dataclasses import asdict
        from pathlib import Path

        from ..atomic import write_text
        from ..device import device_named
        from ..evaluation.named_sampler import apart, check_nfes, own_sampler
        from ..evaluation.table import to_markdown
        from ..registry.model import check_scale, own_scale
        from ..registry.store import Registry

        named, arguments.overrides = apart(arguments.overrides)
        home = apply_overrides(arguments, allowed=(*OF_A_MEASUREMENT, SAMPLER))
        check_yardstick(arguments)
        device = device_named(arguments.device)
        registry = Registry.at(home)
        entry = registry.entry(arguments.reference)
        reference = str(entry.reference)  # an alias may move
        check_scale(entry.record, arguments.guidance, model=reference)
        check_nfes(entry.record, arguments.nfe)
        record = entry.record
        sampler = _named(named, record, arguments) if named else own_sampler(record)
        if arguments.keep and arguments.guidance not in (None, own_scale(entry.record)):
            raise ValueError(
                "--keep adds numbers at the model's own guidance scale, "
                f"{own_scale(entry.record):g}, got --guidance {arguments.guidance:g}"
            )
        if arguments.dry_run:
            names = ("nfe", "samples", "seed", "guidance", "fid", "decoded", "json", "keep")
            plan = {name: vars(arguments)[name] for name in names}
            plan["sampler"] = str(sampler) if named else None
            show({"model": reference, **plan, "device": str(device)}, home)
            return 0
        report, fids = _measured(registry, reference, home, arguments, device, sampler)
        print(to_markdown([report]))
        for nfe, fid in fids.items():
            print(f"FID at {nfe} NFE: {fid}")
        if arguments.keep:
            values = {f"eval/fid/nfe_{nfe}": fid.value for nfe, fid in fids.items()}
            origins = {f"fid/nfe_{nfe}": asdict(fid) for nfe, fid in fids.items()}
            registry.add_evaluation(
                reference,
                report.metrics() | values,
                provenance=asdict(report.provenance) | origins,
            )
        if arguments.json:
            write_text(Path(arguments.json), report.to_json())
        return 0


def _named(
    named: Sequence[str], record: "ModelRecord", arguments: argparse.Namespace
) -> "AbstractSampler":
    """The sampler that overrides name; what is measured becomes its own number of evaluations."""
    from ...methods.core.flow_map import Domain
    from ..evaluation.named_sampler import sampler_for_record

    if arguments.nfe != NFES:
        raise ValueError(
            "a named sampler has evaluations of its own, by fields such as sampler.grid.steps=...: "
            f"leave out --nfe and evaluation.nfes, got {arguments.nfe} and {named[0]}"
        )
    if arguments.keep:
        raise ValueError(f"--keep adds numbers by the model's own sampler, got {named[0]}")
    sampler = sampler_for_record(named, record)
    evaluations = sampler.evaluations(Domain.from_dict(dict(record.domain)))
    if evaluations is None:
        raise ValueError(
            f"a measurement stands at a number of evaluations, which {named[0]} does not know "
            "before: name a sampler of fixed steps"
        )
    arguments.nfe = [evaluations]
    return sampler


def _measured(
    registry: "Registry",
    reference: str,
    home: "Home",
    arguments: argparse.Namespace,
    device: "torch.device",
    sampler: "AbstractSampler | None",
) -> "tuple[Report, dict[int, Fid]]":
    """The report on a version, and its FID by number of evaluations if it was asked for."""
    from pathlib import Path

    from ..evaluation.evaluate import benchmark_of, evaluate_on
    from ..evaluation.fid import check_fid, fid_at
    from ..registry.decoder import load_decoder
    from ..registry.model import load_generator

    decoder = load_decoder(registry, reference, device) if arguments.decoded else None
    if arguments.decoded and decoder is None:
        raise ValueError(f"--decoded needs a model of latents with a decoder, got {reference}")
    flow_map, record = load_generator(registry, reference, device, guidance=arguments.guidance)
    weights = None
    if arguments.fid is not None:
        shape = record.shape if decoder is None else decoder.shape
        weights = check_fid(shape, Path(arguments.fid))
    benchmark = benchmark_of(
        record,
        model=reference,
        home=home.root,
        samples=arguments.samples,
        seed=arguments.seed,
        decoder=decoder,
    )
    report = evaluate_on(
        benchmark,
        flow_map,
        model=reference,
        nfes=arguments.nfe,
        ema=record.ema,
        decoder=decoder,
        sampler=sampler,
    )
    if weights is None:
        return report, {}
    return report, {
        nfe: fid_at(
            flow_map,
            benchmark,
            nfe=nfe,
            weights=weights,
            decoder=decoder,
            sampler=sampler,
        )
        for nfe in report.nfes
    }
