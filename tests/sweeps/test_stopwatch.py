import time

import pytest

from onestep.platform.experiment import Workers
from onestep.platform.training.ray_train import WORKER_BEGUN, WORKER_S
from onestep.sweeps.stopwatch import Stopwatch


def test_the_time_of_a_group_is_that_of_its_leading_worker_for_each_of_them() -> None:
    watch = Stopwatch(Workers(num_workers=3))
    for told in (2.0, 5.0):
        watch.note({WORKER_S: told, WORKER_BEGUN: 1e9, "loss/online": 1.0})
    watch.note({"loss/online": 1.0})
    assert watch.seconds == 3 * 5.0
    watch.restart()
    assert watch.seconds == 0.0
    watch.note({WORKER_S: 5.5, WORKER_BEGUN: 2e9})  # of a group that was started again
    assert watch.seconds == 3 * 5.5


def test_the_time_of_one_worker_is_that_of_this_process() -> None:
    watch = Stopwatch(Workers())
    begin = time.process_time()
    watch.note({WORKER_S: 1000.0, WORKER_BEGUN: 1e9})
    while time.process_time() - begin < 0.02:
        pass
    assert watch.seconds == pytest.approx(time.process_time() - begin, abs=0.02)
