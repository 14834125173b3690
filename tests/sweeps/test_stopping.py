"""Rules that end trials early, against those of Optuna and across a kill."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from onestep.sweeps.halving import bracket_of
from onestep.sweeps.stopping import Curve, Stopping, StoppingKind, judge

_TOTAL: Final = 450_000
_GRACE: Final = 50_000
_ASHA: Final = Stopping(kind=StoppingKind.ASHA, grace_samples=50_000, reduction=3)
_HYPERBAND: Final = Stopping(kind=StoppingKind.HYPERBAND, grace_samples=50_000, reduction=3)
_MEDIAN: Final = Stopping(kind=StoppingKind.MEDIAN, grace_samples=50_000, startup=3)


def drawn(seed: int, trials: int = 18) -> list[dict[int, float]]:
    """Learning curves that cross, measured at every rung and between two."""
    rng = np.random.default_rng(seed)
    every = (_GRACE, 2 * _GRACE, 3 * _GRACE, _TOTAL)
    return [
        {n: rng.uniform(0.5, 1.5) * n**-0.3 + rng.uniform(0.0, 0.01) for n in every}
        for _ in range(trials)
    ]


def curve(number: int, values: dict[int, float]) -> Curve:
    return Curve(number=number, values={n: (value,) for n, value in values.items()})


def run(
    stopping: Stopping, curves: list[dict[int, float]], held: list[Curve] | None = None
) -> list[Curve]:
    """One trial after the other, each until it ends or is ended."""
    budgets = stopping.budgets(_TOTAL)
    held = list(held or [])
    for number in range(len(held), len(curves)):
        seen: dict[int, float] = {}
        for samples, value in curves[number].items():
            seen[samples] = value
            verdict = judge(stopping, curve(number, seen), held, budgets)
            if verdict is not None and not verdict.goes_on:
                break
        held.append(curve(number, seen))
    return held


def run_by_optuna(
    pruner: BasePruner, curves: list[dict[int, float]], storage: RDBStorage
) -> list[int]:
    """Samples at which each trial ended."""
    study = optuna.create_study(storage=storage, pruner=pruner, study_name="reference")
    ends = []
    for values in curves:
        trial = study.ask()
        for samples, value in values.items():
            trial.report(value, samples)
            if samples < _TOTAL and trial.should_prune():
                break
        study.tell(trial, values[samples])
        ends.append(samples)
    return ends


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[RDBStorage]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    opened = RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    yield opened
    opened.engine.dispose()


def ends(curves: list[Curve]) -> list[int]:
    return [max(each.values) for each in curves]


@pytest.mark.parametrize("seed", range(2))
def test_halving_ends_the_trials_that_optuna_ends(seed: int, storage: RDBStorage) -> None:
    """As long as no kill comes between, and no two values are equal."""
    curves = drawn(seed)
    pruner = SuccessiveHalvingPruner(min_resource=_GRACE, reduction_factor=3)
    found = ends(run(_ASHA, curves))
    assert found == run_by_optuna(pruner, curves, storage)
    assert {_GRACE, 3 * _GRACE, _TOTAL} == set(found)


def test_a_bracket_ends_the_trials_that_optuna_ends(
    storage: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the same brackets, which it draws by a digest of the study's name and the number."""
    monkeypatch.setattr(
        HyperbandPruner,
        "_get_bracket_id",
        lambda self, study, trial: bracket_of(trial.number, 3, 3),
    )
    curves = drawn(0)
    pruner = HyperbandPruner(min_resource=_GRACE, max_resource=_TOTAL, reduction_factor=3)
    found = ends(run(_HYPERBAND, curves))
    assert found == run_by_optuna(pruner, curves, storage)
    whole = [end for number, end in enumerate(found) if bracket_of(number, 3, 3) == 2]
    assert set(whole) == {_TOTAL}
    assert min(end for number, end in enumerate(found) if bracket_of(number, 3, 3) == 1) > _GRACE


@pytest.mark.parametrize("others", [3, 5])
def test_the_median_ends_a_trial_that_optuna_ends(others: int, storage: RDBStorage) -> None:
    """Among an odd number of whole trials; with an even one ours lets the middle go on."""
    stopping, ended = Stopping(kind=StoppingKind.MEDIAN, grace_samples=50_000, startup=3), 0
    for seed in range(4):
        values = np.random.default_rng(seed).random(others + 1).tolist()
        name, pruner = f"median-{seed}", MedianPruner(n_startup_trials=3)
        study = optuna.create_study(storage=storage, pruner=pruner, study_name=name)
        for value in values[1:]:
            whole = optuna.trial.create_trial(value=value, intermediate_values={_GRACE: value})
            study.add_trial(whole)
        trial = study.ask()
        trial.report(values[0], _GRACE)
        one, *held = (curve(number, {_GRACE: value}) for number, value in enumerate(values))
        verdict = judge(stopping, one, held, stopping.budgets(_TOTAL))
        assert verdict is not None
        assert verdict.goes_on is not trial.should_prune()
        ended += not verdict.goes_on
    assert 0 < ended < 4


