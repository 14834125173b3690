"""Counts of methods and of their parts are whole numbers."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from onestep.methods.consistency_trajectory import TrajectoryTimes
from onestep.methods.core.clock_grid import ClockGrid
from onestep.methods.core.diffusion_clock import DiscreteClock, DiscreteCosineClock
from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.global_ot import GlobalOTCoupling
from onestep.methods.core.grid import HalvedEndGrid, KarrasGrid, UniformGrid
from onestep.methods.core.learned_weighting import LearnedWeighting
from onestep.methods.core.loom import Loom
from onestep.methods.core.matching import ProgressiveMatching
from onestep.methods.core.tiling import EqualTiles
from onestep.methods.core.times import DyadicTimes, TilingTimes
from onestep.methods.dmd2 import DMD2
from onestep.methods.flow_generator_matching import FlowGeneratorMatching
from onestep.methods.progressive_distillation import ProgressiveDistillation

COUNTED: Final[list[tuple[Callable[..., Any], str]]] = [
    (ClockGrid, "steps"),
    (DiscreteClock, "levels"),
    (DiscreteCosineClock, "levels"),
    (DyadicTimes, "steps"),
    (EqualTiles, "count"),
    (GlobalOTCoupling, "block"),
    (GlobalOTCoupling, "seed"),
    (KarrasGrid, "steps"),
    (LearnedWeighting, "waves"),
    (DMD2, "fake_steps"),
    (FlowGeneratorMatching, "fake_steps"),
    (HalvedEndGrid, "steps"),
    (Loom, "caches"),
    (Loom, "seed"),
    (ProgressiveDistillation, "pieces"),
    (ProgressiveMatching, "count"),
    (TilingTimes, "steps"),
    (TrajectoryTimes, "longest"),
    (TrajectoryTimes, "steps"),
    (partial(Domain, kind=DomainKind.TILING), "steps"),
    (UniformGrid, "steps"),
]


@pytest.mark.parametrize(("build", "name"), COUNTED)
def test_a_count_that_is_not_whole_is_refused(build: Callable[..., Any], name: str) -> None:
    assert partial(build, **{name: 4})()
    with pytest.raises(ValueError, match=r"must be a whole number, got 2\.5$"):
        build(**{name: 2.5})
