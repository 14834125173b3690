"""Peak memory: the most that torch's allocator holds during a call, above what it held before."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch.profiler import ProfilerActivity, profile

_EVENT: Final = "[memory]"


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors that a call holds at once, above what was held before it.

    It is the same number on both kinds of device: a GPU's allocator counts by itself, and on a CPU
    the profiler tells each allocation and each release. Neither sees what libraries take past the
    allocator, such as the scratch space of a convolution. A call runs once, slower than without.

    Args:
        call: What is measured. It should release nothing that was there before.
        device: Where its tensors live, a CPU or a GPU.

    Returns:
        A number of bytes.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it announces each start on the terminal
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == _EVENT]
    held = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        held += int(change)
        peak = max(peak, held)
    return peak
