import os
from collections.abc import Iterator
from typing import Any

import pytest

from onestep.platform.ray_instance import ray_instance, whole_cpus

WAIT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


@pytest.fixture(autouse=True)
def environment() -> Iterator[dict[str, str]]:
    """The environment without Ray, as it is put back afterwards."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith("RAY_")]:
        del os.environ[name]
    yield dict(os.environ)
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("cpus", "whole"), [(0.0, 1), (0.5, 1), (1.3, 2), (2.0, 2), (2.5, 3), (10 * 1.1, 11)]
)
def test_whole_cpus_hold_every_part_of_one(cpus: float, whole: int) -> None:
    assert whole_cpus(cpus) == whole


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_second_instance_starts_where_the_environment_of_the_first_is_gone(
    environment: dict[str, str],
) -> None:
    for _ in range(2):
        with ray_instance(num_cpus=1) as is_own:
            assert is_own
            assert WAIT not in os.environ, "nothing has to boot before its workers start"
        os.environ.clear()
        os.environ.update(environment)


def nobody_answers(**how: Any) -> None:
    raise ConnectionError(how["address"])


@pytest.mark.parametrize(("given", "used"), [(None, "1800"), ("90", "90")])
def test_workers_of_a_cluster_may_wait_for_nodes_that_have_to_boot(
    given: str | None, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own list says which variables its controller gets from the process that launches."""
    from ray.train.v2._internal.constants import get_env_vars_to_propagate

    monkeypatch.setattr("ray.init", nobody_answers)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    if given is not None:
        os.environ[WAIT] = given
    with (
        pytest.raises(ValueError, match="no Ray cluster answers"),
        ray_instance(address="10.0.0.1:6379"),
    ):
        pass
    assert get_env_vars_to_propagate()[WAIT] == used


@pytest.mark.ray
@pytest.mark.usefixtures("environment")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_ray_that_does_not_start_is_told_in_one_sentence() -> None:
    with (
        pytest.raises(OSError, match=r"^Ray does not start: .*CPU.*$"),
        ray_instance(num_cpus=-1),
    ):
        pass
