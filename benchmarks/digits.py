"""Quality of MeanFlow on handwritten digits within twenty minutes of two cores.

    python benchmarks/digits.py

Trains the experiment digits_mean_flow on one thread, measures it at 1, 2, 4 and 8 evaluations
against held-out digits and writes the numbers beside the bars, the floors and the baselines. The
budget is counted in seconds of processor time, which other processes on the machine lengthen but do
not hide.
"""

import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from record import RESULTS, machine, save

from onestep.platform.configuration import compose
from onestep.platform.evaluation.comparison import compare
from onestep.platform.experiment import Experiment
from onestep.platform.home import Home
from onestep.platform.registry.store import Registry
from onestep.platform.training.assembly import assemble
from onestep.platform.training.launch import launch
from onestep.platform.training.watcher import Console

OVERRIDES = ["experiment=digits_mean_flow", "training.threads=1"]
BUDGET_CORE_S = 2 * 20 * 60
BARS = {
    ("eval/1nn_accuracy", 1): 0.62,
    ("eval/1nn_accuracy", 2): 0.59,
}
FLOOR_RATIOS = {("eval/sliced_w2", 1): 1.4, ("eval/sliced_w2", 2): 1.15}
LEAST = {("eval/class_agreement", 1): 0.98, ("eval/class_agreement", 2): 0.98}


def main() -> None:
    about = machine()
    experiment = Experiment.from_dict(compose("train", OVERRIDES), tuple(OVERRIDES))
    assemble(experiment)
    begin, begin_core = time.monotonic(), time.process_time()
    trained = launch(experiment, Console())
    seconds, core_s = time.monotonic() - begin, time.process_time() - begin_core
    rows = []
    for m in trained.report.measurements:
        key = (m.name, m.nfe)
        row = {
            "metric": m.name,
            "nfe": m.nfe,
            "value": m.value,
            "interval": m.interval,
            "floor": m.floor,
            "baselines": dict(m.baselines),
        }
        if key in BARS:
            row["bar"], row["reached"] = f"<= {BARS[key]}", m.value <= BARS[key]
        if key in FLOOR_RATIOS and m.floor is not None:
            row["bar"] = f"<= {FLOOR_RATIOS[key]} x floor"
            row["reached"] = m.value <= FLOOR_RATIOS[key] * m.floor
        if key in LEAST:
            row["bar"], row["reached"] = f">= {LEAST[key]}", m.value >= LEAST[key]
        rows.append(row)
        if "bar" in row:
            print(f"{m.name} at {m.nfe} NFE: {m.value:.4f}, {row['bar']}: {row['reached']}")
    numbers = {
        "overrides": OVERRIDES,
        "samples": experiment.training.samples,
        "seconds_with_evaluation": round(seconds),
        "core_s_with_evaluation": round(core_s),
        "within_budget": core_s <= BUDGET_CORE_S,
        "count": trained.report.provenance.count,
        "draws": trained.report.provenance.draws,
        "measurements": rows,
    }
    save("digits", numbers, about)
    home = Home.here()
    comparison = compare(
        Registry.at(home),
        [str(trained.reference)],
        home=home.root,
        nfes=[1, 2],
        samples=2000,
        seed=7,
    )
    comparison.write(RESULTS / "digits")


if __name__ == "__main__":
    main()
