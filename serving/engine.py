"""The engine turns requests into images with one flow map: plain torch, no server, no Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from ..methods.core.condition import Condition
from ..methods.core.flow_map import DomainKind, FlowMap
from ..methods.core.noise import draw_noise
from ..methods.core.sampler import AbstractSampler
from ..platform.evaluation.named_sampler import own_sampler
from ..platform.evaluation.sampling import samplers_at
from ..platform.registry.decoder import Decoder
from ..platform.registry.record import ModelRecord
from .errors import RequestRefused, shown

MAX_IMAGES: Final = 64
"""Most images in one request."""
MAX_STEPS: Final = 64
"""Most network evaluations for one image."""
MAX_SEED: Final = 2**53 - 1
"""Largest seed: the integers up to here survive a JavaScript client."""
_IMAGE_CHANNELS: Final = (1, 3)
_NAMES_SHOWN: Final = 10


@final
@dataclass(frozen=True, kw_only=True)
class Draw:
    """A request that the engine has accepted.

    Attributes:
        label: Class in [0, classes), or None for an unconditional model.
        n: How many images, in [1, MAX_IMAGES].
        seed: Image k is a function of (seed, k), the label and the steps alone.
        steps: Network evaluations for each image.
    """

    label: int | None
    n: int
    seed: int
    steps: int


@final
class Engine:
    """Samples images from one flow map.

    The noise of image k comes from (seed, k) alone, and every forward has the same number of rows,
    so an image is the same, bit for bit, whatever it is batched with: matrix products of
    different sizes may round differently.

    Args:
        flow_map: The model; it runs on the device where its parameters lie.
        record: What the registry knows about it.
        bucket: Rows of every forward, at least 1; missing ones are filled and thrown away.
        decoder: What makes images of the latents of such a model.

    Raises:
        ValueError: If the model makes no images.
    """

    def __init__(
        self,
        flow_map: FlowMap,
        record: ModelRecord,
        *,
        bucket: int = 16,
        decoder: Decoder | None = None,
    ) -> None:
        if record.latents is not None and decoder is None:
            raise ValueError(
                f"a served model of latents needs a decoder, got {record.name} without one"
            )
        shape = tuple(record.shape) if decoder is None else decoder.shape
        if len(shape) != 3 or shape[0] not in _IMAGE_CHANNELS:
            raise ValueError(
                f"a served model makes images of shape (1 or 3, height, width), "
                f"got {shape} from {record.name}"
            )
        if _setting(record.net, "vocabulary"):
            raise ValueError(
                f"a served model takes class labels, got {record.name}, a model of tokens"
            )
        if bucket < 1:
            raise ValueError(f"bucket must be at least 1, got {bucket}")
        self.record = record
        self.bucket = bucket
        self._noise_shape, self._image_shape = tuple(record.shape), shape
        self._flow_map = flow_map.eval()
        tensors = chain(flow_map.parameters(), flow_map.buffers(), [torch.empty(0)])
        self._device = next(tensors).device
        self._decoder = None if decoder is None else decoder.to(self._device)
        own = own_sampler(record)
        self._samplers = dict(samplers_at(flow_map.domain, range(1, MAX_STEPS + 1), named=own))
        self.steps = tuple(self._samplers)

    @property
    def size(self) -> str:
        """Width and height of the images, as in ``8x8``."""
        _, height, width = self._image_shape
        return f"{width}x{height}"

    @property
    def default_steps(self) -> int:
        """Fewest evaluations; the most for a velocity whose paths are not straight."""
        domain = self._flow_map.domain
        needs_many = domain.kind is DomainKind.DIAGONAL and not domain.is_straight
        return self.steps[-1] if needs_many else self.steps[0]

    def accept(
        self,
        prompt: str,
        *,
        seed: int,
        n: int = 1,
        steps: int | None = None,
        size: str | None = None,
    ) -> Draw:
        """Checks a request against the model.

        Args:
            prompt: Class label, as a number or a name; empty for an unconditional model.
            seed: Seed of the noise, in [0, MAX_SEED].
            n: Number of images, in [1, MAX_IMAGES].
            steps: Network evaluations for each image, or None for the model's default.
            size: Width and height, or None for the model's own.

        Returns:
            The accepted request.

        Raises:
            RequestRefused: If any of them is outside what the model can do.
        """
        if not 1 <= n <= MAX_IMAGES:
            raise RequestRefused(f"n must be in 1..{MAX_IMAGES}, got {n}", param="n")
        if not 0 <= seed <= MAX_SEED:
            raise RequestRefused(f"seed must be in 0..{MAX_SEED}, got {seed}", param="seed")
        if size is not None and size != self.size:
            raise RequestRefused(
                f"size must be {self.size}, the only size of this model, got {shown(size)}",
                param="size",
            )
        steps = self.default_steps if steps is None else steps
        if steps not in self._samplers:
            raise RequestRefused(
                f"steps must be one that the model was trained for, got {steps}; "
                f"allowed: {_ranges(self.steps)}",
                param="steps",
            )
        return Draw(label=self._label(prompt), n=n, seed=seed, steps=steps)

    def _label(self, prompt: str) -> int | None:
        text = prompt.strip()
        classes = self.record.classes
        if classes == 0:
            if text:
                raise RequestRefused(
                    f"prompt must be empty for a model without classes, got {shown(prompt)}",
                    param="prompt",
                )
            return None
        names = [name.casefold() for name in self.record.label_names]
        if text.casefold() in names:
            return names.index(text.casefold())
        # isdecimal alone would let other scripts' digits and very long numbers through.
        if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < classes:
            return int(text)
        own = [name for k, name in enumerate(self.record.label_names) if name != str(k)]
        known = ", ".join(own[:_NAMES_SHOWN])
        raise RequestRefused(
            f"prompt must be a class label, got {shown(prompt)}; allowed: 0..{classes - 1}"
            + (f" or {known}" if known else ""),
            param="prompt",
        )

    @torch.inference_mode()
    def sample(self, draws: Sequence[Draw]) -> list[Float[Tensor, "n c h w"]]:
        """The images of each request, in [-1, 1] but for the model's own overshoot.

        Args:
            draws: Accepted requests, all with the same number of steps.

        Returns:
            One tensor for each request, in order.
        """
        assert len({draw.steps for draw in draws}) == 1, "one forward serves one number of steps"
        sampler = self._samplers[draws[0].steps]
        noise = torch.cat(
            [draw_noise(d.n, self._noise_shape, seed=d.seed, draws=sampler.draws) for d in draws],
            dim=1,
        )
        labels = torch.tensor([_label_of(d) for d in draws for _ in range(d.n)])
        rows = torch.cat(
            [
                self._forward(
                    sampler, noise[:, at : at + self.bucket], labels[at : at + self.bucket]
                )
                for at in range(0, len(labels), self.bucket)
            ]
        )
        return list(torch.split(rows, [draw.n for draw in draws]))

    def warm_up(self) -> None:
        """Samples once with the default steps, so that the first request does not pay for it."""
        label = None if self.record.classes == 0 else 0
        self.sample([Draw(label=label, n=1, seed=0, steps=self.default_steps)])

    def _forward(
        self,
        sampler: AbstractSampler,
        noise: Float[Tensor, "draws b c h w"],
        labels: Tensor,
    ) -> Float[Tensor, "b c h w"]:
        rows = len(labels)
        fill = torch.arange(self.bucket).clamp(max=rows - 1)
        # The noise is drawn on the CPU, so that an image does not depend on the device.
        filled = noise[:, fill].to(self._device)
        x = sampler.sample(self._flow_map, filled, self._condition(labels[fill]))
        images = x if self._decoder is None else self._decoder(x)
        return images[:rows].cpu()

    def _condition(self, labels: Tensor) -> Condition | None:
        return None if self.record.classes == 0 else Condition(label=labels.to(self._device))


def _setting(node: Mapping[str, Any], name: str) -> Any:
    """A field of a network, or of the one that it is laid around."""
    inner = node.get("net")
    return _setting(inner, name) if isinstance(inner, Mapping) else node.get(name)


def _label_of(draw: Draw) -> int:
    return 0 if draw.label is None else draw.label


def _ranges(values: Sequence[int]) -> str:
    """Sorted integers in words: 1, 2, 4 or 1..64."""
    if len(values) > 2 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]}..{values[-1]}"
    return ", ".join(map(str, values))
