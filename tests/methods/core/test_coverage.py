"""Which laws of times a method learns from; its domain promises no more than they cover."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from onestep.methods.align_your_flow import AlignYourFlow
from onestep.methods.alpha_flow import AlphaFlow, Shift
from onestep.methods.core.alignment import LagrangianAlignment
from onestep.methods.core.coupling import MinibatchOTCoupling
from onestep.methods.core.flow_map import Domain, DomainKind
from onestep.methods.core.gap_times import GapTimes, ShortenedTimes
from onestep.methods.core.matching import DirectMatching, EulerianMatching, ProgressiveMatching
from onestep.methods.core.method import AbstractLearner
from onestep.methods.core.pair_times import GridTimes, RatioTimes
from onestep.methods.core.path import VariancePreservingPath
from onestep.methods.core.rule import Eulerian, Lagrangian, Progressive
from onestep.methods.core.sampler_choice import sampler_for
from onestep.methods.core.schedule import Constant, Linear
from onestep.methods.core.start_end_times import StartEndTimes
from onestep.methods.core.tiling import TwoTiles
from onestep.methods.core.time_law import Uniform
from onestep.methods.core.times import (
    AbstractTimes,
    DiagonalTimes,
    DyadicTimes,
    FromNoiseTimes,
    SortedTimes,
    TilingTimes,
    ToDataTimes,
)
from onestep.methods.core.weighting import Unweighted
from onestep.methods.flow_map_matching import FlowMapMatching
from onestep.methods.improved_mean_flow import ImprovedMeanFlow
from onestep.methods.mean_flow import MeanFlow
from onestep.methods.neural_flow import NeuralFlow
from onestep.methods.self_distillation import SelfDistillation
from onestep.methods.shortcut import Shortcut
from onestep.methods.soflow import SoFlow
from onestep.methods.terminal_velocity_matching import TerminalVelocityMatching

NEVER, ALWAYS = Constant(value=0.0), Constant(value=1.0)
LAWS: Final[dict[str, AbstractTimes]] = {
    "diagonal": DiagonalTimes(),
    "only the diagonal": SortedTimes(diagonal=ALWAYS),
    "triangle": SortedTimes(),
    "gaps": GapTimes(diagonal=Constant(value=0.5)),
    "start and end": StartEndTimes(),
    "growing": ShortenedTimes(reach=Linear(start=0.1, end=1.0)),
    "open triangle": SortedTimes(diagonal=NEVER),
    "open growing": ShortenedTimes(
        times=SortedTimes(diagonal=NEVER), reach=Linear(start=0.0, end=1.0)
    ),
    "to data": ToDataTimes(),
    "from noise": FromNoiseTimes(law=Uniform()),
    "one jump": FromNoiseTimes(),
    "tiling": TilingTimes(steps=4),
    "dyadic": DyadicTimes(steps=8),
    "dyadic growing": ShortenedTimes(times=DyadicTimes(steps=8)),
    "dyadic without diagonal": DyadicTimes(diagonal=NEVER),
    "short": ShortenedTimes(reach=Constant(value=0.5)),
    "neighbours on a grid": GridTimes(),
    "neighbours by ratio": RatioTimes(),
}
COVERED: Final[dict[str, Domain | None]] = {
    **dict.fromkeys(("diagonal", "only the diagonal"), Domain(kind=DomainKind.DIAGONAL)),
    **dict.fromkeys(("triangle", "gaps", "start and end", "growing"), Domain()),
    **dict.fromkeys(("open triangle", "open growing"), Domain()),
    "to data": Domain(kind=DomainKind.TO_DATA),
    "from noise": Domain(kind=DomainKind.FROM_NOISE),
    "one jump": Domain(kind=DomainKind.TILING, steps=1),
    "tiling": Domain(kind=DomainKind.TILING, steps=4),
    **dict.fromkeys(("dyadic", "dyadic growing"), Domain(kind=DomainKind.GRID, steps=8)),
    "dyadic without diagonal": None,
    "short": None,
    "neighbours on a grid": None,
    "neighbours by ratio": None,
}
VELOCITY: Final = frozenset({"diagonal", "only the diagonal"})
ANCHORED: Final = VELOCITY | {"triangle", "gaps", "start and end", "growing"}
BOTH: Final = ANCHORED | {"open triangle", "open growing"}
DYADIC: Final = frozenset({"dyadic", "dyadic growing"})
ALL: Final = frozenset(name for name, domain in COVERED.items() if domain is not None)
Make = Callable[[AbstractTimes], AbstractLearner]
TAKEN: Final[dict[str, tuple[Make, frozenset[str]]]] = {
    "mean flow": (lambda times: MeanFlow(times=times), BOTH | {"to data"}),
    "alpha flow": (lambda times: AlphaFlow(times=times), BOTH | {"to data"}),
    "alpha flow by its jump": (
        lambda times: AlphaFlow(times=times, alpha=Constant(value=0.5), shift=Shift.JUMP),
        ANCHORED,
    ),
    "improved mean flow": (lambda times: ImprovedMeanFlow(times=times), BOTH),
    "soflow": (lambda times: SoFlow(times=times), BOTH | {"to data"}),
    "shortcut": (lambda times: Shortcut(times=times), ANCHORED | DYADIC),
    "lsd": (lambda times: SelfDistillation(times=times, rule=Lagrangian()), ANCHORED),
    "esd": (lambda times: SelfDistillation(times=times, rule=Eulerian()), ANCHORED),
    "psd": (lambda times: SelfDistillation(times=times, rule=Progressive()), ANCHORED | DYADIC),
    "psd off the grid": (
        lambda times: SelfDistillation(times=times, rule=Progressive(tiling=TwoTiles())),
        ANCHORED,
    ),
    "lmd": (lambda times: FlowMapMatching(times=times), BOTH | {"from noise"}),
    "emd": (
        lambda times: FlowMapMatching(times=times, matching=EulerianMatching()),
        BOTH | {"to data"},
    ),
    "fmm": (lambda times: FlowMapMatching(times=times, matching=DirectMatching()), BOTH),
    "pfmm": (lambda times: FlowMapMatching(times=times, matching=ProgressiveMatching()), ALL),
    "tvm": (lambda times: TerminalVelocityMatching(times=times), BOTH | {"from noise"}),
    "ayf-emd": (
        lambda times: AlignYourFlow(times=times, weighting=Unweighted()),
        BOTH | {"to data"},
    ),
    "ayf-lmd": (
        lambda times: AlignYourFlow(
            times=times, alignment=LagrangianAlignment(), weighting=Unweighted()
        ),
        BOTH | {"from noise"},
    ),
}


@pytest.mark.parametrize("law", LAWS)
def test_a_law_says_what_it_covers(law: str) -> None:
    assert LAWS[law].covers == COVERED[law]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", TAKEN)
def test_a_method_promises_what_its_times_cover_or_refuses_them(name: str, law: str) -> None:
    make, taken = TAKEN[name]
    if law in taken:
        domain = make(LAWS[law]).domain
        assert domain == COVERED[law]
    else:
        with pytest.raises(ValueError, match=f"got .*{type(LAWS[law]).__name__}"):
            make(LAWS[law])


def test_the_sentence_says_what_is_covered_and_what_could_be() -> None:
    with pytest.raises(
        ValueError,
        match=r"^mean flow learns the jumps of a law of times that covers one of diagonal, "
        r"to_data, triangle: got method\.times FromNoiseTimes, which covers tiling$",
    ):
        MeanFlow(times=FromNoiseTimes())
    with pytest.raises(ValueError, match=r"got method\.times GridTimes, which covers no domain$"):
        MeanFlow(times=GridTimes())


def test_four_jumps_of_a_map_that_learned_those_to_the_data_begin_at_noise_again() -> None:
    sampler = sampler_for(MeanFlow(times=ToDataTimes()).domain, 4)
    assert sampler is not None
    assert type(sampler).__name__ == "Renoise"
    assert type(sampler_for(MeanFlow().domain, 4)).__name__ == "Jumps"


@pytest.mark.parametrize("times", [SortedTimes(), ToDataTimes()], ids=["any", "to the data"])
def test_a_map_says_whether_its_noise_was_paired(times: AbstractTimes) -> None:
    assert not MeanFlow(times=times).domain.has_paired_noise
    assert MeanFlow(times=times, coupling=MinibatchOTCoupling()).domain.has_paired_noise


def test_a_range_ends_where_the_velocity_does_unless_jumps_end_at_the_data() -> None:
    path = VariancePreservingPath()
    assert MeanFlow(path=path).domain == Domain(t_hi=path.t_hi, path=path.name)
    to_data = MeanFlow(path=path, times=ToDataTimes()).domain
    assert to_data == Domain(kind=DomainKind.TO_DATA, path=path.name)
    assert to_data.admits(0.0, 1.0)


def test_a_neural_flow_of_one_jump_promises_that_one() -> None:
    assert NeuralFlow().domain == Domain(kind=DomainKind.FROM_NOISE)
    whole = replace(NeuralFlow(), times=FromNoiseTimes()).domain
    assert whole.admits(0.0, 1.0)
    assert not whole.admits(0.0, 0.5)
