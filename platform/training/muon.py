"""Muon for the matrices of a network, AdamW for everything else, as one optimizer."""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import nn


@final
class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon on all matrices and AdamW on vectors, convolutions and the rest.

    Differs from the paper: Muon's authors leave embeddings, the first and the last layer to AdamW.
    Here a parameter is known by its shape alone, so every parameter of two dimensions is a matrix:
    label and token embeddings, positions, stem and head among them.

    Muon orthogonalises its update in bfloat16, so that the order of a sum matters: runs on
    different numbers of workers drift apart. Resuming is exact.

    Reference: Jordan et al. 2024, Muon; Liu et al. 2025, arXiv:2502.16982v1, for the matched
        learning rate.

    Args:
        params: Parameters of the network.
        lr: Learning rate, the same for both halves.
        betas: AdamW's averaging factors.
        momentum: Muon's averaging factor.
        weight_decay: Decay of both halves.
    """

    def __init__(
        self,
        params: list[nn.Parameter],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        params = list(params)
        matrices = [p for p in params if p.ndim == 2]
        others = [p for p in params if p.ndim != 2]
        # An empty group of parameters is refused by both.
        self._halves: list[torch.optim.Optimizer] = []
        if matrices:
            self._halves.append(
                torch.optim.Muon(
                    matrices,
                    lr=lr,
                    momentum=momentum,
                    weight_decay=weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if others:
            adamw = torch.optim.AdamW(
                others, lr=lr, betas=(betas[0], betas[1]), weight_decay=weight_decay
            )
            self._halves.append(adamw)
        super().__init__(params, {"lr": lr})
        # The groups of both halves are this optimizer's, so that a schedule reaches them.
        self.param_groups = [group for half in self._halves for group in half.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step of both halves.

        Args:
            closure: Not supported; the gradients are there already.
        """
        assert closure is None, "the platform computes gradients before the step"
        for half in self._halves:
            half.step()

    def state_dict(self) -> dict[str, Any]:
        """State of both halves."""
        return {"halves": [half.state_dict() for half in self._halves]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        for half, state in zip(self._halves, state_dict["halves"], strict=True):
            half.load_state_dict(state)
        self.param_groups = [group for half in self._halves for group in half.param_groups]
