"""DMD2: a one-step generator led by the difference of two scores, its own and its teacher's."""

import copy
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .core.adversary import Adversary
from .core.count import require_whole
from .core.coupling import AbstractCoupling, IndependentCoupling
from .core.feature_heads import FeatureHeads, features_of
from .core.flow_map import Domain, DomainKind, FlowMap, Velocity
from .core.game import ONLINE, AbstractGame
from .core.guided_teacher import AbstractTeacherGuidance, Unguided
from .core.method import Needs, Reading
from .core.path import AbstractPath, LinearPath
from .core.record import Batch, Loss, Moment, Nets
from .core.score_scale import AbstractScoreScale, DistanceScale
from .core.shape import rows_like, sum_rows
from .core.times import DiagonalTimes
from .core.weighting import AbstractWeighting, DenoiserWeighting, require_weighed_diagonal

FAKE: Final = "fake"
"""The player that learns the score of what the generator makes, and judges it if asked to."""


@final
class JudgingScore(nn.Module):
    """The fake score, and heads on its features that tell real samples from generated ones.

    Args:
        velocity: The fake score, as a velocity.
        heads: The critic's heads.
    """

    def __init__(self, velocity: FlowMap, heads: FeatureHeads) -> None:
        super().__init__()
        self.velocity = velocity
        self.heads = heads


