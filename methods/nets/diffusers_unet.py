"""The U-Net of the library diffusers, as the network inside a diffusion seen as a velocity.

Shape suffixes: B rows.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.condition import NULL_LABEL, Condition
from ..core.flow_map import Domain, FlowMap
from .condition_embedding import check_condition
from .image import image_shape

_CLASS: Final = "UNet2DModel"
_WRITTEN_BY: Final = "_class_name"
_PLAIN: Final = {"time_embedding_type": "positional", "class_embed_type": None}
"""The only kinds of embedding that take numbers between levels, and labels."""


@final
class DiffusersUNet(FlowMap):
    """UNet2DModel of the library diffusers, told at which of a diffusion's levels its state is.

        net(z, 1 - tau) = UNet2DModel(z, levels tau - 1)

    The library counts from 0 at the level nearest to the data to levels - 1 at the noise. Between
    two levels the number is not rounded, and its features lie between theirs. The end time of a
    jump is not told, so that the network can be a velocity, or a map to the data, but not a map of
    two times. Its weights have the names that the library writes, behind ``unet.``.

    The library is imported when a network is built. Nothing is downloaded.

    Args:
        shape: Shape of a datum: channels, height, width.
        domain: The (s, t) on which the map is trained.
        config: Sizes by the names of the library, as its config.json holds them. The sample size,
            the channels and the number of classes follow from the data, and may be left out.
        classes: Classes of the labels, 0 for an unconditional network. There is one more embedding
            than classes, the last of which stands for no label.
        levels: How many the diffusion's clock has.

    Raises:
        ValueError: If the library is missing, or its network is none of these sizes, of another
            kind, or not of the shape and classes of the data.
    """

    is_told_end: ClassVar[bool] = False

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        domain: Domain,
        config: Mapping[str, Any],
        classes: int = 0,
        levels: int = 1000,
    ) -> None:
        super().__init__(domain=domain)
        try:
            from diffusers import UNet2DModel
        except ImportError as error:
            raise ValueError(
                "DiffusersUNet needs the library diffusers, which is not installed: "
                "pip install 'onestep[diffusers]'"
            ) from error
        self.classes, self.levels = classes, levels
        sizes = _sizes(config, shape, classes)
        try:
            self.unet = UNet2DModel(**sizes)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{_CLASS} cannot be built from its config: {error}") from error
        image_shape(shape, net=_CLASS, multiple=2 ** (len(self.unet.down_blocks) - 1))

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """What the network says of the state x at 1 minus the reading of the diffusion's clock."""
        del t
        check_condition(condition, classes=self.classes, vocabulary=0, guided=False)
        number_B = (1.0 - s) * self.levels - 1.0
        said: Tensor = self.unet(x, number_B, class_labels=self._labels(condition, x)).sample
        return said

    def _labels(self, condition: Condition | None, x: Tensor) -> Tensor | None:
        if not self.classes:
            return None
        if condition is None or condition.label is None:
            return torch.full((len(x),), self.classes, device=x.device)
        return torch.where(condition.label == NULL_LABEL, self.classes, condition.label)


def _sizes(config: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    """The library's arguments, checked against the data."""
    if (written_by := config.get(_WRITTEN_BY, _CLASS)) != _CLASS:
        raise ValueError(f"DiffusersUNet takes the config of a {_CLASS}, got that of {written_by}")
    given = {name: value for name, value in config.items() if not name.startswith("_")}
    for name, plain in _PLAIN.items():
        if given.get(name, plain) != plain:
            raise ValueError(f"DiffusersUNet needs {name} {plain}, got {given[name]!r}")
    channels, height, width = image_shape(shape, net=_CLASS, multiple=1)
    size = given.pop("sample_size", None)
    if size is not None and _pair(size) != (height, width):
        raise ValueError(f"{_CLASS} has sample_size {size}, the data are {height} x {width}")
    for name in ("in_channels", "out_channels"):
        if given.setdefault(name, channels) != channels:
            raise ValueError(f"{_CLASS} has {name} {given[name]}, the data {channels}")
    embeddings = classes + 1 if classes else None
    if given.setdefault("num_class_embeds", embeddings) != embeddings:
        raise ValueError(
            f"{_CLASS} has num_class_embeds {given['num_class_embeds']}, data of {classes} classes "
            f"need {embeddings}" + (", the last for no label" if classes else "")
        )
    return given | {"sample_size": (height, width)}


def _pair(size: object) -> tuple[object, ...]:
    return tuple(size) if isinstance(size, list | tuple) else (size, size)