def test_the_median_waits_for_others() -> None:
    budgets = _MEDIAN.budgets(_TOTAL)
    good = [curve(k, {_GRACE: 0.1 * k}) for k in range(3)]
    bad = curve(9, {_GRACE: 1.0})
    waiting, judged = (judge(_MEDIAN, bad, others, budgets) for others in (good[:2], good))
    assert waiting is not None
    assert waiting.goes_on
    assert judged is not None
    assert not judged.goes_on
    assert str(judged) == "place 4 of 4 after 50000 samples, of which 2 go on"


def test_the_middle_one_of_an_odd_number_goes_on() -> None:
    held = [curve(k, {_GRACE: 0.1 * k}) for k in range(5)]
    found = [judge(_MEDIAN, each, held, _MEDIAN.budgets(_TOTAL)) for each in held]
    assert [one is not None and one.goes_on for one in found] == [True] * 3 + [False] * 2


@pytest.mark.parametrize("stopping", [_ASHA, _HYPERBAND, _MEDIAN], ids=lambda one: str(one.kind))
@pytest.mark.parametrize("cut", [1, 5, 11, 16])
def test_a_sweep_that_was_killed_ends_the_same_trials(stopping: Stopping, cut: int) -> None:
    """What the trial in flight had reported is still there when it is repeated from the start."""
    curves = drawn(7)
    whole = run(stopping, curves)
    orphan = curve(cut, {_GRACE: curves[cut][_GRACE]})
    budgets, again = stopping.budgets(_TOTAL), dict[int, float]()
    for samples, value in curves[cut].items():
        again[samples] = value
        one = judge(stopping, curve(cut, again), [*whole[:cut], orphan], budgets)
        if one is not None and not one.goes_on:
            break
    assert curve(cut, again) == whole[cut]
    assert run(stopping, curves, [*whole[:cut], curve(cut, again)]) == whole


def test_optuna_decides_otherwise_after_a_kill(storage: RDBStorage) -> None:
    """Why the rules are ours: its own are asked once, and count a trial and its repetition."""
    pruner = SuccessiveHalvingPruner(min_resource=_GRACE, reduction_factor=3)
    study = optuna.create_study(storage=storage, pruner=pruner, study_name="killed")
    for value in (0.3, 0.5):
        study.ask().report(value, _GRACE)
    first, second = study.trials
    assert not study.pruner.prune(study, first)
    assert study.pruner.prune(study, second)
    reloaded = optuna.load_study(storage=storage, pruner=pruner, study_name="killed")
    assert not reloaded.pruner.prune(reloaded, reloaded.trials[1]), "it goes on, asked again"
    # Its repetition meets its own value, and is told apart from a trial of its own no more.
    reloaded.tell(1, state=TrialState.FAIL)
    for value in (0.5, 0.4):
        reloaded.ask().report(value, _GRACE)
    assert reloaded.pruner.prune(reloaded, reloaded.trials[2])
    held = [curve(0, {_GRACE: 0.3}), curve(1, {_GRACE: 0.5})]
    verdict = judge(_ASHA, curve(1, {_GRACE: 0.5}), held, _ASHA.budgets(_TOTAL))
    assert verdict is not None
    assert (verdict.place, verdict.rivals) == (2, 2)
    stored = [one.system_attrs.get("completed_rung_0") for one in reloaded.trials]
    assert stored == [0.3, 0.5, 0.5, None], "the value of the trial that was cut off stays"


def test_a_verdict_is_the_same_when_it_is_asked_for_again() -> None:
    held = [curve(k, {_GRACE: 0.1 * k}) for k in range(5)]
    budgets = _ASHA.budgets(_TOTAL)
    first = judge(_ASHA, held[3], held, budgets)
    assert first == judge(_ASHA, held[3], held[::-1], budgets)
    assert first == judge(_ASHA, held[3], held[:3] + held[4:], budgets)
    assert first is not None
    assert (first.place, first.rivals, first.kept, first.goes_on) == (4, 5, 1, False)


def test_trials_are_judged_at_rungs_alone() -> None:
    held = [curve(k, {n: 0.1 * k for n in range(_GRACE, _TOTAL + 1, _GRACE)}) for k in range(5)]
    last = {**held[4].values}
    for samples in range(_TOTAL, 0, -_GRACE):
        one = judge(_ASHA, Curve(number=4, values=last), held, _ASHA.budgets(_TOTAL))
        assert (one is not None) is (samples in (_GRACE, 3 * _GRACE))
        del last[samples]
    assert judge(_ASHA, Curve(number=4, values={}), held, _ASHA.budgets(_TOTAL)) is None
    assert judge(Stopping(), held[4], held, Stopping().budgets(_TOTAL)) is None


