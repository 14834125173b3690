from pathlib import Path
from typing import Final

from onestep.platform.training.place import Place
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.worker import work
from onestep.sweeps.objective import Objectives
from onestep.sweeps.plan import Plan
from onestep.sweeps.record import folder_of_trial
from onestep.sweeps.restart import restart
from onestep.sweeps.sampler import SamplerKind
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.tests.sweeps.booking import new_storage, open_book
from onestep.tests.sweeps.populating import BASE

_KEY: Final = "training.batch_size"
_SETTINGS: Final = SweepSettings(
    name="toy",
    base=(*(one for one in BASE if "training." not in one), "training.samples=4096"),
    space=Space.from_dict({_KEY: {"kind": "choice", "values": [64, 128]}}),
    objectives=Objectives.from_dict({"quality": {"name": "eval/w2", "nfe": 1}}),
    sampler=SamplerKind.GRID,
)


def test_of_each_trial_that_was_cut_off_it_is_said_from_how_many_samples_it_goes_on(
    tmp_path: Path, empty_study: Path
) -> None:
    plan, storage = Plan.of(_SETTINGS), new_storage(tmp_path / "one", empty_study)
    book = open_book(storage, tmp_path, _SETTINGS)
    sizes = []
    for steps in (20, 0):
        suggestion = book.suggest()
        assert suggestion is not None
        trial = book.study.get_trials()[suggestion.number]
        sizes.append(trial.params[_KEY])
        if steps:
            work(
                plan.experiment_of(trial.params).to_dict(),
                place=Place(),
                reporter=MemoryReporter(),
                folder=folder_of_trial(tmp_path, trial.number, rung=None),
                until=steps,
            )
    again = open_book(storage, tmp_path, _SETTINGS)
    said = [restart(one, plan, tmp_path) for one in again.interrupted]
    assert said == [f"trial 0 goes on from {20 * sizes[0]:,} samples", "trial 1 begins anew"]
    assert sorted(sizes) == [64, 128]
