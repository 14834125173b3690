"""Records the golden losses anew: ``python -m onestep.tests.record_golden``.

A changed file needs a sentence of reason in the commit.
"""

import tempfile
from pathlib import Path

from onestep.tests.platform.training import catalogue, golden
from onestep.tests.platform.training.group import train_here
from onestep.tests.platform.training.recipe import store_pairs


def main() -> None:
    """Train every method for a few steps and write its losses down."""
    for name in golden.METHODS:
        with tempfile.TemporaryDirectory() as folder:
            experiment = golden.experiment(name, Path(folder))
            _, reporter = train_here(experiment, Path(folder))
        golden.write(name, golden.losses(reporter.rows))
    with tempfile.TemporaryDirectory() as folder:
        store_pairs(Path(folder) / "pairs")
        for name in golden.SHORT:
            values = catalogue.experiment(name, Path(folder) / "pairs")
            losses = catalogue.walk(catalogue.learning(values), catalogue.STEPS)
            golden.write(name, dict(enumerate(losses, start=1)))


if __name__ == "__main__":
    main()
