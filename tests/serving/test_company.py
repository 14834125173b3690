import pytest
import torch

from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.noise import draw_noise
from onestep.methods.core.ode import Dopri5, Heun
from onestep.methods.core.sampler import AbstractSampler, Jumps, Renoise
from onestep.serving.company import Company
from onestep.serving.walk import Asking, Question, Walk
from onestep.tests.serving.model import SHAPE, gaussian, unet

NET = unet()


def answer(question: Question) -> torch.Tensor:
    u: torch.Tensor = NET(question.x, question.s, question.t, question.condition)
    return u


def noise(sampler: AbstractSampler, n: int) -> torch.Tensor:
    return draw_noise(n, SHAPE, seed=n, draws=sampler.draws)


SAMPLERS = [
    Jumps(),
    Jumps(grid=UniformGrid(steps=3)),
    Renoise(grid=UniformGrid(steps=2)),
    Heun(grid=UniformGrid(steps=4)),
    Dopri5(rtol=1e-2, atol=1e-2),
]


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_samplers_of_every_kind_lead_where_they_lead_alone(rows: int) -> None:
    company: Company[int] = Company(rows=rows)
    for n, sampler in enumerate(SAMPLERS, start=1):
        company.add(n, Walk(sampler, Asking(domain=Domain()), noise(sampler, n), None))
    ends: dict[int, torch.Tensor] = {}
    forwards = 0
    while len(company):
        ends.update(company.advance(answer))
        forwards += 1
    for n, sampler in enumerate(SAMPLERS, start=1):
        alone = sampler.sample(NET, noise(sampler, n))
        torch.testing.assert_close(ends[n], alone, atol=1e-4, rtol=1e-4)
    questions = [n * (s.evaluations(Domain()) or 0) for n, s in enumerate(SAMPLERS, start=1)]
    assert forwards >= sum(questions) / rows


def test_a_forward_is_full_as_long_as_there_are_rows() -> None:
    sizes: list[int] = []

    def noting(question: Question) -> torch.Tensor:
        sizes.append(len(question))
        return answer(question)

    company: Company[int] = Company(rows=4)
    for n in (3, 3, 1):
        company.add(n, Walk(Jumps(), Asking(domain=Domain()), noise(Jumps(), n), None))
    ended = []
    while len(company):
        ended.append([key for key, _ in company.advance(noting)])
    assert sizes == [4, 3]
    assert ended == [[3], [1, 3]]


def test_a_sampler_refuses_the_domain_before_it_asks() -> None:
    with pytest.raises(ValueError, match="needs a map trained on the diagonal"):
        Walk(Heun(), Asking(domain=Domain(kind=DomainKind.FROM_NOISE)), noise(Heun(), 1), None)


def test_walks_under_way_leave_gradients_as_they_are() -> None:
    for mode in (True, False):
        with torch.set_grad_enabled(mode):
            steps = (Jumps(grid=UniformGrid(steps=n)) for n in (2, 3))
            walks = [Walk(one, Asking(domain=Domain()), noise(one, 2), None) for one in steps]
            while walks:
                for walk in walks:
                    assert torch.is_grad_enabled() is mode
                    assert walk.question is not None
                    walk.answer(torch.zeros_like(walk.question.x))
                    assert torch.is_grad_enabled() is mode
                walks = [walk for walk in walks if walk.question is not None]


def test_a_walk_that_is_left_half_way_leaves_gradients_as_they_are() -> None:
    sampler = Jumps(grid=UniformGrid(steps=2))
    walk = Walk(sampler, Asking(domain=Domain()), noise(sampler, 1), None)
    assert walk.question is not None
    del walk
    assert torch.is_grad_enabled()


def test_what_is_left_in_company_is_told_and_gone() -> None:
    company: Company[str] = Company(rows=1)
    for key in ("running", "waiting"):
        company.add(key, Walk(Jumps(), Asking(domain=Domain()), noise(Jumps(), 1), None))
    with pytest.raises(ZeroDivisionError):
        company.advance(lambda question: 1 / 0 * question.x)
    assert company.waiting == 1
    assert company.clear() == ["running", "waiting"]
    assert len(company) == 0


def test_the_walk_of_the_oracle_ends_at_its_law() -> None:
    oracle, sampler = gaussian(), Jumps(grid=UniformGrid(steps=2))
    walk = Walk(sampler, Asking(domain=Domain()), noise(sampler, 3), None)
    asked = 0
    while (question := walk.question) is not None:
        walk.answer(oracle(question.x, question.s, question.t, None))
        asked += 1
    assert asked == 2
    torch.testing.assert_close(walk.end, sampler.sample(oracle, noise(sampler, 3)))
