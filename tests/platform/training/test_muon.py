"""Muon with AdamW: one optimizer to the loop, exact when resumed."""

import copy

import torch
from torch import nn

from onestep.platform.build import build
from onestep.platform.configuration import compose
from onestep.platform.training.muon import MuonWithAdamW


def trained(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> float:
    loss = torch.tensor(0.0)
    for k in range(steps):
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(k))
        optimizer.zero_grad()
        loss = (net(x) - x.flip(1)).square().mean()
        loss.backward()
        optimizer.step()
    return loss.item()


def fresh() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 4))


def test_it_learns_and_every_parameter_moves() -> None:
    net = fresh()
    before = copy.deepcopy(net.state_dict())
    make = build(compose("train", ["optimizer=muon", "optimizer.lr=0.01"])["optimizer"], object)
    first = trained(net, make(list(net.parameters())), 1)  # type: ignore[operator]
    assert trained(net, make(list(net.parameters())), 200) < 0.1 * first  # type: ignore[operator]
    assert all(not torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_resumed_run_has_the_same_bits() -> None:
    whole = fresh()
    trained(whole, MuonWithAdamW(list(whole.parameters())), 1)
    net = fresh()
    optimizer = MuonWithAdamW(list(net.parameters()))
    trained(net, optimizer, 1)
    state = copy.deepcopy(optimizer.state_dict())
    other = copy.deepcopy(net)
    resumed = MuonWithAdamW(list(other.parameters()))
    resumed.load_state_dict(state)
    trained(net, optimizer, 5)
    trained(other, resumed, 5)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_learning_rate_of_a_group_reaches_both_halves() -> None:
    net = fresh()
    before = copy.deepcopy(net.state_dict())
    optimizer = MuonWithAdamW(list(net.parameters()))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    trained(net, optimizer, 3)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
