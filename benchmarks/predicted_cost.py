"""Predicted cost of a step of every method, in passes of the network over the rows of a batch.

A backward pass is taken for two forward passes, a forward-mode derivative for two, a value and a
tangent. The passes are those that each method's docstring names under ``Cost``, at the middle of a
run and with the configuration that it ships.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final


@final
@dataclass(frozen=True, kw_only=True)
class Passes:
    """What a step does, each as a share of the rows.

    Attributes:
        trained: Forward and backward passes.
        through: Passes of a network that is held, forward, and backward to its input.
        plain: Forward passes without a graph.
        derivative: Forward-mode derivatives without a graph.
        kept: Forward-mode derivatives with their graph, and backward passes through it.
    """

    trained: float = 0.0
    through: float = 0.0
    plain: float = 0.0
    derivative: float = 0.0
    kept: float = 0.0

    @property
    def forwards(self) -> float:
        """The sum, in forward passes."""
        return (
            3.0 * self.trained
            + 2.0 * self.through
            + self.plain
            + 2.0 * self.derivative
            + 6.0 * self.kept
        )


@final
@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a method should cost.

    Attributes:
        passes: Passes of a step, given the share of rows off the diagonal.
        reason: What they are, and the cost that the paper's card gives in the same unit.
        allowed: Largest ratio of the measured cost to the predicted one.
        excess: Why it may be more than 15 % above; empty where it may not.
    """

    passes: Callable[[float], Passes]
    reason: str
    allowed: float = 1.15
    excess: str = ""

    def ratio(self, off: float) -> float:
        """Cost of a step over that of flow matching.

        Args:
            off: Share of rows off the diagonal.
        """
        return self.passes(off).forwards / Passes(trained=1.0).forwards


_WITH_GRAPH: Final = (
    "a derivative with its graph is counted as six forward passes and takes about ten: torch "
    "multiplies by the zero tangents of the weights as well, nine passes for six, and each "
    "element-wise layer and norm keeps its second derivative"
)


def _regression(reason: str) -> Prediction:
    return Prediction(passes=lambda off: Passes(trained=1.0), reason=reason)


def _neighbours() -> Prediction:
    return Prediction(
        passes=lambda off: Passes(trained=1.0, plain=1.0),
        reason="both neighbours, the later one without a graph; card 2F + B",
    )


PREDICTIONS: Final[Mapping[str, Prediction]] = {
    "flow_matching": _regression("one pass"),
    "edm": _regression("one pass; card F + B"),
    "ddpm": _regression("one pass; card F + B"),
    "reflow": _regression("one pass on stored pairs"),
    "improved_reflow": _regression("one pass on stored pairs"),
    "instaflow": _regression("one pass on stored pairs; the two terms that read features are off"),
    "slim_flow": _regression("one pass on stored pairs"),
    "neural_flow": _regression("one pass; the coupling's assignment is not counted"),
    "mean_flow": Prediction(
        passes=lambda off: Passes(trained=1.0, derivative=off),
        reason="a derivative off the diagonal; card 1.16 in the paper",
    ),
    "improved_mean_flow": Prediction(
        passes=lambda off: Passes(trained=1.0, plain=off, derivative=off),
        reason="the own velocity and a derivative off the diagonal; card one forward more",
    ),
    "alpha_flow": Prediction(
        passes=lambda off: Passes(trained=1.0, plain=off),
        reason="alpha between 0 and 1: one forward more off the diagonal; card + 1 forward",
    ),
    "soflow": Prediction(
        passes=lambda off: Passes(trained=1.0, plain=off),
        reason="one forward more off the diagonal, as mix is 1 and there is no guidance",
    ),
    "shortcut": Prediction(
        passes=lambda off: Passes(trained=1.0, plain=2.0 * off),
        reason="two tiles of the target off the diagonal",
    ),
    "self_distillation": Prediction(
        passes=lambda off: Passes(trained=1.0 - off, kept=off, plain=off),
        reason="Lagrangian: a derivative with its graph and a forward off the diagonal; the card's "
        "2.5 forwards count no backward pass, and the derivative as one and a half",
        allowed=1.85,
        excess=f"{_WITH_GRAPH}; and a quarter of 64 rows are 16, each of which takes more time "
        "than a row of a whole batch; of larger batches less",
    ),
    "flow_map_matching": Prediction(
        passes=lambda off: Passes(trained=1.0 - off, kept=off, through=off),
        reason="Lagrangian: a derivative with its graph, and a gradient through the teacher",
        allowed=1.65,
        excess=_WITH_GRAPH,
    ),
    "terminal_velocity_matching": Prediction(
        passes=lambda off: Passes(trained=1.0, kept=off, plain=off),
        reason="one velocity, a derivative with its graph, and a forward of the target",
        allowed=1.65,
        excess=_WITH_GRAPH,
    ),
    "continuous_consistency": Prediction(
        passes=lambda off: Passes(trained=1.0, derivative=1.0),
        reason="a derivative of all rows; card F (JVP 2F) + F + B",
    ),
    "align_your_flow": Prediction(
        passes=lambda off: Passes(trained=1.0, plain=1.0, derivative=1.0),
        reason="the teacher and a derivative; card two frozen forwards if guided, one derivative",
    ),
    "consistency_training": _neighbours(),
    "improved_consistency_training": _neighbours(),
    "easy_consistency_tuning": _neighbours(),
    "consistency_distillation": Prediction(
        passes=lambda off: Passes(trained=1.0, plain=3.0),
        reason="both neighbours and two of the teacher by Heun's rule; card 2F + B + 2 teacher",
    ),
    "truncated_consistency": Prediction(
        passes=lambda off: Passes(trained=1.0, plain=2.0),
        reason="both neighbours and the first stage; card 2F + B, and the first stage",
    ),
    "consistency_trajectory": Prediction(
        passes=lambda off: Passes(trained=2.0, through=1.0, plain=8.0),
        reason="a jump and a denoising pass, the average after the jump; without a graph a jump, "
        "the average and six of the teacher; card 3-5F + B + 2m teacher with m = 3",
    ),
    "progressive_distillation": Prediction(
        passes=lambda off: Passes(trained=1.0, plain=2.0),
        reason="two steps of the teacher; card F + B + 2 teacher",
    ),
    "flow_guided_distillation": Prediction(
        passes=lambda off: Passes(trained=2.0, plain=1.0),
        reason="pairs and guidance each a pass, and one of the other flow",
    ),
    "dmd2": Prediction(
        passes=lambda off: Passes(trained=1.0 + 0.2, plain=1.0 + 2.0 * 0.2),
        reason="each step a sample and a pass of the fake score; one step in five a pass of the "
        "generator, and one of each score; card G 3F + 2B, fake 5 x (F + B)",
    ),
    "flow_generator_matching": Prediction(
        passes=lambda off: Passes(trained=1.0 + 0.2, plain=1.0, through=2.0 * 0.2),
        reason="each step a sample and a pass of the fake velocity; one step in five a pass of the "
        "generator, and a gradient through both velocities",
    ),
}
"""By the name of the method."""
