"""Forms of the loss by which a generator's own flow is led to its teacher's."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from .shape import sum_rows


class AbstractGeneratorForm(ABC):
    """How velocities at a point of a generated path become the losses of both players."""

    @property
    @abstractmethod
    def uses_data(self) -> bool:
        """Whether the fake velocity sees real data beside generated ones."""

    @abstractmethod
    def generator(
        self,
        teacher: Float[Tensor, " b *d"],
        fake: Float[Tensor, " b *d"],
        u: Float[Tensor, " b *d"],
    ) -> Float[Tensor, " b"]:
        """Loss of the generator, to be differentiated through all three velocities.

        Args:
            teacher: The teacher's velocity.
            fake: The fake velocity.
            u: The velocity of the path itself.
        """

    @abstractmethod
    def generated(
        self, fake: Float[Tensor, " b *d"], u: Float[Tensor, " b *d"]
    ) -> Float[Tensor, " b"]:
        """Loss of the fake velocity on a generated path whose velocity is u."""

    @abstractmethod
    def real(self, fake: Float[Tensor, " b *d"], u: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        """Loss of the fake velocity on a path to real data, added where it uses data."""


@final
@dataclass(frozen=True, kw_only=True)
class ScoreIdentity(AbstractGeneratorForm):
    """The losses of FGM and of score identity distillation.

        2 delta . (v_teacher - u) - 2 alpha |delta|^2   with delta = v_teacher - v_fake

    With alpha = 1/2 its gradient is that of E |v_teacher - v_generator|^2, as long as the fake
    velocity is that of the generator. The part of that gradient which flows through delta alone
    (FGM's L_1) is noisy, and alpha = 1 leaves it out.

    Reference: Huang et al. 2024, arXiv:2410.19310v1, Eq. (4.11) for alpha = 1; Zhou et al. 2024
        (SiD), arXiv:2404.04057v1, for the family, with alpha = 1.2.

    Attributes:
        alpha: In [0, 2].

    Raises:
        ValueError: If alpha is out of range.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 2.0:
            raise ValueError(f"form.alpha must be in [0, 2], got {self.alpha}")

    @property
    def uses_data(self) -> bool:
        """Never."""
        return False

    def generator(
        self,
        teacher: Float[Tensor, " b *d"],
        fake: Float[Tensor, " b *d"],
        u: Float[Tensor, " b *d"],
    ) -> Float[Tensor, " b"]:
        """Loss of the generator, to be differentiated through all three velocities."""
        delta = teacher - fake
        return 2.0 * sum_rows(delta * (teacher - u - self.alpha * delta))

    def generated(
        self, fake: Float[Tensor, " b *d"], u: Float[Tensor, " b *d"]
    ) -> Float[Tensor, " b"]:
        """Loss of the fake velocity on a generated path whose velocity is u."""
        return sum_rows((fake - u).square())

    def real(self, fake: Float[Tensor, " b *d"], u: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        """Loss of the fake velocity on a path to real data, added where it uses data."""
        raise AssertionError("this form uses no data")


@final
@dataclass(frozen=True, kw_only=True)
class InverseDistillation(AbstractGeneratorForm):
    """The losses of universal inverse distillation, with real data in the fake velocity.

        generator  alpha (|v_teacher - (beta / alpha) u|^2 - |v_fake - (beta / alpha) u|^2)
        fake       alpha |v_fake - (beta / alpha) u|^2
                   + (1 - alpha) |v_fake - (1 - beta) / (1 - alpha) u_real|^2

    The second is the negative of what the generator can reach in the first, a game of one value.
    With alpha = beta = 1 no data are used and the losses are FGM's: ScoreIdentity(alpha=0.5).

    Reference: Kornilov et al. 2025, arXiv:2509.22459v1, section 3.

    Attributes:
        alpha: Share of generated samples, in (0, 1].
        beta: Share of their velocity, in (0, 1]; 1 if and only if alpha is.

    Raises:
        ValueError: If a share is out of range, or one of them alone is 1.
    """

    alpha: float = 0.94
    beta: float = 0.96

    def __post_init__(self) -> None:
        if not (0.0 < self.alpha <= 1.0 and 0.0 < self.beta <= 1.0):
            raise ValueError(
                f"form.alpha and beta must be in (0, 1], got {self.alpha} and {self.beta}"
            )
        if (self.alpha == 1.0) != (self.beta == 1.0):
            raise ValueError(
                "form.alpha and beta are both 1, which leaves real data out, or both below: "
                f"got {self.alpha} and {self.beta}"
            )

    @property
    def uses_data(self) -> bool:
        """Unless their share is zero."""
        return self.alpha < 1.0

    def generator(
        self,
        teacher: Float[Tensor, " b *d"],
        fake: Float[Tensor, " b *d"],
        u: Float[Tensor, " b *d"],
    ) -> Float[Tensor, " b"]:
        """Loss of the generator, to be differentiated through all three velocities."""
        scaled = self.beta / self.alpha * u
        # |a|^2 - |b|^2 as (a - b) . (a + b): close velocities must not cancel.
        return self.alpha * sum_rows((teacher - fake) * (teacher + fake - 2.0 * scaled))

    def generated(
        self, fake: Float[Tensor, " b *d"], u: Float[Tensor, " b *d"]
    ) -> Float[Tensor, " b"]:
        """Loss of the fake velocity on a generated path whose velocity is u."""
        return self.alpha * sum_rows((fake - self.beta / self.alpha * u).square())

    def real(self, fake: Float[Tensor, " b *d"], u: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        """Loss of the fake velocity on a path to real data, added where it uses data."""
        rest = 1.0 - self.alpha
        return rest * sum_rows((fake - (1.0 - self.beta) / rest * u).square())
