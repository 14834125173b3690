"""The contract of methods has the power to refuse methods that break it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import pytest
import torch
from torch import Tensor

from onestep.methods.core.coupling import AbstractCoupling, IndependentCoupling
from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.method import AbstractMethod, Ema, Needs
from onestep.methods.core.path import LinearPath
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.core.schedule import Constant
from onestep.methods.core.shape import sum_rows
from onestep.tests.methods.contract import Elsewhere, Exact, MethodContract, Order
from onestep.tests.methods.exactness import ORACLE, WRONG, Setting, assert_exactness


def plain(error: Tensor, nets: Nets, x: Tensor, t: Tensor) -> Tensor:
    del nets, x, t
    return error


def batch_normalised(error: Tensor, nets: Nets, x: Tensor, t: Tensor) -> Tensor:
    del nets, x, t
    return error / error.detach().mean()


def through_the_target(error: Tensor, nets: Nets, x: Tensor, t: Tensor) -> Tensor:
    assert nets.target is not None
    return error + sum_rows(nets.target.velocity(x, t).square())


def globally_random(error: Tensor, nets: Nets, x: Tensor, t: Tensor) -> Tensor:
    del nets, x, t
    return error * torch.rand(len(error), dtype=error.dtype)


def reduced(error: Tensor, nets: Nets, x: Tensor, t: Tensor) -> Tensor:
    del nets, x, t
    return error.mean()


Defect = Callable[[Tensor, Nets, Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True, kw_only=True)
class Defective(AbstractMethod):
    """Flow matching at uniform times with a defect, and a target that is off by a gap.

    Attributes:
        defect: What becomes of the errors.
        sign: Sign of the target.
        gap: What is added to the target.
        share: Share of the error that a second term has.
    """

    defect: Defect = plain
    sign: float = 1.0
    gap: float = 0.0
    share: float | None = None
    coupling: AbstractCoupling = IndependentCoupling()

    @property
    def domain(self) -> Domain:
        return Domain(kind=DomainKind.DIAGONAL)

    @property
    def needs(self) -> Needs:
        return Needs(target=Ema(decay=Constant(value=0.9)))

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        t = now.rng.uniform(len(batch), dtype=batch.x1.dtype)
        x, v = LinearPath().at(batch.noise, batch.x1, t)
        error = sum_rows((nets.online.velocity(x, t) - self.sign * v - self.gap).square())
        terms = {"error": self.defect(error, nets, x, t)}
        if self.share is not None:
            terms["second"] = self.share * error
        return Loss(terms=terms)


SUITE = MethodContract()
Check = Callable[..., None]


@pytest.mark.parametrize(
    ("defect", "check"),
    [
        (batch_normalised, MethodContract.test_samples_do_not_talk_once_paired),
        (batch_normalised, MethodContract.test_how_shards_lie_on_workers_changes_nothing),
        (globally_random, MethodContract.test_the_same_moment_gives_the_same_loss),
        (globally_random, MethodContract.test_the_loss_draws_no_global_random_numbers),
        (
            through_the_target,
            MethodContract.test_gradients_reach_the_online_net_and_the_companions_alone,
        ),
    ],
)
def test_a_defect_is_noticed(defect: Defect, check: Check) -> None:
    for method, passes in ((Defective(), True), (Defective(defect=defect), False)):
        case = SUITE.nets(method, (2,)), SUITE.batch(16, (2,), torch.float64)
        if passes:
            check(SUITE, method, case)
        else:
            with pytest.raises(AssertionError):
                check(SUITE, method, case)


def test_a_reduced_loss_is_noticed() -> None:
    SUITE.test_the_losses_are_finite_and_one_for_each_sample(Defective())
    with pytest.raises(AssertionError):
        SUITE.test_the_losses_are_finite_and_one_for_each_sample(Defective(defect=reduced))


def test_a_wrong_sign_is_not_exact() -> None:
    assert_exactness(Exact(), Defective())
    with pytest.raises(AssertionError, match="z = "):
        assert_exactness(Exact(), Defective(sign=-1.0))


def test_a_control_without_power_is_noticed() -> None:
    with pytest.raises(AssertionError, match="the negative control has z = "):
        assert_exactness(Exact(control=Defective()), Defective())


def test_a_term_that_teaches_nothing_is_noticed_beside_one_that_does() -> None:
    assert_exactness(Exact(), Defective(share=0.5))
    with pytest.raises(AssertionError, match=r"the negative control has z = 0\.0 only"):
        assert_exactness(Exact(), Defective(share=0.0))


def test_a_minimum_elsewhere_is_not_the_oracle() -> None:
    """The method sees another Gaussian's data than those it is held against."""
    setting = Setting(data=ORACLE)
    with pytest.raises(AssertionError):
        assert_exactness(Elsewhere(minimiser=WRONG, setting=setting), Defective())
    with pytest.raises(AssertionError, match="negative control"):
        assert_exactness(Elsewhere(minimiser=ORACLE, setting=setting), Defective())


LINEAR = Order(
    order=1.0,
    gaps=(0.2, 0.1),
    methods=(Defective(gap=0.2), Defective(gap=0.1)),
    control=(Defective(sign=-1.0, gap=0.2), Defective(sign=-1.0, gap=0.1)),
    reference=Defective(),
)
"""The gradient is linear in what the target is off by."""


def test_a_wrong_order_is_noticed() -> None:
    assert_exactness(LINEAR, Defective())
    with pytest.raises(AssertionError, match=r"slope 1\.00"):
        assert_exactness(replace(LINEAR, order=2.0), Defective())


def test_a_control_of_the_same_order_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"the negative control has slope 1\.00"):
        assert_exactness(replace(LINEAR, control=LINEAR.methods), Defective())


def test_a_reference_with_a_bias_of_its_own_is_noticed() -> None:
    """Subtracted, it would hide a bias that both have."""
    shifted = (Defective(gap=1.2), Defective(gap=1.1))
    hidden = replace(LINEAR, methods=shifted, reference=Defective(gap=1.0))
    with pytest.raises(AssertionError, match="the reference has a bias of its own"):
        assert_exactness(hidden, Defective())


@pytest.mark.parametrize("reference", [None, Defective()], ids=["noise", "no noise"])
def test_an_order_without_a_bias_is_noticed(reference: AbstractMethod | None) -> None:
    unbiased = replace(LINEAR, methods=(Defective(), Defective()), reference=reference)
    with pytest.raises(AssertionError, match="drown in their noise"):
        assert_exactness(unbiased, Defective())
