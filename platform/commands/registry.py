"""`onestep registry`: what is registered, what it was made from, which version an alias means."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, final

from ..configuration import compose
from ..experiment import Experiment
from ..home import Home
from ..password import without_passwords
from .arguments import OF_A_STORE, apply_overrides
from .columns import aligned

if TYPE_CHECKING:  # MLflow takes seconds to import, and `--help` needs none of it
    from ..registry import store
    from ..registry.entry import ModelEntry

_METRICS_SHOWN: Final = 3


@final
class Registry:
    """The command that shows and promotes registered models."""

    name: ClassVar[str] = "registry"
    summary: ClassVar[str] = "show registered models, their lineage and aliases; promote one"
    description: ClassVar[str] = """Show registered models and move aliases.

A model is referred to as digits/3 (a version), digits@champion (an alias of a model) or
champion (an alias that one model has).

examples:
  onestep registry list
  onestep registry list digits storage.tracking_uri=http://mlflow:5000
  onestep registry show champion
  onestep registry lineage champion
  onestep registry history digits@champion
  onestep registry promote digits/3 champion --why "best at one step"
  onestep registry promote digits/3 champion --why "best" \\
    --metric eval/1nn_deviation/nfe_1 --at-most 0.15 --dry-run
  onestep registry import edm.safetensors --mapping edm.yaml --licence CC-BY-NC-SA-4.0 \\
    --source https://github.com/NVlabs/edm data=cifar10 net=edm_unet method=edm
  onestep registry import unet/diffusion_pytorch_model.safetensors --mapping unet.yaml \\
    --net-config unet/config.json --licence Apache-2.0 --source https://example.org/ddpm \\
    data=unlabelled data@data.of=cifar10 net=diffusers_unet method=ddpm
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "--tracking-uri", help="MLflow store; by default MLFLOW_TRACKING_URI or the local one"
        )
        actions = parser.add_subparsers(dest="action", required=True, metavar="action")
        listing = actions.add_parser("list", help="all registered versions")
        # One list, because nothing else says where a name ends and overrides begin.
        listing.add_argument(
            "overrides",
            nargs="*",
            metavar="name",
            help=f"only versions of this model; with an = an override of {OF_A_STORE[0]}",
        )
        show = actions.add_parser("show", help="all that is known about one version")
        show.add_argument("reference", help="such as digits/3 or champion")
        show.add_argument("--json", action="store_true", help="the whole record as JSON")
        lineage = actions.add_parser("lineage", help="the tree of what a model was made from")
        lineage.add_argument("reference", help="such as digits/3 or champion")
        lineage.add_argument("--metric", help="show this metric of each model")
        history = actions.add_parser("history", help="who moved an alias, when, and why")
        history.add_argument("alias", help="such as champion or digits@champion")
        promote = actions.add_parser("promote", help="let an alias mean another version")
        promote.add_argument("reference", help="such as digits/3")
        promote.add_argument("alias", help="such as champion")
        promote.add_argument("--why", required=True, help="the reason, kept in the history")
        promote.add_argument("--who", help="who does it; by default user@host")
        promote.add_argument("--metric", help="promote only if this metric keeps its bounds")
        promote.add_argument("--at-most", type=float, help="largest value of the metric")
        promote.add_argument("--at-least", type=float, help="smallest value of the metric")
        promote.add_argument(
            "--dry-run", action="store_true", help="say what would be moved and stop"
        )
        importing = actions.add_parser(
            "import", help="register weights that were trained elsewhere"
        )
        importing.add_argument("file", help="weights as safetensors")
        importing.add_argument("--mapping", required=True, help="YAML of the names of the weights")
        importing.add_argument(
            "--net-config", help="config.json of the network, for net=diffusers_unet"
        )
        importing.add_argument("--licence", required=True, help="terms of their use, kept")
        importing.add_argument("--source", required=True, help="where they come from, kept")
        importing.add_argument("overrides", nargs="*", help="data, net and method of the model")
        importing.add_argument(
            "--dry-run", action="store_true", help="print the resolved experiment and stop"
        )
        for action in (show, lineage, history, promote):
            action.add_argument("overrides", nargs="*", metavar="override", help=OF_A_STORE[0])

    def run(self, arguments: argparse.Namespace) -> int:
        """Do what was asked for.

        Args:
            arguments: Parsed arguments.

        Returns:
            Exit code of the process.
        """
        print("\n".join(_import(arguments) if arguments.action == "import" else _ask(arguments)))
        return 0


def _ask(arguments: argparse.Namespace) -> list[str]:
    """What is answered by the store that the option, an override or the environment names."""
    from ..registry.store import Registry as Store

    names = []
    if arguments.action == "list":
        names = [word for word in arguments.overrides if "=" not in word]
        arguments.overrides = [word for word in arguments.overrides if "=" in word]
    if len(names) > 1:
        raise ValueError(f"list takes the name of one model, got {', '.join(names)}")
    home = Home.here(tracking_uri=arguments.tracking_uri)
    if arguments.overrides:
        _refuse_two_stores(arguments)
        home = apply_overrides(arguments, allowed=OF_A_STORE)
    registry = Store.at(home)
    match arguments.action:
        case "list":
            return _list(registry, *names)
        case "show":
            return _show(registry.entry(arguments.reference), as_json=arguments.json)
        case "lineage":
            return [registry.lineage(arguments.reference).render(metric=arguments.metric)]
        case "history":
            return _history(registry, arguments.alias)
        case _:
            return _promote(registry, arguments)


