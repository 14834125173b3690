"""Pairs are made where the run trains, and are the same pairs; guidance changes them as asked."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onestep.methods.core.autoguidance import Guided, Unconditional
from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.ode import Heun
from onestep.methods.nets.mlp import MLP
from onestep.platform.data.digits import Digits
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.data.source import Dataset
from onestep.platform.experiment import PairGeneration
from onestep.platform.training.pair_generation import generate_pairs

SETTINGS = PairGeneration(count=24, steps=3, batch_size=10, real=False)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return Digits().load()


def digit_teacher() -> MLP:
    """A conditional velocity with random weights, in its last layer too."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        domain = Domain(kind=DomainKind.DIAGONAL)
        net = MLP(shape=(1, 8, 8), domain=domain, classes=10, width=16, depth=1, embedding_width=8)
        torch.nn.init.normal_(net.head.weight, std=0.3)
    return net.eval().requires_grad_(False)


def test_guidance_one_makes_the_plain_pairs_bit_for_bit(digits: Dataset, tmp_path: Path) -> None:
    teacher = digit_teacher()
    made = generate_pairs(teacher, digits, SETTINGS, tmp_path, lineage={}).generated
    assert made.condition is not None
    solver = Heun(grid=UniformGrid(steps=3))
    for rows in (slice(0, 10), slice(10, 20), slice(20, 24)):
        plain = solver.sample(teacher, made.x0[rows][None], made.condition[rows])
        assert torch.equal(made.x1[rows], plain)


def test_guided_pairs_are_those_of_the_guided_flow(digits: Dataset, tmp_path: Path) -> None:
    teacher = digit_teacher()
    plain = generate_pairs(teacher, digits, SETTINGS, tmp_path / "plain", lineage={}).generated
    settings = replace(SETTINGS, guidance=3.0)
    made = generate_pairs(teacher, digits, settings, tmp_path / "guided", lineage={}).generated
    assert made.condition is not None
    assert plain.condition is not None
    assert torch.equal(made.x0, plain.x0)
    assert made.condition.label is not None
    assert plain.condition.label is not None
    assert torch.equal(made.condition.label, plain.condition.label)
    assert (made.x1 - plain.x1).abs().max() > 1e-3
    guided = Guided(teacher, Unconditional(teacher), scale=3.0)
    solver = Heun(grid=UniformGrid(steps=3))
    expected = solver.sample(guided, made.x0[None], made.condition)
    torch.testing.assert_close(made.x1, expected, atol=1e-5, rtol=1e-5)


def test_data_are_taken_back_by_the_guided_flow_too(digits: Dataset, tmp_path: Path) -> None:
    teacher = digit_teacher()
    settings = replace(SETTINGS, count=1, real=True, guidance=3.0, batch_size=500)
    real = generate_pairs(teacher, digits, settings, tmp_path, lineage={}).real
    guided = Guided(teacher, Unconditional(teacher), scale=3.0)
    assert real.condition is not None
    expected = Heun(grid=UniformGrid(steps=3)).invert(
        guided, real.x1[:8], real.condition[slice(0, 8)]
    )
    torch.testing.assert_close(real.x0[:8], expected, atol=1e-4, rtol=1e-4)


def test_the_lineage_of_pairs_says_how_they_were_guided() -> None:
    plain = SETTINGS.lineage("digits/1", "abc")
    assert "guidance" not in plain
    assert replace(SETTINGS, guidance=2.0).lineage("digits/1", "abc") == plain | {"guidance": 2.0}


def test_guidance_needs_labels(tmp_path: Path) -> None:
    dataset = EightGaussians(samples=128, held_out=64).load()
    teacher = MLP(shape=(2,), domain=Domain(kind=DomainKind.DIAGONAL), width=16, depth=1)
    with pytest.raises(ValueError, match=r"pairs\.guidance needs labelled data, got 2 and eight_"):
        generate_pairs(teacher, dataset, replace(SETTINGS, guidance=2.0), tmp_path, lineage={})
    with pytest.raises(ValueError, match=r"pairs\.guidance must be at least 0, got -1"):
        replace(SETTINGS, guidance=-1.0)


@pytest.mark.gpu
def test_pairs_made_on_a_gpu_are_those_made_on_the_processor(tmp_path: Path) -> None:
    torch.manual_seed(1)
    domain = Domain(kind=DomainKind.DIAGONAL)
    teacher = MLP(shape=(2,), domain=domain, width=16, depth=1, embedding_width=8)
    teacher = teacher.eval().requires_grad_(False)
    dataset = EightGaussians(samples=128, held_out=64).load()
    settings = PairGeneration(count=48, steps=3, batch_size=40)
    made = {
        device: generate_pairs(
            teacher, dataset, settings, tmp_path / device, lineage={}, device=device
        )
        for device in ("cpu", "cuda")
    }
    assert next(teacher.parameters()).is_cuda
    for kind in ("generated", "real"):
        ours, theirs = (getattr(made[device], kind) for device in ("cuda", "cpu"))
        assert not ours.x0.is_cuda
        torch.testing.assert_close(ours.x0, theirs.x0, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.x1, theirs.x1, rtol=1e-4, atol=1e-4)
