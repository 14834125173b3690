"""Autoguidance: a velocity pushed away from that of a weaker map; guidance by labels is akin.

As a map of its own it is sampled like any velocity; each evaluation is one of both maps.
"""

import math
from typing import final

from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .flow_map import Domain, DomainKind, FlowMap
from .sampler import require_velocity
from .shape import rows_like


def guided_velocity(
    strong: FlowMap,
    weak: FlowMap,
    x: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    condition: Condition | None,
    *,
    scale: Float[Tensor, " b"],
) -> Float[Tensor, " b *d"]:
    """The velocity scale v_strong + (1 - scale) v_weak, in the precision of the states.

    Args:
        strong: The better map.
        weak: The worse one, whose errors are of the same kind and larger.
        x: States.
        t: Their times.
        condition: Condition of each row.
        scale: Scale of each row; 1 is the better velocity as it is.
    """
    better = strong.velocity(x, t, condition).to(x.dtype)
    worse = weak.velocity(x, t, condition).to(x.dtype)
    share = rows_like(scale, x)
    return share * better + (1.0 - share) * worse  # at scale 1 the better one to the last bit


@final
class Guided(FlowMap):
    """Two velocities as one that leads away from the worse: scale v_strong + (1 - scale) v_weak.

    With a smaller or less trained copy as the weak map this is autoguidance, which needs no labels;
    with ``Unconditional`` of the strong map itself it is classifier-free guidance, of Ho and
    Salimans' w = scale - 1.

    Reference: Karras et al. 2024, arXiv:2406.02507v1; Ho and Salimans 2022, arXiv:2207.12598v1.
    Cost: one evaluation of each map.

    Args:
        strong: The better map, trained on the diagonal.
        weak: The worse map, trained on the diagonal.
        scale: At least 0; 1 is the better velocity as it is, less leads back to the worse. None
            takes each row's from its condition, of which the maps are told the rest.

    Raises:
        ValueError: If the scale is negative, a map is no velocity, their paths differ, or their
            times do not overlap.
    """

    def __init__(self, strong: FlowMap, weak: FlowMap, *, scale: float | None) -> None:
        if scale is not None and not 0.0 <= scale < math.inf:
            raise ValueError(f"guidance needs a finite scale of at least 0, got {scale}")
        for name, part in (("strong", strong), ("weak", weak)):
            require_velocity(f"guidance by its {name} map", part.domain)
        if strong.domain.path != weak.domain.path:
            raise ValueError(
                "guidance needs two maps of one path, "
                f"got {strong.domain.path} and {weak.domain.path}"
            )
        super().__init__(
            domain=Domain(
                kind=DomainKind.DIAGONAL,
                t_lo=max(strong.domain.t_lo, weak.domain.t_lo),
                t_hi=min(strong.domain.t_hi, weak.domain.t_hi),
                path=strong.domain.path,
                has_paired_noise=strong.domain.has_paired_noise,
            )
        )
        self.strong, self.weak, self.scale = strong, weak, scale

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Guided velocity at the start time; the end time is ignored by definition."""
        del t
        if self.scale is not None:
            scale = s.new_full((len(s),), self.scale)
        else:
            assert condition is not None, "rows tell their scale"
            assert condition.guidance is not None, "rows tell their scale"
            scale, condition = condition.guidance, condition.without_guidance()
        return guided_velocity(self.strong, self.weak, x, s, condition, scale=scale)


@final
class Unconditional(FlowMap):
    """A map that never sees its condition: the weak side of classifier-free guidance.

    Args:
        flow_map: A map that was trained with dropped labels.
    """

    def __init__(self, flow_map: FlowMap) -> None:
        super().__init__(domain=flow_map.domain)
        self.flow_map = flow_map

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Average velocity without the condition.

        Args:
            x: State at time s.
            s: Start time.
            t: End time.
            condition: What the map is not told.

        Raises:
            ValueError: If there is no condition, so that nothing would be guided.
        """
        if condition is None:
            raise ValueError("classifier-free guidance needs labelled rows, got no condition")
        u: Tensor = self.flow_map(x, s, t, condition.null())
        return u