def _refuse_two_stores(arguments: argparse.Namespace) -> None:
    given = [word for word in arguments.overrides if word.partition("=")[0] in OF_A_STORE]
    if given and arguments.tracking_uri:
        raise ValueError(f"give either --tracking-uri or {OF_A_STORE[0]}, got both")


def _list(registry: "store.Registry", name: str | None = None) -> list[str]:
    from ..registry.entry import UnreadableEntry

    entries = [one for one in registry.list() if name is None or one.reference.name == name]
    if not entries:
        models = "no models" if name is None else f"no models named {name}"
        return [f"{models} are registered yet"]
    rows = [("model", "method", "weights", "registered (UTC)", "aliases", "metrics")]
    for entry in entries:
        aliases = ", ".join(entry.aliases) or "-"
        if isinstance(entry, UnreadableEntry):
            said = f"cannot be read: {entry.reason}"
            rows.append((str(entry.reference), "-", "-", "-", aliases, said))
            continue
        rows.append(
            (
                str(entry.reference),
                entry.record.method_name,
                entry.record.ema,
                f"{entry.created:%Y-%m-%d %H:%M}",
                aliases,
                ", ".join(_metrics(entry)[:_METRICS_SHOWN]) or "-",
            )
        )
    return aligned(rows)


def _show(entry: "ModelEntry", *, as_json: bool) -> list[str]:
    record = entry.record
    if as_json:
        return [record.to_json().rstrip()]
    rows = [
        ("model", str(entry.reference)),
        ("aliases", ", ".join(entry.aliases) or "-"),
        ("registered (UTC)", f"{entry.created:%Y-%m-%d %H:%M:%S}"),
        ("method", str(record.method["_target_"])),
        ("network", str(record.net["_target_"])),
        ("weights", f"{record.ema}, sha256 {entry.files.weights_sha256}"),
        ("sample shape", " x ".join(map(str, record.shape))),
        ("classes", str(record.classes)),
        ("domain", json.dumps(dict(record.domain))),
        ("data digest", record.data_digest),
        ("seed", str(record.seed)),
        ("revision", record.revision),
        ("run", entry.run_id),
        ("sweep", record.sweep or "-"),
        ("overrides", " ".join(record.overrides) or "-"),
    ]
    rows += [(f"parent {role}", parent) for role, parent in record.parents.items()]
    rows += [(f"origin {what}", told) for what, told in record.origin.items()]
    rows += [(name, f"{value:.6g}") for name, value in record.metrics.items()]
    for later in entry.evaluations:
        rows.append((f"measured {later.at[:19]}", json.dumps(dict(later.provenance))))
        rows += [(f"  {name}", f"{value:.6g}") for name, value in later.metrics.items()]
    return aligned(rows)


def _history(registry: "store.Registry", text: str) -> list[str]:
    from ..registry.reference import Alias

    alias = Alias.parse(text)
    name = registry.resolve(text).name if alias.name is None else alias.name
    promotions = registry.history(name, alias.alias)
    if not promotions:
        return [f"{name}@{alias.alias} has never been promoted"]
    rows = [("when (UTC)", "from", "to", "who", "gate", "why")]
    for one in promotions:
        when = one.at[:19].replace("T", " ")
        rows.append((when, one.source or "-", one.to or "-", one.who, one.gate or "-", one.why))
    lines = aligned(rows)
    current = registry.current(name, alias.alias)
    if current != promotions[-1].version:
        lines.append(
            f"note: {name}@{alias.alias} now means {current or 'nothing'}, which this history "
            f"does not tell: it was moved by other means"
        )
    return lines


def _promote(registry: "store.Registry", arguments: argparse.Namespace) -> list[str]:
    from ..registry.gate import Gate

    gate = None
    if arguments.metric is not None:
        gate = Gate(metric=arguments.metric, at_most=arguments.at_most, at_least=arguments.at_least)
    elif arguments.at_most is not None or arguments.at_least is not None:
        raise ValueError("--at-most and --at-least bound a metric: name it with --metric")
    version = registry.resolve(arguments.reference)
    current = registry.current(version.name, arguments.alias)
    if current == version and gate is None:
        return [f"{arguments.alias} means {version} already; nothing was changed"]
    if arguments.dry_run:
        entry = registry.entry(version)
        if gate is not None:
            gate.check(entry.metrics, model=str(version))
        return [f"{arguments.alias} would mean {version} (now: {current or 'nothing'})"]
    promotion = registry.promote(
        arguments.reference, arguments.alias, why=arguments.why, who=arguments.who, gate=gate
    )
    before = promotion.source or "nothing"
    return [f"{promotion.alias} means {promotion.to} (before: {before})"]


def _import(arguments: argparse.Namespace) -> list[str]:
    from ..registry.store import Registry as Store
    from ..training.outside import register_outside, with_net_config

    _refuse_two_stores(arguments)
    overrides = tuple(arguments.overrides)
    experiment = Experiment.from_dict(compose("train", overrides), overrides)
    if arguments.net_config is not None:
        experiment = with_net_config(experiment, Path(arguments.net_config))
    if arguments.dry_run:
        return [json.dumps(without_passwords(experiment.to_dict()), indent=2)]
    uri = arguments.tracking_uri or experiment.storage.tracking_uri
    reference = register_outside(
        Store.at(Home.here(tracking_uri=uri)),
        experiment,
        Path(arguments.file),
        mapping=Path(arguments.mapping),
        licence=arguments.licence,
        source=arguments.source,
    )
    return [f"registered {reference}"]


def _metrics(entry: "ModelEntry") -> list[str]:
    return [f"{name} {value:.4g}" for name, value in entry.metrics.items()]
