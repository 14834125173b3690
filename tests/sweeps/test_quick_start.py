"""The process of a trial imports what it trains with, and what takes seconds beside that later."""

import subprocess
import sys

_SCRIPT = """
import sys
import onestep.sweeps.trial

print([name for name in ("mlflow", "sklearn", "wandb", "ot") if name in sys.modules])
"""


def test_the_process_of_a_trial_imports_no_store_and_no_metrics_before_it_trains() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
