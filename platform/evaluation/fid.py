"""FID by torch-fidelity, an optional extra: the only number here that may bear the name."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from ...methods.core.flow_map import FlowMap
from ...methods.core.sampler import AbstractSampler
from ..atomic import sha256_of
from ..registry.decoder import Decoder
from .benchmark import Benchmark
from .sampling import clipped, draw_samples, samplers_at

WEIGHTS: Final = "weights-inception-2015-12-05-6726825d.pth"
"""Inception weights of the original protocol, as torch-fidelity names their file."""
_DIGEST: Final = WEIGHTS.rpartition("-")[2].removesuffix(".pth")
EXTRACTOR: Final = "inception-v3-compat"


@final
class FidUnavailable(ValueError):
    """FID was asked for where its library or its weights are missing; the message says which."""


@final
@dataclass(frozen=True, kw_only=True)
class Fid:
    """A Frechet inception distance with its provenance.

    Attributes:
        value: The distance.
        count: Samples.
        reference_count: Images of the data.
        weights: Name of the file of the Inception weights.
        weights_sha256: Digest of that file.
    """

    value: float
    count: int
    reference_count: int
    weights: str
    weights_sha256: str

    def __str__(self) -> str:
        return (
            f"{self.value:.3f} ({self.count} samples against {self.reference_count} training "
            f"images; {self.weights}, sha256 {self.weights_sha256[:12]}...)"
        )


@final
class _Levels(Dataset[Tensor]):
    """Images in [-1, 1] as the three channels of 256 levels that the protocol takes."""

    def __init__(self, x: Float[Tensor, "n c h w"]) -> None:
        self._x = x

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        levels = ((self._x[index] + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return levels.expand(3, -1, -1)


@final
@dataclass(frozen=True, kw_only=True)
class InceptionWeights:
    """The file of the Inception weights, known to be the published one.

    Attributes:
        file: Where it is.
        sha256: Its digest.
    """

    file: Path
    sha256: str


def check_fid(shape: tuple[int, ...], file: Path) -> InceptionWeights:
    """Refuse what FID cannot be measured on, before anything is sampled.

    Args:
        shape: Shape of a sample.
        file: File of the Inception weights; nothing is downloaded.

    Returns:
        The checked weights.

    Raises:
        FidUnavailable: If torch-fidelity is not installed or the file is missing.
        ValueError: If samples are no images with 1 or 3 channels.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(f"FID takes images with 1 or 3 channels, got shape {tuple(shape)}")
    if importlib.util.find_spec("torch_fidelity") is None:
        raise FidUnavailable("FID needs torch-fidelity; install the extra with onestep[fid]")
    if not file.is_file():
        raise FidUnavailable(f"FID needs the Inception weights {WEIGHTS}, found no file {file}")
    if not (digest := sha256_of(file)).startswith(_DIGEST):
        raise FidUnavailable(
            f"FID needs the Inception weights {WEIGHTS}, whose sha256 begins with {_DIGEST}, "
            f"got {file} with {digest[:8]}"
        )
    return InceptionWeights(file=file, sha256=digest)


def fid_at(
    flow_map: FlowMap,
    benchmark: Benchmark,
    *,
    nfe: int,
    weights: InceptionWeights,
    decoder: Decoder | None = None,
    sampler: AbstractSampler | None = None,
) -> Fid:
    """FID of a map's samples against the training data.

    Papers take 50,000 samples; with fewer the distance is biased upwards, so only numbers of equal
    counts compare.

    Args:
        flow_map: The map, in evaluation mode.
        benchmark: How many samples, of which classes, from which noise.
        nfe: Evaluations for one sample.
        weights: What ``check_fid`` gave for the shape of the benchmark's images.
        decoder: What makes images of the samples, where the benchmark is one of decoded data.
        sampler: Takes the place of the domain's own at its own number of evaluations, or None.

    Raises:
        ValueError: If the map has no sampler there.
    """
    dataset = benchmark.dataset
    ((_, way),) = samplers_at(flow_map.domain, [nfe], named=sampler)
    samples = draw_samples(
        flow_map,
        way,
        n=benchmark.draws * benchmark.count,
        shape=dataset.shape if decoder is None else decoder.latent,
        seed=benchmark.seed,
        condition=benchmark.asked,
        finish=clipped if decoder is None else decoder,
    )
    return fid(samples, dataset.train.everything()[0], weights=weights)


def fid(
    samples: Float[Tensor, "n c h w"],
    data: Float[Tensor, "m c h w"],
    *,
    weights: InceptionWeights,
) -> Fid:
    """FID of samples against data, with the Inception weights of a named local file.

    Reference: Heusel et al. 2017, arXiv:1706.08500v6, Eq. (6).

    Args:
        samples: Images in [-1, 1], with 1 or 3 channels.
        data: Images in [-1, 1].
        weights: What ``check_fid`` gave for the shape of the images.
    """
    import torch_fidelity  # the extra is loaded only where it is asked for

    found = torch_fidelity.calculate_metrics(
        input1=_Levels(samples),
        input2=_Levels(data),
        fid=True,
        cuda=torch.cuda.is_available(),
        feature_extractor=EXTRACTOR,
        feature_extractor_weights_path=str(weights.file),
        save_cpu_ram=True,  # in memory already; processes that load images would each have a copy
        verbose=False,
    )
    return Fid(
        value=float(found["frechet_inception_distance"]),
        count=len(samples),
        reference_count=len(data),
        weights=weights.file.name,
        weights_sha256=weights.sha256,
    )
