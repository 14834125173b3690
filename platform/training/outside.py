"""Outside weights: a file that was trained elsewhere becomes a registered model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self, final

import safetensors.torch
import yaml
from safetensors import SafetensorError
from torch import Tensor

from ..atomic import sha256, sha256_of
from ..data.stream_sample import load
from ..experiment import Experiment
from ..registry.model import fill
from ..registry.reference import ModelVersion
from ..registry.revision import code_revision
from ..registry.run import Run, RunFacts
from ..registry.store import Registry
from .assembly import assemble
from .registration import record_of

WEIGHTS: Final = "imported"
"""Which weights the record says they are."""
_WEIGHTS: Final = "weights"
_PREFIX: Final = "prefix"
_IGNORED: Final = "ignored"


@final
@dataclass(frozen=True, kw_only=True)
class WeightNames:
    """How the weights of a network are called in a file.

    Attributes:
        names: Name in the file, by name in the network; each weight has one of its own.
        prefix: What stands before each name of the file in the network, where that is the whole
            difference; None where the names are listed.
        ignored: Names in the file that the network has no weight for.

    Raises:
        ValueError: If a weight of the file is named twice, or there are both names and a prefix.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    prefix: str | None = None
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.names and self.prefix is not None:
            raise ValueError(
                f"a mapping must list the weights or give their prefix, got both, "
                f"{len(self.names)} weights and {self.prefix!r}"
            )
        used = [*self.names.values(), *self.ignored]
        twice = sorted({name for name in used if used.count(name) > 1})
        if twice:
            raise ValueError(f"a mapping must name each weight of the file once, got {twice[0]!r}")

    @classmethod
    def read(cls, file: Path) -> Self:
        """The mapping of a YAML file, with the keys `weights` or `prefix`, and `ignored`.

        Args:
            file: YAML of {weights: {name in the network: name in the file}, ignored: [names]}, or
                of {prefix: text, ignored: [names]}.

        Returns:
            The names.

        Raises:
            ValueError: If the file is no such mapping.
        """
        try:
            values = yaml.safe_load(file.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise ValueError(f"cannot read the mapping {file}: {error}") from error
        is_mapping = isinstance(values, dict) and set(values) <= {_WEIGHTS, _PREFIX, _IGNORED}
        names, prefix = (values.get(_WEIGHTS), values.get(_PREFIX)) if is_mapping else (None, None)
        if not (isinstance(names, dict) if prefix is None else isinstance(prefix, str)):
            raise ValueError(
                f"the mapping {file} must hold {_WEIGHTS}, names in the file by names in the "
                f"network, or {_PREFIX}, what the network has before each, and may hold "
                f"{_IGNORED}, a list of names"
            )
        return cls(
            names={str(ours): str(theirs) for ours, theirs in (names or {}).items()},
            prefix=prefix,
            ignored=tuple(map(str, values.get(_IGNORED) or ())),
        )

    def renamed(self, weights: Mapping[str, Tensor], *, file: str) -> dict[str, Tensor]:
        """The weights of a file as the network calls them.

        Args:
            weights: Weights by name in the file.
            file: What the file is called, for the message.

        Returns:
            Weights by name in the network.

        Raises:
            ValueError: If a named weight is missing, or one is neither named nor ignored.
        """
        named = {*self.names.values(), *self.ignored}
        if missing := sorted(named - set(weights)):
            raise ValueError(f"{file} must hold each weight of the mapping, got no {missing[0]!r}")
        if self.prefix is not None:
            return {f"{self.prefix}{name}": weights[name] for name in set(weights) - named}
        if unexpected := sorted(set(weights) - named):
            raise ValueError(
                f"each weight of {file} must be named or ignored by the mapping, "
                f"got {unexpected[0]!r} beside it"
            )
        return {ours: weights[theirs] for ours, theirs in self.names.items()}


def with_net_config(experiment: Experiment, file: Path) -> Experiment:
    """The experiment with the sizes of its network as another library wrote them.

    The sizes themselves are kept, not where they lay, so that the model can be built anywhere.

    Args:
        experiment: An experiment whose network has an inner one with a field `config`.
        file: JSON, such as the config.json beside the weights of a model of diffusers.

    Returns:
        The experiment with `net.net.config` replaced.

    Raises:
        ValueError: If the network has no such field, or the file is no mapping.
    """
    inner = experiment.net.get("net")
    if not isinstance(inner, Mapping) or "config" not in inner:
        raise ValueError(
            "--net-config needs a network with net.net.config, such as net=diffusers_unet, "
            f"got {experiment.net['_target_']}"
        )
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the sizes of the network from {file}: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} must hold the sizes of a network by name, got {config!r:.40}")
    return replace(experiment, net={**experiment.net, "net": {**inner, "config": config}})


def register_outside(
    registry: Registry,
    experiment: Experiment,
    file: Path,
    *,
    mapping: Path,
    licence: str,
    source: str,
) -> ModelVersion:
    """Register the weights of a file as a model of an experiment that they were not trained by.

    Args:
        registry: Where it is registered.
        experiment: Its network, its method, which says on which times the map was trained, and
            the data that it is measured on.
        file: Weights as safetensors; nothing in it is executed.
        mapping: YAML of their names, as `WeightNames.read` takes it.
        licence: Under which terms the weights may be used.
        source: Where they come from.

    Returns:
        The registered version.

    Raises:
        ValueError: If the licence or the source is empty, or the weights do not fit the network.
    """
    if not licence.strip() or not source.strip():
        raise ValueError(
            f"outside weights need a licence and a source, got {licence!r} and {source!r}"
        )
    assembly = assemble(experiment)
    try:
        weights = safetensors.torch.load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is no file of safetensors, or a part of one: {error}") from error
    except OSError as error:
        raise ValueError(f"cannot read weights from {file}: {error}") from error
    net = assembly.net()
    fill(net, WeightNames.read(mapping).renamed(weights, file=str(file)), model=str(file))
    dataset = load(assembly.source, stream=experiment.training.stream)
    origin = {
        "licence": licence,
        "source": source,
        "sha256": sha256_of(file),
        "mapping_sha256": sha256(mapping.read_bytes()),
    }
    known = record_of(assembly, dataset, ema=WEIGHTS, revision=code_revision())
    record = replace(known, origin=origin)
    facts = RunFacts(
        experiment=dataset.name,
        name=f"import-{origin['sha256'][:12]}",
        config=experiment.to_dict(),
        overrides=experiment.overrides,
        seed=experiment.seed,
        data_digest=dataset.digest,
    )
    with Run.start(registry.connection, facts) as run:
        reference = registry.register(record, net.state_dict(), run_id=run.run_id)
        run.set_tags({"onestep.model": str(reference)})
    return reference
