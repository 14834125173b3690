"""Pairs are made where the run trains, and are the same pairs."""

from pathlib import Path

import pytest
import torch

from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.nets.mlp import MLP
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.experiment import PairGeneration
from onestep.platform.training.pair_generation import generate_pairs


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
