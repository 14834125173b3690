"""Pairs are made where the run trains, and are the same pairs; guidance changes them as asked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import final

import pytest
import torch

from onestep.methods.core.autoguidance import Guided, Unconditional
from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.grid import UniformGrid
from onestep.methods.core.noise import draw_noise
from onestep.methods.core.ode import Heun
from onestep.methods.nets.mlp import MLP
from onestep.platform.data.digits import Digits
from onestep.platform.data.errors import DataNotFound
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.data.pairs import read_pairs
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


def test_the_noise_of_pairs_is_that_of_no_sample_of_their_seed(
    digits: Dataset, tmp_path: Path
) -> None:
    """A student would otherwise be judged on noise that it was trained on."""
    x0 = generate_pairs(digit_teacher(), digits, SETTINGS, tmp_path, lineage={}).generated.x0
    samples = draw_noise(len(x0), digits.shape, seed=SETTINGS.seed)[0]
    assert torch.cdist(x0.flatten(1), samples.flatten(1)).min() > 1.0


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
    plain = SETTINGS.lineage("digits/1", weights="def", data_digest="abc")
    assert "guidance" not in plain
    guided = replace(SETTINGS, guidance=2.0)
    said = guided.lineage("digits/1", weights="def", data_digest="abc")
    assert said == plain | {"guidance": 2.0}


def test_guidance_needs_labels(tmp_path: Path) -> None:
    dataset = EightGaussians(samples=128, held_out=64).load()
    teacher = MLP(shape=(2,), domain=Domain(kind=DomainKind.DIAGONAL), width=16, depth=1)
    with pytest.raises(ValueError, match=r"pairs\.guidance needs labelled data, got 2 and eight_"):
        generate_pairs(teacher, dataset, replace(SETTINGS, guidance=2.0), tmp_path, lineage={})
    with pytest.raises(ValueError, match=r"pairs\.guidance must be at least 0, got -1"):
        replace(SETTINGS, guidance=-1.0)


@final
class Interrupted(Exception):
    """The making of pairs is cut off."""


def interrupted_after(parts: int) -> Callable[[int, int], None]:
    """A counter that ends the making once so many batches are written."""
    seen = []

    def count(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == parts:
            raise Interrupted

    return count


def passes_of(net: MLP) -> list[int]:
    """Rows of the forward passes of a network from now on."""
    rows: list[int] = []
    net.register_forward_hook(lambda net, args, result: rows.append(len(args[0])))
    return rows


WITH_REAL = replace(SETTINGS, real=True, batch_size=500)  # 1 part of noise, 3 of data


def test_pairs_that_were_cut_off_are_made_from_there_and_are_the_same(
    digits: Dataset, tmp_path: Path
) -> None:
    whole = generate_pairs(digit_teacher(), digits, WITH_REAL, tmp_path / "whole", lineage={})
    teacher, folder = digit_teacher(), tmp_path / "pairs"
    rows = passes_of(teacher)
    for parts in (1, 3):
        with pytest.raises(Interrupted):
            generate_pairs(
                teacher, digits, WITH_REAL, folder, lineage={}, progress=interrupted_after(parts)
            )
    with pytest.raises(DataNotFound):
        read_pairs(folder)
    made = generate_pairs(teacher, digits, WITH_REAL, folder, lineage={})
    assert made.digest == read_pairs(folder).digest == whole.digest
    # Each part was made once: Heun's rule asks six times in three steps.
    assert sum(rows) == 6 * (24 + len(digits.train))
    names = [sorted(path.name for path in each.iterdir()) for each in (folder, tmp_path / "whole")]
    assert names[0] == names[1], "no part is left"


@pytest.mark.parametrize("change", ["lineage", "batch_size", "bytes"])
def test_a_part_that_is_altered_or_of_another_set_is_not_taken(
    change: str, digits: Dataset, tmp_path: Path
) -> None:
    teacher = digit_teacher()
    with pytest.raises(Interrupted):
        generate_pairs(
            teacher, digits, SETTINGS, tmp_path, lineage={}, progress=interrupted_after(2)
        )
    settings, lineage = SETTINGS, dict[str, str]()
    if change == "lineage":
        lineage = {"teacher": "digits/2"}
    elif change == "batch_size":
        settings = replace(SETTINGS, batch_size=12)
    else:
        for file in tmp_path.rglob("*.safetensors"):
            file.write_bytes(file.read_bytes()[:-1])
    rows = passes_of(teacher)
    generate_pairs(teacher, digits, settings, tmp_path, lineage=lineage)
    assert sum(rows) == 6 * 24
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


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
