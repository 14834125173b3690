import os

import pytest

from onestep.platform.ray_instance import ray_instance


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_second_instance_starts_where_the_environment_of_the_first_is_gone() -> None:
    before = dict(os.environ)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        os.environ.pop(name, None)
    try:
        for _ in range(2):
            with ray_instance(num_cpus=1) as is_own:
                assert is_own
            os.environ.clear()
            os.environ.update(before)
    finally:
        os.environ.clear()
        os.environ.update(before)
