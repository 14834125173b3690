"""Records the golden losses anew: ``python -m onestep.tests.record_golden``.

A changed file needs a sentence of reason in the commit.
"""

import tempfile
from pathlib import Path

from onestep.tests.platform.training import golden
from onestep.tests.platform.training.group import train_here


def main() -> None:
    """Train every method for a few steps and write its losses down."""
    for name in golden.METHODS:
        with tempfile.TemporaryDirectory() as folder:
            experiment = golden.experiment(name, Path(folder))
            _, reporter = train_here(experiment, Path(folder))
        golden.write(name, golden.losses(reporter.rows))


if __name__ == "__main__":
    main()
