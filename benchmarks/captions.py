"""Whether one step makes what its caption asks for: python benchmarks/captions.py [--judge].

The recipe stages=captioned_digits_instaflow is trained at less than half of its own length: a
teacher, a reflow on its guided pairs, and one step distilled from that. The classifier of the
evaluation then says how often a sample is the digit and the shade of its caption and, as a control,
how often it is when the captions are dealt out anew. Results go to benchmarks/results/captions.json
and docs/captions.md; with --judge nothing is trained and the stored numbers are judged again.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from onestep.benchmarks.recipes import TRAINING, Made, Workshop, digest, sequence
from onestep.benchmarks.record import DOCS, Bars, at_least, at_most, run
from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import FlowMap
from onestep.platform.data.captioned_digits import CaptionedDigits
from onestep.platform.evaluation.agreement import ClassAgreement
from onestep.platform.evaluation.benchmark import GAUSSIAN, Benchmark
from onestep.platform.evaluation.sampling import draw_samples, samplers_at
from onestep.platform.evaluation.table import markdown_row
from onestep.platform.registry.model import load_flow_map

NAME: Final = "captions"
RECIPE: Final = "instaflow"
DATASET: Final = "captioned_digits"
SHORT: Final = (
    "training.samples=100000",
    "training.batch_size=128",
    "pairs.count=5000",
    "pairs.steps=12",
    "evaluation.nfes=[1]",
)
STEP: Final = "step"
"""The stage that makes an image in one step."""
AGREEMENT: Final = "eval/class_agreement"
ACCURACY: Final = "eval/1nn_accuracy"
LEAST: Final = 0.8
"""Share of samples that are what their caption says."""
MOST_SHUFFLED: Final = 0.1
"""The same with the captions of others; chance is one in twenty."""
PAGE: Final = DOCS / "captions.md"
HEAD: Final = """# Captions

Written by `python benchmarks/captions.py` from
[benchmarks/results/captions.json](../benchmarks/results/captions.json).

`stages=captioned_digits_instaflow` is trained here at less than half of its own length: a teacher,
a reflow on its guided pairs, and one step distilled from that. All are asked by words alone, such
as *a dark seven* or *three on black*; ten digits in two shades are {classes} classes, so that
chance is {chance:.2f}. The classifier of the evaluation, which is right on {accuracy:.1%} of the
held-out digits, says what a sample is.

"""
TAIL: Final = """
*Its caption*: share of samples of one network evaluation that are the digit and the shade that
their captions ask for. *The caption of another*: the same noise with the captions dealt out anew;
what is counted is still the caption that was dealt away. *1-NN*: accuracy with which a nearest
neighbour tells the samples from data, where 0.5 is best. *Seconds*: processor time of the training
on one thread; *pairs*: of making its pairs.

What is proved here is that words steer one step, and not that its images are good: trained as
briefly as this, no stage comes near a Gaussian per class by 1-NN. One step of a velocity, as the
teacher's, is the mean of the data of its caption: it can be the digit that was asked for, and is no
sample. Agreement cannot tell these apart, 1-NN does.
"""


def agreement(
    benchmark: Benchmark, flow_map: FlowMap, *, told: Condition, asked: torch.Tensor
) -> float:
    """Share of samples of one evaluation in which the classifier sees given classes.

    Args:
        benchmark: The yardstick, whose classifier decides.
        flow_map: The map.
        told: What each sample is told.
        asked: The class that is looked for in it.
    """
    ((_, sampler),) = samplers_at(flow_map.domain, (1,))
    x = draw_samples(
        flow_map,
        sampler,
        n=len(asked),
        shape=benchmark.dataset.shape,
        seed=benchmark.seed,
        condition=told,
    )
    seen = benchmark.space.populate(x, label=asked)
    return round(ClassAgreement().compute(seen, benchmark.reference)[AGREEMENT], 4)


def measure_stage(made: Made, benchmark: Benchmark, workshop: Workshop) -> dict[str, Any]:
    """What a stage makes of its captions, and of those of others."""
    flow_map, _ = load_flow_map(workshop.registry, made.trained.reference)
    told, label = benchmark.asked, benchmark.reference.held_out.label
    assert told is not None
    assert label is not None
    asked = label.repeat(benchmark.draws)
    deal = torch.randperm(len(asked), generator=torch.Generator().manual_seed(0))
    accuracy = made.trained.report.find(ACCURACY, nfe=1)
    return {
        "core_s": {name: round(seconds, 1) for name, seconds in made.core_s.items()},
        "agreement": agreement(benchmark, flow_map, told=told, asked=asked),
        "shuffled": agreement(benchmark, flow_map, told=told[deal], asked=asked),
        "accuracy": round(accuracy.value, 4),
        "gaussian": round(accuracy.baselines[GAUSSIAN], 4),
    }


def measure() -> dict[str, Any]:
    """Train the recipe and judge each of its stages."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        made = workshop.make(sequence(RECIPE, SHORT, dataset=DATASET).stages)
        dataset = CaptionedDigits().load()
        benchmark = Benchmark.prepare(dataset, home=Path(folder))
        return {
            "digest": digest(RECIPE, SHORT, dataset=DATASET),
            "classes": dataset.classes,
            "classifier_accuracy": benchmark.space.accuracy,
            "floor": benchmark.floors[AGREEMENT],
            "stages": {
                name: measure_stage(each, benchmark, workshop) for name, each in made.items()
            },
        }


def bars(numbers: Mapping[str, Any]) -> Bars:
    """What has to be seen of the one step: its captions decide, and those of others do not."""
    step = numbers["stages"][STEP]
    return [
        at_least(step["agreement"], LEAST, number="agreement"),
        at_most(step["shuffled"], MOST_SHUFFLED, number="shuffled"),
    ]


def page(stored: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        stored: The results.
    """
    columns = ["stage", "its caption", "the caption of another", "1-NN", "seconds", "pairs"]
    lines = [markdown_row(columns), markdown_row(["---", *("--:" for _ in columns[1:])])]
    for name, stage in stored["stages"].items():
        shares = [f"{stage[number]:.3f}" for number in ("agreement", "shuffled", "accuracy")]
        training = stage["core_s"][TRAINING]
        before = sum(stage["core_s"].values()) - training
        lines.append(markdown_row([name, *shares, f"{training:.0f}", f"{before:.0f}"]))
    gaussian = stored["stages"][STEP]["gaussian"]
    data = ["*other data (floor)*", f"{stored['floor']:.3f}", "", "", "", ""]
    lines.append(markdown_row(["*a Gaussian per class*", "", "", f"{gaussian:.3f}", "", ""]))
    lines.append(markdown_row(data))
    head = HEAD.format(
        classes=stored["classes"],
        chance=1.0 / stored["classes"],
        accuracy=stored["classifier_accuracy"],
    )
    return head + "\n".join(lines) + "\n" + TAIL


def main() -> None:
    """Train or judge, and write the page."""
    PAGE.write_text(page(run(NAME, measure, bars)))


if __name__ == "__main__":
    main()
