"""Every method whose rows may lie on the diagonal refuses a weight that has none for them."""

from dataclasses import replace
from typing import Any, Final

import pytest
import torch

from onestep.methods.align_your_flow import AlignYourFlow
from onestep.methods.alpha_flow import AlphaFlow
from onestep.methods.consistency_trajectory import ConsistencyTrajectory
from onestep.methods.core.gap_times import ShortenedTimes
from onestep.methods.core.length_weighting import LengthWeighting
from onestep.methods.core.noise_weighting import DataWeighting, InverseGap
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.core.times import SortedTimes
from onestep.methods.core.weighting import (
    AbstractWeighting,
    AdaptivePower,
    DenoiserWeighting,
    TruncatedSnr,
    Unweighted,
)
from onestep.methods.ddpm import DDPM
from onestep.methods.dmd2 import DMD2
from onestep.methods.edm import EDM
from onestep.methods.flow_map_matching import FlowMapMatching
from onestep.methods.flow_matching import FlowMatching
from onestep.methods.improved_mean_flow import ImprovedMeanFlow
from onestep.methods.improved_reflow import ImprovedReFlow
from onestep.methods.mean_flow import MeanFlow
from onestep.methods.reflow import ReFlow
from onestep.methods.self_distillation import SelfDistillation
from onestep.methods.shortcut import Shortcut
from onestep.methods.slim_flow import SlimFlow
from onestep.methods.soflow import SoFlow
from onestep.methods.terminal_velocity_matching import TerminalVelocityMatching

HALF: Final = SortedTimes(diagonal=Constant(value=0.5))
NONE: Final = SortedTimes(diagonal=Constant(value=0.0))
FREE: Final = (
    AlignYourFlow(weighting=Unweighted()),
    AlphaFlow(),
    FlowMapMatching(),
    ImprovedMeanFlow(),
    MeanFlow(),
    SoFlow(),
)
"""Methods whose times may have rows on the diagonal or none."""
ALWAYS: Final = (
    ConsistencyTrajectory(),
    DDPM(),
    DMD2(),
    EDM(),
    FlowMatching(),
    ImprovedReFlow(),
    ReFlow(),
    SelfDistillation(),
    Shortcut(),
    SlimFlow(),
    TerminalVelocityMatching(),
)
BLIND: Final = (DataWeighting(), InverseGap(power=0.5), LengthWeighting(power=1.0))


def named(method: Any) -> str:
    return type(method).__name__


@pytest.mark.parametrize("weighting", BLIND, ids=named)
@pytest.mark.parametrize(
    "method", [*(replace(one, times=HALF) for one in FREE), *ALWAYS], ids=named
)
def test_a_weight_that_has_none_for_the_diagonal_is_refused(
    method: Any, weighting: AbstractWeighting
) -> None:
    with pytest.raises(ValueError, match=r"rows with s = t need a finite weight above 0"):
        replace(method, weighting=weighting)


@pytest.mark.parametrize("weighting", BLIND, ids=named)
@pytest.mark.parametrize("method", FREE, ids=named)
def test_jumps_that_begin_without_a_length_lie_on_the_diagonal(
    method: Any, weighting: AbstractWeighting
) -> None:
    def growing(start: float) -> ShortenedTimes:
        return ShortenedTimes(times=NONE, reach=Linear(start=start, end=1.0))

    found = replace(method, times=growing(0.1), weighting=weighting)
    assert found.weighting == weighting
    with pytest.raises(ValueError, match=r"rows with s = t need a finite weight above 0"):
        replace(found, times=growing(0.0))


@pytest.mark.parametrize("weighting", BLIND, ids=named)
@pytest.mark.parametrize("method", FREE, ids=named)
def test_it_is_taken_where_no_row_lies_there(method: Any, weighting: AbstractWeighting) -> None:
    assert replace(method, times=NONE, weighting=weighting).weighting == weighting


@pytest.mark.parametrize(
    "weighting",
    [
        AdaptivePower(),
        DataWeighting(power=0.0),
        DenoiserWeighting(),
        InverseGap(power=0.0),
        LengthWeighting(power=0.0),
        TruncatedSnr(),
        Unweighted(),
        *BLIND,
    ],
    ids=str,
)
def test_a_weighting_tells_whether_it_weighs_the_diagonal(weighting: AbstractWeighting) -> None:
    t = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    weights = weighting(torch.ones_like(t), t, t)
    assert weighting.weighs_diagonal == bool(((weights > 1e-3) & (weights < 1e3)).all())
