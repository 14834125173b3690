import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onestep.platform.lock import alone
from onestep.platform.registry.revision import code_digest, code_files
from onestep.sweeps.cost import Budget
from onestep.sweeps.ending import ANEW, mark_ended
from onestep.sweeps.note import SweepNote, changes, folder_of, latest_of, name_folder
from onestep.sweeps.search import sweep_or_resume
from onestep.sweeps.settings import SweepSettings, settings_of
from onestep.sweeps.study import begin, open_storage, storage_url


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSettings:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    return settings_of(["data=moons", "net=mlp", "sweep.name=mine"])


def keep(name: str, asked: SweepSettings, code: str | None = None) -> SweepNote:
    folder_of(name).mkdir(parents=True)
    note = SweepNote(
        asked=asked,
        settings=replace(asked, base=("pinned",)),
        revision="main",
        code=code_digest() if code is None else code,
    )
    note.keep(name)
    return note


def test_a_note_comes_back_and_is_for_its_owner_alone(settings: SweepSettings) -> None:
    note = keep("mine-20261122-101500-aaaa", settings)
    assert SweepNote.of("mine-20261122-101500-aaaa") == note
    (file,) = folder_of("mine-20261122-101500-aaaa").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["asked"]["name"] == "mine"


def test_the_last_sweep_of_a_name_is_found_and_no_other(settings: SweepSettings) -> None:
    assert latest_of(settings) is None
    for name in ("mine-20261122-101500-aaaa", "mine-20261123-081500-0000"):
        keep(name, settings)
    keep("mine-too-20261124-101500-aaaa", replace(settings, name="mine-too"))
    folder_of("mine-20261125-101500-aaaa").mkdir()  # it was killed before it was begun
    assert latest_of(settings) == "mine-20261123-081500-0000"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"trials": 50, "concurrency": 1, "retries": 0, "budget": Budget(seconds=60.0)}, ""),
        ({"address": "10.0.0.2:6379", "wandb": True}, ""),
        ({"seed": 7}, "seed: 0 then, 7 now"),
        ({"base": ("net=mlp_large",)}, "base.net: 'net=mlp' then, 'net=mlp_large' now"),
        ({"storage": "mysql://ada:secret@host/db"}, "'' then, 'mysql://ada:***@host/db' now"),
    ],
)
def test_what_has_changed_is_said_but_for_counts(
    now: dict[str, Any], said: str, settings: SweepSettings
) -> None:
    found = changes(settings, replace(settings, **now))
    assert said in found if said else not found


def test_one_changed_override_is_one_change(settings: SweepSettings) -> None:
    before = replace(settings, base=("data=moons", "net=mlp"))
    now = replace(settings, base=("data=moons", "net=mlp_large"))
    assert changes(before, now) == "base.net: 'net=mlp' then, 'net=mlp_large' now"


def test_another_sweep_of_the_same_name_that_has_not_ended_is_in_the_way(
    settings: SweepSettings,
) -> None:
    name = "mine-20261122-101500-aaaa"
    keep(name, settings)
    begin(
        open_storage(storage_url(settings, folder_of(name).parents[1])), name, settings.objectives
    )
    with pytest.raises(
        ValueError, match=rf"sweep {name} has not ended .*seed: 0 then, 7 now.*--resume"
    ):
        sweep_or_resume(replace(settings, seed=7))


@pytest.mark.parametrize(("code", "seed"), [("abc", 1), (None, 7)])
def test_a_sweep_that_has_ended_is_followed_by_one_of_other_code_or_settings(
    code: str | None, seed: int, settings: SweepSettings
) -> None:
    name, said = "mine-20261122-101500-aaaa", list[str]()
    before = replace(settings, base=("data=another",), seed=1)
    note = keep(name, before, code=code)
    study = begin(
        open_storage(storage_url(settings, folder_of(name).parents[1])), name, settings.objectives
    )
    now = replace(before, seed=seed)
    with pytest.raises(ValueError, match=ANEW):
        sweep_or_resume(now)
    mark_ended(study, note.settings, "all 9 trials have ended")
    with pytest.raises(ValueError, match="another"):
        sweep_or_resume(now, say=said.append)
    other = "settings" if code is None else "code"
    assert said == [f"sweep {name} has ended, with other {other}: a new one begins"]


def test_a_sweep_goes_on_with_its_own_code_or_with_leave(
    settings: SweepSettings,
) -> None:
    name = "mine-20261122-101500-aaaa"
    keep(name, settings, code="abc")
    said = rf"with code abc \(revision main\), this is {code_digest()[:12]} .*--any-code"
    with pytest.raises(ValueError, match=said):
        sweep_or_resume(settings)
    with pytest.raises(ValueError, match="pinned"):  # it goes on to the next check
        sweep_or_resume(settings, any_code=True)


def test_the_first_files_that_differ_are_named_when_code_has_changed(
    settings: SweepSettings,
) -> None:
    now = code_files()
    before = {**now, "methods/mean_flow.py": "0", "methods/gone.py": "0"}
    del before["sweeps/book.py"], before["sweeps/trial.py"]
    name = "mine-20261122-101500-aaaa"
    asked = SweepNote(asked=settings, settings=settings, revision="main", code="abc", files=before)
    folder_of(name).mkdir(parents=True)
    asked.keep(name)
    assert SweepNote.of(name) == asked
    said = "gone.py is gone, methods/mean_flow.py is another, sweeps/book.py is new and 1 more"
    with pytest.raises(ValueError, match=said):
        sweep_or_resume(settings)


def test_of_two_that_begin_together_one_is_told_that_the_other_runs(
    settings: SweepSettings,
) -> None:
    with (
        alone(name_folder(settings.name), what="sweep"),
        pytest.raises(ValueError, match=r"sweep mine is running already"),
    ):
        sweep_or_resume(settings)
