"""Warm processes: those of the first trials import what trials need while the sweep gets ready."""

import ray


def warm_up(count: int, *, cpus: float) -> None:
    """Have Ray start processes that trials then find waiting.

    They are asked for no GPU, which would end them after it.

    Args:
        count: How many.
        cpus: CPUs of a trial, so that they are where trials will be.
    """
    task = ray.remote(num_cpus=cpus, max_retries=0)(_import_trials)
    for _ in range(count):
        task.remote()


def _import_trials() -> None:
    import torch._dynamo  # noqa: F401  # by the first optimizer of a process

    from . import trial  # noqa: F401
