"""Self-distillation: a flow map is taught by its own diagonal, which data teach."""

import math
from dataclasses import dataclass
from typing import final

import torch

from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.coverage import require_coverage, trained_domain
from .core.distance import SquaredL2
from .core.dropout import dropout_rows
from .core.flow_map import Domain
from .core.guidance import LabelDropout
from .core.learned_weighting import LOSS_WEIGHT, LearnedWeighting
from .core.method import AbstractMethod, Ema, Needs
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.rule import AbstractRule, Lagrangian
from .core.schedule import Constant, Schedule, require_range
from .core.shape import sum_rows
from .core.time_law import Uniform
from .core.times import AbstractTimes, SortedTimes, require_diagonal
from .core.weighting import AbstractWeighting, Unweighted, require_weighed_diagonal


@final
@dataclass(frozen=True, kw_only=True)
class SelfDistillation(AbstractMethod):
    """Self-distillation: flow matching on the diagonal, and a line of the exact map elsewhere.

        loss = |u(x, s, s) - v|^2                             on the rows with s = t
             = |residual of the rule(u, sg u)|^2              on the others

    The diagonal of the network itself is the teacher that distillation would take from elsewhere.
    Each error is weighted by a learned function of its times, exp(-w) error + w.

    Reference: Boffi et al. 2025, arXiv:2505.18825v2, section 3 and, for the stop-gradients,
        Eq. (94); the shares, the laws and the learned weight after their code. The random split
        alone is SplitMeanFlow: Guo et al. 2025, arXiv:2507.16884v1.
    Convention: as theirs; X(s, t)(x) = x + (t - s) v(s, t, x), and their v is u here.
    Differs from the paper: both kinds of rows share their dropout masks, where theirs evaluate the
        network without dropout off the diagonal; the learned weight is a sum of cosines
        of the times and has a least error. A moving
        average may teach in place of the network as it is.
    Cost: on the rows off the diagonal, for the Lagrangian a derivative with its graph and a forward
        pass, for the Eulerian two derivatives and a forward pass, for the progressive one pass for
        the jump and one for each tile; one pass on the others.
    Fails by: Lagrangian: states that leave the data early, where jumps are long before the diagonal
        is good (``ShortenedTimes`` helps), and the memory of a derivative that is differentiated.
        Eulerian: the Jacobian makes it unstable on images. Progressive: errors add up along the
        ladder. Steep time embeddings make d_t u stiff. The learned weight multiplies gradients more
        the smaller the error is: what learns points and digits here goes without.

    Attributes:
        path: Interpolant between noise and data.
        coupling: How noise is paired with data within the batch.
        times: Law of (s, t), uniform on the triangle by default, and the share on the diagonal.
            Without rows there nothing would read the data, and any map that obeys its own rule
            would have no loss. The progressive rule takes DyadicTimes as well.
        rule: The line that rows off the diagonal are held to.
        target: Moving average that gives the constant side; None for the network as it is.
        weighting: Weight of each sample's error.
        learned: Weight that is learned as a function of the times; None for none.
        strength: Weight of the rows off the diagonal beside the others, at least 0; a ramp from 0
            learns the velocity first.
        label_dropout: How often a sample is seen without its label.

    Raises:
        ValueError: If the strength is negative anywhere, no row lies on the diagonal or those that
            do have no weight, or the times cover no jumps that the rule teaches.
    """

    path: AbstractPath = LinearPath()
    coupling: AbstractCoupling = IndependentCoupling()
    times: AbstractTimes = SortedTimes(law=Uniform(), diagonal=Constant(value=0.75))
    rule: AbstractRule = Lagrangian()
    target: Ema | None = None
    weighting: AbstractWeighting = Unweighted()
    learned: LearnedWeighting | None = LearnedWeighting(offset=0.01)
    strength: Schedule = Constant(value=1.0)
    label_dropout: LabelDropout = LabelDropout()

    def __post_init__(self) -> None:
        require_range("method.strength", self.strength, 0.0, math.inf)
        require_diagonal("self-distillation", self.times)
        require_weighed_diagonal(self.weighting)
        rule = f"self-distillation by {type(self.rule).__name__}"
        require_coverage(rule, self.times, self.rule.kinds)

    @property
    def domain(self) -> Domain:
        """What the times cover, as far as the path's velocity is finite."""
        return trained_domain(self.times, path=self.path, coupling=self.coupling)

    @property
    def needs(self) -> Needs:
        """The learned weight and the moving average, where there are any."""
        learned = {} if self.learned is None else {LOSS_WEIGHT: self.learned.companion}
        return Needs(target=self.target, companions=learned)

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples of a batch whose noise has been paired."""
        times = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device)
        s, t = times.s, times.t
        x, v = self.path.at(batch.noise, batch.x1, s)
        condition = self.label_dropout.keep(batch, now)

        error, is_off = torch.zeros_like(s), torch.zeros_like(s)
        on, off = times.diagonal_rows, times.off_rows
        if len(on):
            some = None if condition is None else condition[on]
            with dropout_rows(on):
                error[on] = SquaredL2()(nets.online.velocity(x[on], s[on], some), v[on])
        if len(off):
            some = None if condition is None else condition[off]
            teacher = nets.online if nets.target is None else nets.target
            with dropout_rows(off):
                rest = self.rule.residual(nets.online, teacher, x[off], s[off], t[off], some, now)
            error[off], is_off[off] = sum_rows(rest.square()), 1.0

        weighted = self.weighting(error, s, t)
        if self.learned is not None:
            weighted = self.learned(nets.companions[LOSS_WEIGHT], weighted, s, t)
        return Loss(
            terms={
                "flow_matching": (1.0 - is_off) * weighted,
                "self_distillation": self.strength(now) * is_off * weighted,
            },
            logs={"error": error.detach()},
            times=s,
        )
