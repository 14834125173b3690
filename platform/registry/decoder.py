"""The decoder of a model of latents: built from its record, filled with checked weights."""

from typing import TYPE_CHECKING, Self, final

import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from ..atomic import sha256
from ..build import build
from ..data.errors import DataNotFound
from ..data.latent_space import LatentSpace
from ..data.source import Dataset
from .errors import ModelAltered
from .model import fill
from .reference import ModelVersion
from .trust import check_trusted

if TYPE_CHECKING:  # the store imports MLflow, which takes seconds, and most trials need none
    from .store import Registry


@final
class Decoder:
    """Makes images of what a model of latents gives.

    Args:
        net: Network that makes images of latents as the encoder gave them; it is frozen.
        space: How the latents were scaled before training.
        weights: Bytes of the safetensors file that the network was filled from.
        latent: Shape of a latent.

    Raises:
        ValueError: If the network does not make images of the shape that the space says.
    """

    def __init__(
        self, net: nn.Module, space: LatentSpace, weights: bytes, *, latent: tuple[int, ...]
    ) -> None:
        assert space.decoder is not None, "a decoder belongs to a space that has one"
        self.shape = space.decoder.shape
        """Channels, height and width of an image."""
        self.latent = tuple(latent)
        """Channels, height and width of a latent."""
        self.weights = weights
        """Bytes of the safetensors file of its weights."""
        self._net = net.eval().requires_grad_(False)
        self._shift = torch.tensor(space.shift)[:, None, None]
        self._scale = torch.tensor(space.scale)[:, None, None]
        try:
            image = self(torch.zeros(1, *self.latent))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(
                f"the decoder takes no latents of shape {self.latent}: "
                f"{next(iter(str(error).splitlines()), type(error).__name__)}"
            ) from error
        if image.shape[1:] != self.shape or not image.isfinite().all():
            raise ValueError(
                f"the decoder must make finite images of shape {self.shape} of latents of shape "
                f"{self.latent}, got {tuple(image.shape[1:])}"
            )

    @classmethod
    def of(cls, space: LatentSpace, weights: bytes, *, latent: tuple[int, ...], model: str) -> Self:
        """The decoder of a space, if its class is trusted and its weights are the ones recorded.

        Args:
            space: The space, which has a decoder.
            weights: Bytes of the file of its weights.
            latent: Shape of a latent.
            model: Where it comes from, for messages.

        Returns:
            The decoder.

        Raises:
            ModelAltered: If the weights do not hash to what was recorded.
        """
        stored = space.decoder
        assert stored is not None, "a decoder belongs to a space that has one"
        check_trusted(stored.node, what=f"the decoder of {model}")
        digest = sha256(weights)
        if digest != stored.sha256:
            raise ModelAltered(
                f"the decoder of {model} was altered or truncated: its SHA-256 is "
                f"{digest[:12]}..., recorded {stored.sha256[:12]}..."
            )
        try:
            tensors = safetensors.torch.load(weights)
        except SafetensorError as error:
            raise ModelAltered(f"the decoder of {model} is no safetensors file: {error}") from error
        net = build(stored.node, nn.Module)
        fill(net, tensors, model=f"the decoder of {model}")
        return cls(net.float(), space, weights, latent=latent)

    @property
    def nbytes(self) -> int:
        """Bytes of its parameters and buffers."""
        return sum(tensor.nbytes for tensor in (*self._net.parameters(), *self._net.buffers()))

    def to(self, device: torch.device | str) -> Self:
        """This decoder, moved to a device.

        Args:
            device: Where the latents are.
        """
        self._net.to(device)
        self._shift, self._scale = self._shift.to(device), self._scale.to(device)
        return self

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k p q"]:
        """Images in [-1, 1].

        Args:
            x: Latents of unit variance, as a model gives them, on any device.
        """
        images: Tensor = self._net(x.to(self._scale) * self._scale + self._shift)
        return images.clamp(-1.0, 1.0)


def decoder_of(dataset: Dataset) -> Decoder | None:
    """The decoder of a set of latents.

    Args:
        dataset: The set.

    Returns:
        The decoder on the CPU, or None if the set has none.

    Raises:
        DataNotFound: If the file of its weights is missing.
    """
    if dataset.latents is None or dataset.decoder_file is None:
        return None
    try:
        weights = dataset.decoder_file.read_bytes()
    except FileNotFoundError as error:
        raise DataNotFound(
            f"the decoder of {dataset.name} is missing: there is no {dataset.decoder_file}"
        ) from error
    return Decoder.of(dataset.latents, weights, latent=dataset.shape, model=dataset.name)


def load_decoder(
    registry: "Registry", reference: str | ModelVersion, device: torch.device | str = "cpu"
) -> Decoder | None:
    """The decoder of a registered model.

    Args:
        registry: Where the model is registered.
        reference: Version or alias.
        device: Where the decoder is to be.

    Returns:
        The decoder, or None if the model has none.
    """
    entry = registry.entry(reference)
    weights = registry.decoder(entry.reference)
    if weights is None or entry.record.latents is None:
        return None
    record = entry.record
    decoder = Decoder.of(
        entry.record.latents, weights, latent=record.shape, model=str(entry.reference)
    )
    return decoder.to(device)
