"""Results of benchmarks: numbers as JSON, with the machine that they were measured on."""

import os
import platform as standard_platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from onestep.platform.atomic import write_json
from onestep.platform.registry.revision import code_revision

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        standard_platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": standard_platform.python_version(),
        "torch": torch.__version__,
        "revision": code_revision(),
    }


def save(name: str, numbers: Mapping[str, Any], about: Mapping[str, Any]) -> Path:
    """Write results/<name>.json."""
    path = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)
    write_json(path, {"machine": dict(about), **numbers})
    print(f"written to {path}")
    return path