@final
@dataclass(frozen=True, kw_only=True)
class DMD2(AbstractGame):
    """Distribution matching distillation: descend the divergence of generated from real samples.

        grad G(z) = (D_fake(x, t) - D_teacher(x, t)) scale   at x = alpha x0 + beta G(z)

    D are denoised samples, E[x1 | x], and their difference is that of the scores up to a factor, so
    that this is the gradient of a Kullback-Leibler divergence between both laws with noise. That
    holds for a teacher of noise that is independent of its data; no other is taken. The fake score
    follows the generator by denoising what it makes, at more steps than the generator takes.
    Optionally the generator also fools a critic on the fake score's own features, which brings in
    real data and with them what the teacher has missed.

    Reference: Yin et al. 2024, arXiv:2405.14867v2, section 4; the gradient after Yin et al. 2023,
        arXiv:2311.18828v1, Eq. (7) and (8).
    Convention: theirs is in noise levels; sigma = (1 - t) / t on the linear path, and D = x +
        (1 - t) v. Their weight of the fake score, SNR + 1 / sigma_data^2, is DenoiserWeighting.
        Their losses are means over the d dimensions and these are sums, beside which a weight of an
        adversarial term has to be d times theirs: at d = 3072 the 1e-3 for the generator that
        others use on CIFAR-10 is 3.07, and their 1e-2 for the critic 30.7. A norm at which
        gradients are clipped grows alike.
    Differs from the paper: one step only; the time law is a field, where theirs is a grid of noise
        levels without its ends; the fake score starts as a copy of the generator's initial weights,
        which are the teacher's if the run names it as its initial model.
    Cost: at every step one forward pass of the generator and one step of the fake score, with
        another pass on real data for a critic, and with a penalty one more on noisier ones; at the
        generator's steps one pass more of each and of the teacher, two if it is guided, none of
        whose graphs is kept.
    Fails by: seeking modes, so that recall falls; a fake score that lags behind; the balance of the
        adversarial term. The map is no trajectory of the teacher and cannot be inverted.

    Attributes:
        path: Interpolant between noise and generated data; the teacher's own.
        times: Law of the time; times outside the teacher's range are moved to its ends.
        scale: Factor of the generator's gradient.
        weighting: Weight of the fake score's regression, in terms of velocities.
        adversary: The critic on the fake score's features, or None.
        guidance: How the teacher is guided. Where scales are drawn the network takes one.
        fake_steps: Steps of the fake score for each of the generator, at least 1.

    Raises:
        ValueError: If there are no steps of the fake score, or its regression has no weight.
    """

    path: AbstractPath = LinearPath()
    times: DiagonalTimes = DiagonalTimes()
    scale: AbstractScoreScale = DistanceScale()
    weighting: AbstractWeighting = DenoiserWeighting()
    adversary: Adversary | None = None
    guidance: AbstractTeacherGuidance = Unguided()
    fake_steps: int = 5

    def __post_init__(self) -> None:
        require_whole("method.fake_steps", self.fake_steps, least=1)
        require_weighed_diagonal(self.weighting)

    @property
    def coupling(self) -> AbstractCoupling:
        """The generator's noise is its own: nothing pairs it with data."""
        return IndependentCoupling()

    @property
    def domain(self) -> Domain:
        """The one jump from noise to data."""
        return Domain(kind=DomainKind.TILING, steps=1, path=self.path.name)

    @property
    def needs(self) -> Needs:
        """A teacher with what guides it, and the fake score as a companion."""
        return self.guidance.needs(Reading(pairing=False), companions={FAKE: self._companion})

    def _companion(self, online: FlowMap) -> nn.Module:
        velocity = Velocity(copy.deepcopy(online))
        if self.adversary is None:
            return velocity
        return JudgingScore(velocity, self.adversary.build())

    def players(self, now: Moment) -> tuple[str, ...]:
        """The fake score at every step, the generator at some."""
        return (FAKE, ONLINE) if (now.step + 1) % self.fake_steps == 0 else (FAKE,)

    def loss(self, player: str, nets: Nets, batch: Batch, now: Moment) -> Loss:
        """Losses of the samples in a player's turn."""
        teacher = self.guidance.teacher(nets)
        t = self.times.draw(len(batch), now, dtype=batch.x1.dtype).to(batch.x1.device).t
        t = t.clamp(teacher.domain.t_lo, teacher.domain.t_hi)
        x0 = now.rng.normal(*batch.x1.shape, dtype=batch.x1.dtype).to(batch.x1.device)
        condition = self.guidance.tell(batch.condition, batch, now)
        batch = replace(batch, condition=condition)
        if player == ONLINE:
            return self._generator_loss(nets, batch, now, x0, t)
        return self._fake_loss(nets, batch, now, x0, t)

    def _generator_loss(self, nets: Nets, batch: Batch, now: Moment, x0: Tensor, t: Tensor) -> Loss:
        made = nets.online.generate(batch.noise, batch.condition)
        with torch.set_grad_enabled(self.adversary is not None):
            x = self.path.at(x0, made, t).x
            v, features = self._evaluated(nets, x, t, batch)
        with torch.no_grad():
            fake = denoised(self.path, x, v, t)
            teacher = self.guidance.teacher(nets).velocity(x, t, batch.condition)
            real = denoised(self.path, x, teacher, t)
            step = rows_like(self.scale(made, real), made) * (fake - real)
            target = made - step
        terms = {"matching": 0.5 * sum_rows((made - target).square())}
        if self.adversary is not None:
            value = _judged(nets, features, x)
            terms["adversarial"] = self.adversary.generator(now) * self.adversary.loss.generator(
                value
            )
        return Loss(terms=terms, logs={"error": sum_rows((fake - real).square())}, times=t)

    def _fake_loss(self, nets: Nets, batch: Batch, now: Moment, x0: Tensor, t: Tensor) -> Loss:
        with torch.no_grad():
            x1 = nets.online.generate(batch.noise, batch.condition)
        x, u = self.path.at(x0, x1, t)
        v, features = self._evaluated(nets, x, t, batch)
        terms = {"fake": self.weighting(sum_rows((v - u).square()), t, t)}
        if self.adversary is not None:
            adversary, noised = self.adversary, self.path.at(x0, batch.x1, t).x

            def critic(x: Tensor) -> Tensor:
                return _judged(nets, self._evaluated(nets, x, t, batch)[1], x)

            real = critic(noised)
            loss = adversary.loss.critic(real, _judged(nets, features, x))
            loss = loss + adversary.penalty(critic, noised, real, now)
            terms["critic"] = adversary.critic(now) * loss
        return Loss(terms=terms, times=t)

    def _evaluated(
        self, nets: Nets, x: Tensor, t: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The fake score's velocity, and its features where a critic reads them."""
        score, names = nets.companions[FAKE], () if self.adversary is None else self.adversary.names
        velocity = score.velocity if isinstance(score, JudgingScore) else score
        assert isinstance(velocity, FlowMap), "the platform builds what needs declares"
        net = velocity.net if isinstance(velocity, Velocity) else velocity
        with features_of(net, names) as features:
            return velocity.velocity(x, t, batch.condition), features


def denoised(
    path: AbstractPath, x: Float[Tensor, " b *d"], v: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
) -> Float[Tensor, " b *d"]:
    """E[x1 | x] from a velocity: x + (1 - t) v on the linear path.

    Args:
        path: Interpolant between noise and data.
        x: Points on it.
        v: The marginal's velocity there.
        t: Their times.
    """
    at = path.coefficients(t)
    area = at.alpha * at.d_beta - at.d_alpha * at.beta
    return (rows_like(at.alpha, x) * v - rows_like(at.d_alpha, x) * x) / rows_like(area, x)


def _judged(nets: Nets, features: dict[str, Tensor], x: Tensor) -> Float[Tensor, " b"]:
    score = nets.companions[FAKE]
    assert isinstance(score, JudgingScore), "an adversary comes with its heads"
    value: Tensor = score.heads(features)
    return value.to(x.dtype)
