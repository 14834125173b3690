"""Mean collapse of a neural flow and its cure: python benchmarks/mean_collapse.py [TRIAL].

    python benchmarks/mean_collapse.py                       all trials
    python benchmarks/mean_collapse.py --page                judge, write page and picture again

The recipe for eight Gaussians is trained with one coupling after the other on 4000 data, and under
one of them in the forms whose every jump can be undone. Results go to
benchmarks/results/mean_collapse.json, where trials that are not named keep their numbers; page and
picture are made from them alone.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from onestep.benchmarks.mean_collapse_page import PAGE, PICTURE, page, picture
from onestep.benchmarks.planar import data_draws, draws, judge
from onestep.benchmarks.recipes import TRAINING, Workshop, digest_of
from onestep.benchmarks.record import RESULTS, Bars, at_least, at_most, judged, machine, save
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.evaluation.figures import save_png
from onestep.platform.registry.model import load_flow_map
from onestep.platform.training.sequence import Stage, StageSequence

NAME: Final = "mean_collapse"
DATA: Final = 4000
_COMMON: Final = (f"data.samples={DATA}", "training.threads=1", "evaluation.samples=64")
_RECIPE: Final = "experiment=eight_gaussians_neural_flow"
_COUPLING: Final = "coupling@method.coupling"
_ALL_GENERATED: Final = (
    "{_target_:onestep.methods.core.method.PairMix,"
    "generated:{_target_:onestep.methods.core.schedule.Constant,value:1.0}}"
)
TRIALS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "independent": {"model": (_RECIPE, f"{_COUPLING}=independent")},
    "minibatch_ot": {"model": (_RECIPE, f"{_COUPLING}=minibatch_ot")},
    "global_ot": {"model": (_RECIPE, f"{_COUPLING}=global_ot")},
    "loom": {"model": (_RECIPE, f"{_COUPLING}=loom")},
    "teacher": {
        "teacher": ("experiment=eight_gaussians_flow_matching",),
        "model": (
            _RECIPE,
            f"{_COUPLING}=stored_pairs",
            f"method.pairs={_ALL_GENERATED}",
            "pairs.count=8000",
            "pairs.real=false",
            "parents.teacher={teacher}",
        ),
    },
    "residual": {"model": (_RECIPE, f"{_COUPLING}=global_ot", "net=residual_flow", "net.depth=10")},
    "coupling": {"model": (_RECIPE, f"{_COUPLING}=global_ot", "net=coupling_flow")},
}
SHOWN: Final = 400
"""Points of each trial that are kept for the picture."""
COLLAPSED: Final = 0.1
"""Width of the samples, over that of the data, below which they are one point."""
CURED: Final = {"width": 0.9, "outside_modes": 0.12, "mode_mass_tv": 0.06}
INVERTIBLE: Final = {"residual": 0.2, "coupling": 0.05}
"""Forms that cannot tear their noise, and the most of it that may be left between the modes."""
DECIDED: Final = ("global_ot", "loom", "teacher")
"""Couplings under which a noise has one datum."""
WIDEST: Final = 1.4
"""Spread of a mode over that of the law."""


def stages(trial: str) -> tuple[Stage, ...]:
    """The stages of a trial."""
    return StageSequence.of(TRIALS[trial], _COMMON).stages


def packed(x: Float[Tensor, "n 2"]) -> str:
    """Some points in hundredths, as one line."""
    return " ".join(str(round(100.0 * value)) for value in x[:SHOWN].flatten().tolist())


def measure(trial: str, workshop: Workshop) -> dict[str, Any]:
    """Train a trial and judge one step of its last model on fresh noise."""
    made = workshop.make(stages(trial))
    *_, last = made.values()
    flow_map, _ = load_flow_map(workshop.registry, last.trained.reference)
    samples, dataset = draws(flow_map), EightGaussians().load()
    spread = dataset.held_out.x.var(0).sum().sqrt()
    return {
        "digest": digest_of(stages(trial)),
        "coupling": last.experiment.method["coupling"]["_target_"].rpartition(".")[2],
        "core_s": round(last.core_s[TRAINING], 1),
        "core_s_before": round(
            sum(sum(each.core_s.values()) for each in made.values()) - last.core_s[TRAINING], 1
        ),
        "width": round((torch.cat(samples).var(0).sum().sqrt() / spread).item(), 4),
        **judge(samples, dataset),
        "points": packed(samples[0]),
    }


def bars(numbers: Mapping[str, Any]) -> Bars:
    """What has to be seen: the collapse under independent pairs, and every cure."""
    found: Bars = []
    for name, trial in numbers["trials"].items():
        if name == "independent":
            found.append(at_most(trial["width"], COLLAPSED, trial=name, number="width"))
            found.append(at_least(trial["outside_modes"], 0.9, trial=name, number="outside_modes"))
            continue
        found.append(at_least(trial["width"], CURED["width"], trial=name, number="width"))
        most = CURED | ({"outside_modes": INVERTIBLE[name]} if name in INVERTIBLE else {})
        found += [
            at_most(trial[number], most[number], trial=name, number=number)
            for number in ("outside_modes", "mode_mass_tv")
        ]
        if name in DECIDED:
            widest = trial["mode_std_ratio_max"]
            found.append(at_most(widest, WIDEST, trial=name, number="mode_std_ratio_max"))
    return found


def summary(trials: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is stored, with what the bars say of the trials that are there."""
    dataset = EightGaussians().load()
    numbers = {
        "data": DATA,
        "fresh_data": judge(data_draws(dataset), dataset),
        "fresh_points": packed(dataset.held_out.x),
        "trials": {name: trials[name] for name in TRIALS if name in trials},
    }
    return judged(numbers, bars(numbers))


def main() -> None:
    """Run the named trials, or all, or judge what is stored and write its page and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=", ".join(TRIALS))
    parser.add_argument("--page", action="store_true", help="judge what is stored again")
    arguments = parser.parse_args()
    chosen = () if arguments.page else arguments.trials or tuple(TRIALS)
    if unknown := set(chosen) - set(TRIALS):
        parser.error(f"trials are {', '.join(TRIALS)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    path = RESULTS / f"{NAME}.json"
    stored = json.loads(path.read_text()) if path.exists() else {"trials": {}}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Independent pairs are warned of; what they lead to is what is shown here.
        warnings.filterwarnings("ignore", "method.coupling is independent")
        about, workshop = machine(), Workshop(Path(folder))
        for trial in chosen:
            stored["trials"][trial] = {"machine": about, **measure(trial, workshop)}
            save(NAME, summary(stored["trials"]))
    stored = summary(stored["trials"])
    save(NAME, stored)
    PAGE.write_text(page(stored))
    save_png(picture(stored), PICTURE)


if __name__ == "__main__":
    main()
