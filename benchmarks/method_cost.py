"""Time and memory of a step of every method over one of flow matching: same network, same batch.

    python benchmarks/method_cost.py                          measure all, judge and write
    python benchmarks/method_cost.py --judge                  judge the stored numbers again
    python benchmarks/method_cost.py --only dmd2 mean_flow    measure some and print

A step is the one of training: pairing, losses of all players that move, backward pass, optimizer
and averages, in the middle of a run. Random networks of the same size stand for teachers, and noise
for the data. In each round every method takes its turn, right after a step of flow matching, and
its ratio is the median over rounds; a game's step is the mean over a cycle of its players. Memory
is what torch's allocator holds: between steps (weights, averages, teachers, optimizers), and the
most above that within a step. Results go to benchmarks/results/method_cost.json and to
docs/method_cost.md.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onestep.benchmarks import method_cost_page
from onestep.benchmarks.method_cost_page import BATCH
from onestep.benchmarks.predicted_cost import PREDICTIONS
from onestep.benchmarks.record import Bars, at_most, run
from onestep.methods.core.game import AbstractGame
from onestep.methods.core.record import Moment
from onestep.methods.core.rng import Rng
from onestep.methods.core.times import AbstractTimes
from onestep.platform.configuration import compose
from onestep.platform.experiment import Experiment
from onestep.platform.training.assembly import Learner, parts_of
from onestep.platform.training.learning import Learning
from onestep.platform.training.peak_memory import peak_bytes
from onestep.platform.training.place import Place
from onestep.platform.training.stand_in import stand_in

METHODS = sorted(
    path.stem for path in (Path(__file__).parents[1] / "methods/conf/method").glob("*.yaml")
)
BASE = "flow_matching"
STEPS = 1000
ROUNDS = 31
CPU = torch.device("cpu")
OVERRIDES = [
    "data=digits",
    "net=unet_digits",
    f"training.batch_size={BATCH}",
    f"training.samples={STEPS * BATCH}",
    "training.ema_half_lives=[20000]",
]


class Turn:
    """A method in the middle of a run."""

    def __init__(self, name: str) -> None:
        experiment = Experiment.from_dict(compose("train", [f"method={name}", *OVERRIDES]))
        learner = parts_of(experiment).learner
        self.name, self.off, self.cycle = name, off_share(learner), cycle_of(learner)
        self.learning = stand_in(experiment, Place())
        self.learning.step = STEPS // 2
        self.ratios: list[float] = []
        self.advance()  # the optimizer's state is there from now on

    def advance(self) -> None:
        for _ in range(self.cycle):
            self.learning.advance()

    def seconds(self) -> float:
        begin = time.perf_counter()
        self.advance()
        return (time.perf_counter() - begin) / self.cycle

    def held_bytes(self) -> int:
        tensors = {id(tensor): tensor for tensor in held(self.learning)}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

    def working_bytes(self) -> int:
        for optimizer in self.learning.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        return peak_bytes(self.advance, CPU)


def held(learning: Learning) -> Iterator[Tensor]:
    """What stays between steps."""
    nets = learning.nets
    modules = [nets.online, *nets.frozen.values(), *nets.companions.values()]
    for module in [*modules, *learning.averages.nets, *([nets.target] if nets.target else [])]:
        yield from module.parameters()
        yield from module.buffers()
    for optimizer in learning.optimizers.values():
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))


def middle(step: int = 0) -> Moment:
    return Moment(step=STEPS // 2 + step, total=STEPS, rng=Rng.seeded(0), batch_size=BATCH)


def off_share(learner: Learner) -> float:
    """Share of the rows off the diagonal, 1 for a method whose times are of another kind."""
    values = [getattr(learner, field.name) for field in fields(learner)]  # type: ignore[arg-type]
    times = [value for value in values if isinstance(value, AbstractTimes)]
    return len(times[0].draw(BATCH, middle()).off_rows) / BATCH if times else 1.0


def cycle_of(learner: Learner) -> int:
    """Steps after which the same players move again."""
    if not isinstance(learner, AbstractGame):
        return 1
    moves = [learner.players(middle(step)) for step in range(STEPS // 2)]
    return next(n for n in range(1, len(moves)) if moves[n:] == moves[:-n])


def measure(names: Sequence[str], rounds: int = ROUNDS) -> dict[str, Any]:
    base, turns = Turn(BASE), [Turn(name) for name in names]
    base_seconds: list[float] = []
    for _ in range(rounds):
        for turn in turns:
            seconds = base.seconds()
            base_seconds.append(seconds)
            turn.ratios.append(turn.seconds() / seconds)
    held_bytes, working_bytes = base.held_bytes(), base.working_bytes()
    rows = {}
    for turn in turns:
        prediction = PREDICTIONS[turn.name]
        rows[turn.name] = {
            "off_share": turn.off,
            "cycle": turn.cycle,
            "ratio": statistics.median(turn.ratios),
            "quartiles": statistics.quantiles(turn.ratios, n=4),
            "predicted": prediction.ratio(turn.off),
            "predicted_from": prediction.reason,
            "held_ratio": turn.held_bytes() / held_bytes,
            "working_ratio": turn.working_bytes() / working_bytes,
        }
        print(line(turn.name, rows[turn.name]), flush=True)
    return {
        "overrides": OVERRIDES,
        "rounds": rounds,
        "flow_matching_s": statistics.median(base_seconds),
        "held_bytes": held_bytes,
        "working_bytes": working_bytes,
        "methods": rows,
    }


def line(name: str, row: Mapping[str, Any]) -> str:
    over = row["ratio"] / row["predicted"]
    return (
        f"{name:<30} time {row['ratio']:5.2f}x, predicted {row['predicted']:5.2f}x ({over:4.2f})"
        f"   working {row['working_ratio']:5.2f}x   held {row['held_ratio']:5.2f}x"
    )


def bars(numbers: Mapping[str, Any]) -> Bars:
    found = []
    for name, row in numbers["methods"].items():
        prediction = PREDICTIONS[name]
        over = row["ratio"] / prediction.ratio(row["off_share"])
        found.append(at_most(over, prediction.allowed, method=name, excess=prediction.excess))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", nargs="+", choices=METHODS, metavar="METHOD")
    chosen, rest = parser.parse_known_args()
    if chosen.only:
        measure(chosen.only)
    else:
        sys.argv[1:] = rest
        run("method_cost", lambda: measure(METHODS), bars)
        method_cost_page.write()
