"""Rules that no exact map obeys: negative controls of methods that hold a map to a rule."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from onestep.methods.core.calculus import derivative_along
from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import FlowMap
from onestep.methods.core.motion import end_motion
from onestep.methods.core.record import Moment
from onestep.methods.core.rule import AbstractRule
from onestep.methods.core.shape import rows_like


@final
@dataclass(frozen=True, kw_only=True)
class SignOfTheOtherConvention(AbstractRule):
    """u - (t - s) d_t u in place of the sum."""

    def residual(
        self,
        online: FlowMap,
        teacher: FlowMap,
        x: Tensor,
        s: Tensor,
        t: Tensor,
        condition: Condition | None,
        now: Moment,
    ) -> Tensor:
        del now
        end, rate = end_motion(online, x, s, t, condition)
        with torch.no_grad():
            velocity = teacher.velocity(end, t, condition)
        return 2.0 * online(x, s, t, condition) - rate - velocity


@final
@dataclass(frozen=True, kw_only=True)
class VelocityAtTheStart(AbstractRule):
    """The teacher asked where the jump starts in place of where it ends."""

    def residual(
        self,
        online: FlowMap,
        teacher: FlowMap,
        x: Tensor,
        s: Tensor,
        t: Tensor,
        condition: Condition | None,
        now: Moment,
    ) -> Tensor:
        del now
        rate = end_motion(online, x, s, t, condition).rate
        with torch.no_grad():
            velocity = teacher.velocity(x, s, condition)
        return rate - velocity


@final
@dataclass(frozen=True, kw_only=True)
class NoJacobian(AbstractRule):
    """The Eulerian rule without the transport of the state."""

    def residual(
        self,
        online: FlowMap,
        teacher: FlowMap,
        x: Tensor,
        s: Tensor,
        t: Tensor,
        condition: Condition | None,
        now: Moment,
    ) -> Tensor:
        del now
        with torch.no_grad():
            velocity = teacher.velocity(x, s, condition)
        u, du_ds = derivative_along(
            lambda start: online(x, start, t, condition), (s,), (torch.ones_like(s),)
        )
        return rows_like(t - s, x) * du_ds + velocity - u
