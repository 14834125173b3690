"""The engine turns requests into images with one flow map: plain torch, no server, no Ray."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from ..methods.core.condition import Condition
from ..methods.core.flow_map import DomainKind, FlowMap
from ..methods.core.guidance_scale import AtScale
from ..methods.core.noise import draw_noise
from ..platform.evaluation.named_sampler import own_sampler
from ..platform.evaluation.sampling import samplers_at
from ..platform.registry.decoder import Decoder
from ..platform.registry.model import drawn_scales
from ..platform.registry.record import ModelRecord
from .classes import class_of
from .company import Company
from .errors import RequestRefused, shown
from .rows import Rows
from .speed import Host, Speed, device_of, runner
from .walk import Asking, Question, Walk

MAX_IMAGES: Final = 64
"""Most images in one request."""
MAX_STEPS: Final = 64
"""Most network evaluations for one image."""
MAX_SEED: Final = 2**53 - 1
"""Largest seed: the integers up to here survive a JavaScript client."""
MAX_GUIDANCE: Final = 100.0
"""Largest guidance scale."""
_IMAGE_CHANNELS: Final = (1, 3)


@final
@dataclass(frozen=True, kw_only=True)
class Draw:
    """A request that the engine has accepted.

    Attributes:
        label: Class in [0, classes), or None for an unconditional model.
        n: How many images, in [1, MAX_IMAGES].
        seed: Image k is a function of (seed, k), the label, the steps and the guidance alone.
        steps: Network evaluations for each image.
        guidance: Scale of a model that takes one; None for the model's own.
    """

    label: int | None
    n: int
    seed: int
    steps: int
    guidance: float | None = None

    @property
    def labels(self) -> tuple[int, ...] | None:
        """The class of each image."""
        return None if self.label is None else (self.label,) * self.n

    def noise(self, shape: tuple[int, ...], *, draws: int) -> Float[Tensor, "draws n *d"]:
        """Where each image begins.

        Args:
            shape: Shape of one.
            draws: How often the sampler draws.

        Returns:
            The noise.
        """
        return draw_noise(self.n, shape, seed=self.seed, draws=draws)


@final
class Engine:
    """Samples images from one flow map.

    The noise of image k comes from (seed, k) alone. A forward has as many rows as one of a few
    buckets, and an image is the same, bit for bit, whatever it shares its forwards with. Between
    buckets it differs in the last digits, since matrix products of other sizes round differently;
    an engine that is strict has one bucket.

    Args:
        flow_map: The model; it runs on the device where its parameters lie.
        record: What the registry knows about it.
        bucket: Most rows of a forward, at least 1; missing ones are filled and thrown away.
        strict: Whether every forward has so many rows. Otherwise it has the next power of two.
        decoder: What makes images of the latents of such a model.
        speed: How the map is run; not the decoder.
        host: Takes the map to where it runs, by default nowhere else.

    Attributes:
        ahead: How many questions the map takes before it has answered the first.
        guidance: Guidance scale where a request names none; None for a model that takes none.
        image_shape: Channels, height and width of an image.
        nbytes: Bytes of the parameters and buffers of the map and its decoder.
        noise_shape: Those of its noise, which differ where the model makes latents.

    Raises:
        ValueError: If the model makes no images, or has a sampler of too many evaluations.
    """

    def __init__(
        self,
        flow_map: FlowMap,
        record: ModelRecord,
        *,
        bucket: int = 16,
        strict: bool = False,
        decoder: Decoder | None = None,
        speed: Speed | None = None,
        host: Host = runner,
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
        self.buckets = (bucket,) if strict else _buckets(bucket)
        self.guidance = flow_map.scale if isinstance(flow_map, AtScale) else None
        drawn = None if self.guidance is None else drawn_scales(record)
        self._scales = drawn or (1.0, MAX_GUIDANCE)
        self.image_shape = shape
        self.noise_shape = tuple(record.shape)
        self._asking = Asking(domain=flow_map.domain)
        self._device = device_of(flow_map)
        self._decoder = None if decoder is None else decoder.to(self._device)
        weights = chain(flow_map.parameters(), flow_map.buffers())
        self.nbytes = sum(tensor.nbytes for tensor in weights)
        if self._decoder is not None:
            self.nbytes += self._decoder.nbytes
        speed = speed or Speed()
        self._is_compiled = speed.compile
        self._run = host(flow_map.eval(), speed)
        self.ahead = self._run.ahead
        own = own_sampler(record)
        if own is not None and (evaluations := own.evaluations(flow_map.domain) or 0) > MAX_STEPS:
            raise ValueError(
                f"a served model is sampled in at most {MAX_STEPS} evaluations, got {record.name} "
                f"with a sampler of {evaluations}"
            )
        self._samplers = dict(samplers_at(flow_map.domain, range(1, MAX_STEPS + 1), named=own))
        self.steps = tuple(self._samplers)

    @property
    def size(self) -> str:
        """Width and height of the images, as in ``8x8``."""
        _, height, width = self.image_shape
        return f"{width}x{height}"

    @property
    def default_steps(self) -> int:
        """Fewest evaluations; the most for a velocity whose paths are not straight."""
        domain = self._asking.domain
        needs_many = domain.kind is DomainKind.DIAGONAL and not domain.is_straight
        return self.steps[-1] if needs_many else self.steps[0]

    def accept(
        self,
        prompt: str,
        *,
        seed: int,
        n: int = 1,
        steps: int | None = None,
        guidance: float | None = None,
        size: str | None = None,
    ) -> Draw:
        """Checks a request against the model.

        Args:
            prompt: Class label, as a number or a name; empty for an unconditional model.
            seed: Seed of the noise, in [0, MAX_SEED].
            n: Number of images, in [1, MAX_IMAGES].
            steps: Network evaluations for each image, or None for the model's default.
            guidance: Scale that the model was trained with, or None for its own.
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
        steps = self.check(steps=steps, guidance=guidance)
        return Draw(label=self.label(prompt), n=n, seed=seed, steps=steps, guidance=guidance)

    def check(self, *, steps: int | None, guidance: float | None) -> int:
        """Checks how images are asked for.

        Args:
            steps: Network evaluations for each image, or None for the model's default.
            guidance: Scale that the model was trained with, or None for its own.

        Returns:
            The evaluations.

        Raises:
            RequestRefused: If the model has no sampler of so many, or does not take the scale.
        """
        steps = self.default_steps if steps is None else steps
        if steps not in self._samplers:
            raise RequestRefused(
                f"steps must be one that the model was trained for, got {steps}; "
                f"allowed: {_ranges(self.steps)}",
                param="steps",
            )
        if guidance is None:
            return steps
        if self.guidance is None:
            raise RequestRefused(
                f"guidance must be left out for a model that takes no scale, got {guidance:g}",
                param="guidance",
            )
        low, high = self._scales
        if not low <= guidance <= high:
            raise RequestRefused(
                f"guidance must be in {low:g}..{high:g}, got {guidance:g}", param="guidance"
            )
        return steps

    def draws(self, steps: int) -> int:
        """How often the sampler of so many evaluations draws noise."""
        return self._samplers[steps].draws

    def label(self, asked: str | int, *, param: str = "prompt") -> int | None:
        """The class that a number or a text names.

        Args:
            asked: Its number; or as text its name or number, empty for an unconditional model.
            param: The field that holds it.

        Returns:
            The class, or None for an unconditional model.

        Raises:
            RequestRefused: If it names none.
        """
        return class_of(self.record, asked, param=param)

    @torch.inference_mode()
    def begin(self, draw: Draw | Rows) -> Walk:
        """The way of a request to its images, at its first question.

        Args:
            draw: An accepted request.
        """
        sampler = self._samplers[draw.steps]
        # The noise is drawn on the CPU, so that an image does not depend on the device.
        noise = draw.noise(self.noise_shape, draws=sampler.draws)
        return Walk(sampler, self._asking, noise.to(self._device), self._condition(draw))

    @torch.inference_mode()
    def answer(self, question: Question) -> Float[Tensor, " b *d"]:
        """The map's answer, computed in the smallest bucket that holds the rows.

        Args:
            question: At most ``bucket`` rows, of any walks.

        Returns:
            The average velocity of each row.
        """
        return self.ask(question).result()[: len(question)]

    @torch.inference_mode()
    def ask(self, question: Question) -> "Future[Tensor]":
        """The same as what will come, with the rows that fill the bucket.

        Args:
            question: At most ``bucket`` rows, of any walks.

        Returns:
            The average velocity of each row; there at once where this thread is the one to run
            the map.
        """
        filled = self._filled(question)
        return self._run.begin(filled.x, filled.s, filled.t, filled.condition)

    def _filled(self, question: Question) -> Question:
        """As many rows as the smallest bucket that holds them, the last one again and again."""
        rows = len(question)
        if rows == (bucket := self.bucket_of(rows)):
            return question
        return question[torch.arange(bucket, device=self._device).clamp(max=rows - 1)]

    def bucket_of(self, rows: int) -> int:
        """Rows of the forward that computes so many, at most ``bucket``."""
        return self.buckets[bisect_left(self.buckets, rows)]

    @torch.inference_mode()
    def images(self, x: Float[Tensor, " n *d"]) -> Float[Tensor, "n c h w"]:
        """What a walk's end looks like: itself, or what is decoded of it.

        Args:
            x: Samples of the map.

        Returns:
            Images in [-1, 1] but for the model's own overshoot, on the CPU.
        """
        if self._decoder is None:
            return x.cpu()
        fill = torch.arange(self.bucket, device=self._device)
        parts = [
            self._decoder(part[fill.clamp(max=len(part) - 1)])[: len(part)]
            for part in x.split(self.bucket)
        ]
        return torch.cat(parts).cpu()

    @torch.inference_mode()
    def sample(self, draws: Sequence[Draw | Rows]) -> list[Float[Tensor, "n c h w"]]:
        """The images of each request.

        Args:
            draws: Accepted requests.

        Returns:
            One tensor for each request, in order; images in [-1, 1] but for the model's overshoot.
        """
        company: Company[int] = Company(rows=self.bucket)
        for place, draw in enumerate(draws):
            company.add(place, self.begin(draw))
        ends: dict[int, Tensor] = {}
        while len(company):
            ends.update(company.advance(self.answer))
        return [self.images(ends[place]) for place in range(len(draws))]

    def warm_up(self) -> None:
        """Samples once, so that no request pays for a first time.

        Where a map is compiled, each bucket is a compilation. Elsewhere another size costs a few
        milliseconds more the first time, far less than to try it.

        Raises:
            ValueError: If an image is not finite, or not of the shape that the engine tells.
        """
        label = None if self.record.classes == 0 else 0
        for rows in self.buckets if self._is_compiled else self.buckets[-1:]:
            n = min(rows, MAX_IMAGES)
            draw = Draw(label=label, n=n, seed=0, steps=self.default_steps)
            (images,) = self.sample([draw])
            if images.shape != (n, *self.image_shape) or not images.isfinite().all():
                raise ValueError(
                    f"a served model makes finite images of shape {self.image_shape}, got "
                    f"{int(images.isfinite().sum())} finite values of {images.numel()} in shape "
                    f"{tuple(images.shape[1:])} from {self.record.name}"
                )

    def _condition(self, draw: Draw | Rows) -> Condition | None:
        label = scale = None
        if draw.labels is not None:
            label = torch.tensor(draw.labels, device=self._device)
        if self.guidance is not None:
            scale = torch.full((draw.n,), draw.guidance or self.guidance, device=self._device)
        return None if label is scale is None else Condition(label=label, guidance=scale)


def _setting(node: Mapping[str, Any], name: str) -> Any:
    """A field of a network, or of the one that it is laid around."""
    inner = node.get("net")
    return _setting(inner, name) if isinstance(inner, Mapping) else node.get(name)


def _buckets(largest: int) -> tuple[int, ...]:
    """Powers of two up to the largest, and the largest."""
    return (*(2**k for k in range(largest.bit_length()) if 2**k < largest), largest)


def _ranges(values: Sequence[int]) -> str:
    """Sorted integers in words: 1, 2, 4 or 1..64."""
    if len(values) > 2 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]}..{values[-1]}"
    return ", ".join(map(str, values))
