"""A linear decoder of images, fitted by principal components: the simplest autoencoder."""

import math
from collections.abc import Sequence
from typing import Self, final

import torch
from jaxtyping import Float
from torch import Tensor, nn


@final
class LinearDecoder(nn.Module):
    """Images as a mean and a sum of components, whose strengths are the latents.

    Args:
        latent: Channels, height and width of a latent.
        image: Channels, height and width of an image.

    Raises:
        ValueError: If a shape is no such shape, or a latent is larger than an image.
    """

    def __init__(self, *, latent: Sequence[int], image: Sequence[int]) -> None:
        super().__init__()
        self.latent, self.image = tuple(latent), tuple(image)
        for shape in (self.latent, self.image):
            if len(shape) != 3 or min(shape) < 1:
                raise ValueError(f"a shape must be channels, height and width, got {shape}")
        if math.prod(self.latent) > math.prod(self.image):
            raise ValueError(
                f"a latent must be no larger than an image, got {self.latent} and {self.image}"
            )
        self.components = nn.Parameter(torch.zeros(math.prod(self.latent), math.prod(self.image)))
        self.mean = nn.Parameter(torch.zeros(math.prod(self.image)))

    @classmethod
    def fitted(cls, images: Float[Tensor, "n c h w"], *, latent: Sequence[int]) -> Self:
        """The decoder of least squared error on these images, of all linear ones.

        Args:
            images: What it has to make again, at least as many as a latent has numbers.
            latent: Channels, height and width of a latent.

        Returns:
            The decoder.

        Raises:
            ValueError: If there are fewer images than numbers in a latent.
        """
        decoder = cls(latent=latent, image=images.shape[1:])
        rank = math.prod(decoder.latent)
        if len(images) < rank:
            raise ValueError(f"{rank} components need as many images, got {len(images)}")
        rows = images.detach().flatten(1).double()
        mean = rows.mean(dim=0)
        _, _, directions = torch.linalg.svd(rows - mean, full_matrices=False)
        with torch.no_grad():
            decoder.mean.copy_(mean)
            decoder.components.copy_(directions[:rank])
        return decoder.requires_grad_(False).eval()

    def encode(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k p q"]:
        """Latents of images: how far each lies from the mean along each component.

        Args:
            images: Images of the shape of the decoder.
        """
        # The components of a fit are orthonormal.
        z = (images.flatten(1) - self.mean) @ self.components.T
        return z.unflatten(1, self.latent)

    def forward(self, z: Float[Tensor, "b k p q"]) -> Float[Tensor, "b c h w"]:
        """Images of latents.

        Args:
            z: Latents.
        """
        return (z.flatten(1) @ self.components + self.mean).unflatten(1, self.image)