def test_trials_of_other_brackets_are_no_rivals() -> None:
    bracket = [bracket_of(number, 3, 3) for number in range(17)]
    held = [curve(k, {_GRACE: 0.5, 3 * _GRACE: 0.5}) for k in range(17)]
    of_one = curve(bracket.index(1), {_GRACE: 0.9, 3 * _GRACE: 0.9})
    one = judge(_HYPERBAND, of_one, held, _HYPERBAND.budgets(_TOTAL))
    assert one is not None
    assert one.rivals == bracket.count(1)


def test_several_objectives_are_judged_together() -> None:
    """A corner of the front goes on, what is dominated does not."""
    points = [(0.0, 1.0), (1.0, 0.0), (0.4, 0.4), (0.5, 0.5), (0.9, 0.9), (1.0, 1.0)]
    held = [Curve(number=k, values={_GRACE: point}) for k, point in enumerate(points)]
    found = [judge(_ASHA, each, held, _ASHA.budgets(_TOTAL)) for each in held]
    assert [one is not None and one.goes_on for one in found] == [True, False, True] + [False] * 3


def test_a_value_that_is_not_finite_ends_a_trial_even_if_it_is_the_first() -> None:
    lost = Curve(number=0, values={_GRACE: (math.nan,)})
    for stopping in (_ASHA, _MEDIAN):
        one = judge(stopping, lost, [], stopping.budgets(_TOTAL))
        assert one is not None
        assert not one.goes_on


def test_measurements_are_at_whole_batches() -> None:
    assert _MEDIAN.budgets(200_000, batch=384) == (49_920, 99_840, 149_760, 199_680, 200_000)
    assert _ASHA.budgets(_TOTAL, batch=384) == (49_920, 149_760, _TOTAL)
    assert Stopping().budgets(1000) == (1000,)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"kind": "fast"},
            "hyperband, median, pbt, pb2, got 'fast'",
        ),
        ({"grace_samples": 0}, "must be at least 1 and reduction at least 2, got 0, 5 and 2"),
        ({"reduction": 1}, "reduction at least 2"),
        ({"kind": "asha", "startup": 4}, "startup has no effect with sweep.scheduler.kind=asha"),
        ({"grace_samples": 500}, "grace_samples has no effect with sweep.scheduler.kind=none"),
        ({"reduction": 3}, "reduction has no effect with .*kind=none: leave it at 2, got 3"),
        ({"kind": "median", "reduction": 3}, "reduction has no effect with .*kind=median"),
        ({"kind": "pbt", "grace_samples": 500}, "grace_samples has no effect with .*kind=pbt"),
        ({"kind": "median", "replan": True}, "kind must be asha or hyperband, got median"),
        ({"replan": True}, "kind must be asha or hyperband, got none"),
        ({"kind": "asha", "fill": True}, "replan must be true, got False"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Stopping(**values)  # type: ignore[arg-type]


def test_whether_rungs_are_filled_is_told_where_they_are_runs_of_their_own() -> None:
    on_the_way = Stopping(kind=StoppingKind.ASHA).effective
    assert on_the_way == {"grace_samples": 25_000, "reduction": 2, "replan": False}
    again = Stopping(kind=StoppingKind.ASHA, replan=True, fill=True).effective
    assert again == {"grace_samples": 25_000, "reduction": 2, "replan": True, "fill": True}


def test_a_median_without_a_measurement_is_refused() -> None:
    with pytest.raises(ValueError, match="must be below the 40000 samples of a trial"):
        _MEDIAN.budgets(40_000)


@pytest.mark.parametrize("stopping", [_ASHA, _HYPERBAND])
def test_trials_take_about_the_samples_that_are_expected_of_a_rule(stopping: Stopping) -> None:
    """The first ones at a rung go on whatever they are; of 270 trials that is a small share."""
    curves = drawn(5, trials=270)
    taken = sum(max(one.values) for one in run(stopping, curves))
    expected = stopping.expected_samples(270, stopping.budgets(_TOTAL))
    assert taken == pytest.approx(expected, rel=0.12)
    assert expected < 0.5 * 270 * _TOTAL


def test_what_a_rule_does_not_say_beforehand_is_expected_whole() -> None:
    budgets = (100, 300, 900)
    assert Stopping().expected_samples(9, (900,)) == 9 * 900
    assert _MEDIAN.expected_samples(9, budgets) == 9 * 900
    again = Stopping(kind=StoppingKind.ASHA, grace_samples=50_000, reduction=3, replan=True)
    assert again.expected_samples(9, budgets) == 9 * 100 + 3 * 300 + 900
