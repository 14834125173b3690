"""The flow map: the one object that every method learns, and the times on which it was trained."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, ClassVar, Final, Self, final

from jaxtyping import Float
from torch import Tensor, nn

from .condition import Condition
from .count import require_whole
from .path import LINEAR
from .shape import rows_like


class DomainKind(StrEnum):
    """On which pairs (s, t) of start and end time a map was trained."""

    DIAGONAL = "diagonal"
    """s = t: a velocity. Its jump is an Euler step."""
    TO_DATA = "to_data"
    """t = 1: a consistency function."""
    FROM_NOISE = "from_noise"
    """s at the first time: a one-step generator or a neural flow."""
    TRIANGLE = "triangle"
    """All 0 <= s <= t <= 1."""
    GRID = "grid"
    """Jumps of length 2^-k that start at multiples of their length, and the diagonal."""
    TILING = "tiling"
    """Jumps over one of so many equal parts of the range, and nothing else."""


_ROUNDING: Final = 1e-6


@final
@dataclass(frozen=True, kw_only=True)
class Domain:
    """The set of (s, t) on which a map was trained.

    Attributes:
        kind: Its form.
        t_lo: First time at which the map was trained, in [0, 1): 1 / (1 + sigma_max) for EDM.
        t_hi: Last time at which it was trained, in (t_lo, 1].
        steps: Jumps of the finest length across [0, 1]: a power of two for GRID, at least 1 for
            TILING, 0 for every other kind.
        is_straight: Whether a velocity was trained to have straight paths, so that one Euler step
            is meant to be enough.
        path: Name of the path on which its trajectories lie; linear where a record, being older
            than this field, does not say.
        has_paired_noise: Whether it was trained on states between data and noise that was paired
            with them. Another law of the states has another velocity, and fresh noise mixed into
            data is no state that it knows. False where a record, being older than this field, does
            not say.

    Raises:
        ValueError: If the times are out of order, or the grid or the straightness does not fit
            the kind or the path.
    """

    kind: DomainKind = DomainKind.TRIANGLE
    t_lo: float = 0.0
    t_hi: float = 1.0
    steps: int = 0
    is_straight: bool = False
    path: str = LINEAR
    has_paired_noise: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.t_lo < self.t_hi <= 1.0:
            raise ValueError(
                f"domain times must have 0 <= t_lo < t_hi <= 1, got {self.t_lo} and {self.t_hi}"
            )
        require_whole("domain steps", self.steps)
        is_power = self.steps > 0 and self.steps & (self.steps - 1) == 0
        match self.kind:
            case DomainKind.GRID:
                fits = is_power
            case DomainKind.TILING:
                fits = self.steps > 0
            case _:
                fits = self.steps == 0
        if not fits:
            raise ValueError(
                f"domain steps must be a power of two for kind grid, at least 1 for kind tiling "
                f"and 0 otherwise, got {self.steps} for {self.kind}"
            )
        if self.is_straight and self.kind is not DomainKind.DIAGONAL:
            raise ValueError(f"only a domain of kind diagonal can be straight, got {self.kind}")
        if self.is_straight and self.path != LINEAR:
            raise ValueError(f"only a domain of the linear path can be straight, got {self.path}")

    @property
    def has_velocity(self) -> bool:
        """Whether the diagonal was trained, so that the map can be used as a velocity."""
        return self.kind in (DomainKind.DIAGONAL, DomainKind.TRIANGLE, DomainKind.GRID)

    def admits(self, s: float, t: float) -> bool:
        """Whether a jump from s to t was trained: it has the right form and lies in the range."""
        if not self.t_lo - _ROUNDING <= s <= t <= self.t_hi + _ROUNDING:
            return False
        match self.kind:
            case DomainKind.DIAGONAL:
                return abs(t - s) <= _ROUNDING
            case DomainKind.TO_DATA:
                return abs(t - 1.0) <= _ROUNDING
            case DomainKind.FROM_NOISE:
                return s <= self.t_lo + _ROUNDING
            case DomainKind.TRIANGLE:
                return True
            case DomainKind.GRID:
                return self._on_grid(s, t)
            case DomainKind.TILING:
                length = self.t_hi - self.t_lo
                return _is_tile((s - self.t_lo) / length, (t - self.t_lo) / length, of=self.steps)

    def includes(self, other: "Domain") -> bool:
        """Whether all jumps of another domain were trained, by their times alone."""
        if other.kind is DomainKind.TILING:
            length = (other.t_hi - other.t_lo) / other.steps
            starts = (other.t_lo + k * length for k in range(other.steps))
            return all(self.admits(s, s + length) for s in starts)
        if not (self.t_lo - _ROUNDING <= other.t_lo and other.t_hi <= self.t_hi + _ROUNDING):
            return False
        match self.kind:
            case DomainKind.TRIANGLE:
                return True
            case DomainKind.GRID if other.kind is DomainKind.GRID:
                return other.steps <= self.steps
            case DomainKind.GRID:
                return other.kind is DomainKind.DIAGONAL
            case DomainKind.TILING:
                return False
            case DomainKind.FROM_NOISE:
                return other.kind is self.kind and other.t_lo <= self.t_lo + _ROUNDING
            case DomainKind.DIAGONAL | DomainKind.TO_DATA:
                return other.kind is self.kind

    @property
    def words(self) -> str:
        """Its form and its range, as an error names them."""
        form = f"{self.kind} of {self.steps} steps" if self.steps else str(self.kind)
        return f"{form} on [{self.t_lo:g}, {self.t_hi:g}]"

    def _on_grid(self, s: float, t: float) -> bool:
        if t - s <= _ROUNDING:
            return True
        count = round(1.0 / (t - s))
        is_dyadic = count & (count - 1) == 0 and count <= self.steps
        return is_dyadic and _is_tile(s, t, of=count)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a configuration or a registry."""
        return asdict(self) | {"kind": str(self.kind)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(**(values | {"kind": DomainKind(values["kind"])}))


def _is_tile(s: float, t: float, *, of: int) -> bool:
    """Whether [s, t] is one of this many equal parts of [0, 1]."""
    return abs((t - s) * of - 1.0) <= _ROUNDING and abs(s * of - round(s * of)) <= _ROUNDING * of


class FlowMap(nn.Module, ABC):
    """The average velocity u of a two-time flow map X(s, t)(x) = x + (t - s) u(x, s, t).

    A subclass implements ``forward``; ``velocity``, ``jump`` and ``generate`` follow from it and
    are final.

    Args:
        domain: The (s, t) on which the map is, or will be, trained.

    Attributes:
        is_told_end: Whether the end time of a jump makes a difference.
    """

    is_told_end: ClassVar[bool] = True

    def __init__(self, *, domain: Domain) -> None:
        super().__init__()
        self.domain = domain

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Average velocity over [s, t] of the trajectory that is at x at time s.

        Args:
            x: State at time s.
            s: Start time in [0, 1]; 0 is noise.
            t: End time in [0, 1]; 1 is data.
            condition: Condition of each row, or None.
        """

    @final
    def velocity(
        self,
        x: Float[Tensor, " b *d"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Instantaneous velocity v(x, t) = u(x, t, t)."""
        u: Tensor = self(x, t, t, condition)
        return u

    @final
    def jump(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """State at time t of the trajectory that is at x at time s."""
        u: Tensor = self(x, s, t, condition)
        return x + rows_like(t - s, x) * u

    @final
    def generate(
        self, x0: Float[Tensor, " b *d"], condition: Condition | None = None
    ) -> Float[Tensor, " b *d"]:
        """Data that one jump over [0, 1] makes of noise."""
        zero = x0.new_zeros(len(x0))
        return self.jump(x0, zero, zero + 1.0, condition)


@final
class Velocity(FlowMap):
    """A one-time network seen as a flow map: u(x, s, t) = net(x, s), so a jump is an Euler step.

    Args:
        net: Any flow map of which only the diagonal is used.
    """

    def __init__(self, net: FlowMap) -> None:
        super().__init__(
            domain=Domain(
                kind=DomainKind.DIAGONAL,
                t_lo=net.domain.t_lo,
                t_hi=net.domain.t_hi,
                path=net.domain.path,
                has_paired_noise=net.domain.has_paired_noise,
            )
        )
        self.net = net

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Velocity at the start time; the end time is ignored by definition."""
        del t
        return self.net.velocity(x, s, condition)
