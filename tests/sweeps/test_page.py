import datetime
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest

from onestep.platform.evaluation.report import Report
from onestep.platform.training.assembly import assemble
from onestep.platform.training.measurement import prepare_benchmark
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.trial import run_trial
from onestep.sweeps.book import Book
from onestep.sweeps.constraint import Constraint
from onestep.sweeps.cost import Budget, Cost
from onestep.sweeps.findings import Findings
from onestep.sweeps.losses import add_loss
from onestep.sweeps.note import SweepNote, folder_of
from onestep.sweeps.objective import Number, Objective, Objectives
from onestep.sweeps.page import page_of, write_page
from onestep.sweeps.posthoc import PostHoc
from onestep.sweeps.record import folder_of_trial
from onestep.sweeps.settings import SweepSettings
from onestep.sweeps.space import Space
from onestep.sweeps.stopping import Stopping
from onestep.sweeps.study import begin, open_storage, storage_url
from onestep.sweeps.subtrial import SubTrial, Way, substudy_of
from onestep.sweeps.trial import experiment_of
from onestep.sweeps.winner import MODELS

_NAME: Final = "toy-20261122-101500-aaaa"
_NOW: Final = datetime.datetime(2026, 11, 22, 10, 30, tzinfo=datetime.UTC)
_BASE: Final = (
    "method=mean_flow",
    "data=eight_gaussians",
    "data.samples=2000",
    "data.held_out=400",
    "net=mlp",
    "net.width=16",
    "training.samples=256",
    "training.batch_size=64",
    "evaluation.nfes=[1,2]",
    "evaluation.samples=32",
    "~method.times.diagonal",
    "+method.times.diagonal={_target_:onestep.methods.core.schedule.Linear,start:1.0,end:0.75,until:0.5}",
)
_SETTINGS: Final = SweepSettings(
    name="toy",
    base=_BASE,
    space=Space.from_dict(
        {
            "method.times.diagonal.end": {"kind": "uniform", "low": 0.25, "high": 0.75},
            "optimizer.lr": {"kind": "log_uniform", "low": 1e-4, "high": 1e-2},
        }
    ),
    objectives=Objectives(by_label={"quality": Objective(name="eval/w2", nfe=1)}),
    trials=4,
    scheduler=Stopping(kind="asha", grace_samples=64, reduction=2),
    budget=Budget(price_per_node_hour=36.0),
)
_EMPTY: Final = {"meta", "img", "br", "wbr"}


class Page(HTMLParser):
    """What a page holds, read as a browser does; tags that do not match are an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self._text.append(data)
        if {"td", "th"} & set(self._open):
            self.cells[-1] += data

    @property
    def text(self) -> str:
        """The text that is read, without what only allows a line to break."""
        return "".join(self._text)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def home(tmp_path: Path, empty_study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    shutil.copy(empty_study, tmp_path / "optuna.db")
    return tmp_path


def begun(home: Path, settings: SweepSettings = _SETTINGS) -> Book:
    """A sweep that is about to begin."""
    folder_of(_NAME).mkdir(parents=True)
    SweepNote(asked=settings, settings=settings, revision="abc", code="").keep(_NAME)
    storage = open_storage(storage_url(settings, home))
    study = begin(storage, _NAME, settings.objectives)
    study.set_user_attr("data_digest", "d1g357")
    return Book(
        study,
        settings,
        base=settings.base,
        budgets=settings.scheduler.budgets(256, batch=64),
        folder=folder_of(_NAME),
        substudy=substudy_of(storage, _NAME, settings),
    )


def numbers(*values: float) -> list[Number]:
    return [Number(value=one, low=one - 0.25, high=one + 0.5) for one in values]


def start(book: Book) -> int:
    suggestion = book.suggest()
    assert suggestion is not None
    return suggestion.number


def finish(book: Book, values: Sequence[float], *, report: str, wall_s: float = 10.0) -> int:
    number = start(book)
    cost = Cost(wall_s=wall_s, training_s=4.0, samples=256)
    book.end(number, numbers(*values), samples=256, report=report, cost=cost)
    return number


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A trial that has really been trained and measured, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    experiment = experiment_of(_BASE)
    benchmark = prepare_benchmark(experiment, assemble(experiment).source.load())
    return folder, run_trial(experiment, MemoryReporter(), folder=folder, benchmark=benchmark)


def read(**changes: Any) -> Page:
    return Page(page_of(replace(Findings.of(_NAME), **changes), now=_NOW))


def test_a_page_holds_all_that_a_sweep_found(home: Path, trained: tuple[Path, Report]) -> None:
    folder, report = trained
    book = begun(home)
    for value in (2.0, 1.0):
        number = finish(book, [value], report=report.to_json())
        for samples in (64, 128, 192, 256):
            add_loss(folder_of_trial(folder_of(_NAME), number, rung=None), samples, value / samples)
    failed = start(book)
    book.fail(failed, "TrainingDiverged: loss is nan", cost=Cost(wall_s=5.0))
    # Only the winner's weights are there, and they are those of another learning rate.
    shutil.copytree(
        folder / "checkpoints", folder_of_trial(folder_of(_NAME), 1, rung=None) / "checkpoints"
    )
    book.study.set_user_attr(MODELS, {"1": "eight_gaussians/7"})

    page = read()
    assert "3 of 4 trials ended: 2 finished, 1 failed." in page.text
    assert "Best so far: trial 1" in page.text
    assert (
        'promote eight_gaussians/7 champion --why "best of toy-20261122-101500-aaaa"' in page.text
    )
    assert Findings.of(_NAME).ended[1].command in page.text
    titles = ["Trials", "Quality", "Keys", "Schedules", "Learning", "Samples"]
    assert len(page.all("h1")) == 1
    assert len(page.all("section")) == len(page.all("h2")) == 1 + len(titles) + 4
    told = " ".join(str(one["alt"]) for one in page.all("img"))
    for shown in (
        "eval/w2 of the leading trials against the number of network evaluations",
        "eval/w2 at 1 NFE against optimizer.lr",
        "method.times.diagonal of the leading trials over the run",
        "Training loss",
    ):
        assert shown in told
    assert "they need at least 8 finished trials, there are 2" in page.text
    assert "TrainingDiverged: loss is nan" in page.text
    assert "d1g357" in page.text
    assert "Not shown is trial 1: " in page.text
    assert "Not shown is trial 0: its weights are not kept here" in page.text
    # 25 seconds at 36 for an hour.
    assert "0.25" in page.cells


def test_a_page_says_why_a_sweep_ended_and_no_settings_without_effect(
    home: Path, trained: tuple[Path, Report]
) -> None:
    _, report = trained
    settings = replace(_SETTINGS, scheduler=Stopping(), budget=Budget(samples=700))
    book = begun(home, settings)
    back = {"step": 4, "to": 2, "lr_factor": 0.5, "why": "loss/online is nan"}
    for value, returns in ((2.0, [back]), (1.0, [])):
        number, cost = start(book), Cost(wall_s=1.0, samples=256)
        told = {"samples": 256, "report": report.to_json(), "cost": cost, "returns": returns}
        book.end(number, numbers(value), **told)  # type: ignore[arg-type]
    assert "Best so far: trial 1" in read().text
    book.close()
    page = read()
    said = "2 of 4 trials ended: 2 finished. The sweep has ended: the budget is spent, 512 of 700"
    assert said in page.text
    assert "Winner: trial 1" in page.text
    assert "went back from step 4 to 2, learning rate times 0.5: loss/online is nan" in page.text
    assert "all trials run whole, and are compared at their ends alone" in page.text
    assert "grace_samples" not in page.text
    assert "trials of a generation" not in page.text
    write_page(Findings.of(_NAME))
    table = (folder_of(_NAME) / "table.md").read_text()
    assert "It has ended: the budget is spent, 512 of 700 samples." in table
    assert "finished: went back from step 4 to 2" in table


def test_page_and_table_tell_of_points_that_were_not_tried(
    home: Path, trained: tuple[Path, Report]
) -> None:
    _, report = trained
    bound = Constraint(text="method.times.diagonal.end <= 0.4")
    space = replace(_SETTINGS.space, constraints=(bound,))
    settings = replace(_SETTINGS, space=space, scheduler=Stopping())
    book = begun(home, settings)
    kept = [finish(book, [value], report=report.to_json()) for value in (2.0, 1.0, 3.0)]
    left = [one for one in range(kept[-1]) if one not in kept]
    assert len(left) > 1
    said = f"Not tried: {len(left)} points that broke sweep.space.constraints (numbers "
    said += ", ".join(map(str, left[:8])) + (f" and {len(left) - 8} more" if left[8:] else "")
    assert f"{said})." in read().text
    write_page(Findings.of(_NAME))
    assert f"\n\n{said}).\n\n" in (folder_of(_NAME) / "table.md").read_text()


def test_page_and_table_say_nothing_where_all_points_were_tried(
    home: Path, trained: tuple[Path, Report]
) -> None:
    book = begun(home)
    finish(book, [2.0], report=trained[1].to_json())
    write_page(Findings.of(_NAME))
    assert "Not tried" not in read().text
    assert "Not tried" not in (folder_of(_NAME) / "table.md").read_text()


def test_a_page_says_how_fairness_was_judged(home: Path) -> None:
    begun(home)
    text = read().text
    assert "asha, grace_samples 64, reduction 2, replan False" in text
    assert "not re-planned: at the outermost points" in text
    assert "quantile" not in text


def test_a_page_shows_samples_of_weights_that_are_kept_and_says_why_there_are_no_others(
    home: Path, trained: tuple[Path, Report]
) -> None:
    folder, report = trained
    settings = replace(
        _SETTINGS, space=Space.from_dict({"seed": {"kind": "choice", "values": [0, 1]}})
    )
    book = begun(home, settings)
    kept = None
    for value in range(3):
        number = finish(book, [float(value)], report=report.to_json())
        is_same = book.study.trials[number].params["seed"] == experiment_of(_BASE).seed
        if is_same and kept is None:
            kept = number
            place = folder_of_trial(folder_of(_NAME), number, rung=None)
            shutil.copytree(folder / "checkpoints", place / "checkpoints")
    assert kept is not None
    page = read()
    assert "Samples of the leading trials" in [one["alt"] for one in page.all("img")]
    for number in {0, 1, 2} - {kept}:
        assert f"Not shown is trial {number}: its weights are not kept here" in page.text
    assert f"Not shown is trial {kept}" not in page.text


def test_a_page_loads_nothing_and_runs_nothing(home: Path, trained: tuple[Path, Report]) -> None:
    book = begun(home)
    finish(book, [1.0], report=trained[1].to_json())
    page = read()
    assert not {"script", "link", "iframe", "object"} & {name for name, _ in page.tags}
    pictures = [str(one["src"]) for one in page.all("img")]
    assert pictures
    assert all(one.startswith("data:image/png;base64,iVBOR") for one in pictures)
    for name, attributes in page.tags:
        assert not {"href", "srcset"} & attributes.keys(), name
        assert not any(key.startswith("on") for key in attributes), name


def test_texts_of_users_are_shown_as_they_are_and_never_read_as_html(
    home: Path, trained: tuple[Path, Report]
) -> None:
    text = "<script>alert('x')</script> & \"quoted\" <img src=http://a/b onerror=c>"
    settings = replace(
        _SETTINGS,
        space=Space.from_dict({"optimizer": {"kind": "choice", "values": [text, "<b>"]}}),
        base=(*_BASE, f"note={text}", "storage.tracking_uri=mysql://ada:secret@host/db"),
    )
    book = begun(home, settings)
    book.fail(start(book), text)
    finish(book, [1.0], report=trained[1].to_json())
    page = read()
    assert page.text.count(text) >= 3  # the value, the reason and the override
    assert not {"script", "b"} & {name for name, _ in page.tags}
    assert all(str(one["src"]).startswith("data:") for one in page.all("img"))
    assert "secret" not in page.text
    assert "mysql://ada:***@host/db" in page.text


def test_a_page_of_a_sweep_that_has_just_begun_says_so(home: Path) -> None:
    book = begun(home)
    start(book)
    page = read()
    assert "0 of 4 trials ended. 1 begun and not ended. If nobody runs it any more" in page.text
    assert f"onestep sweep --resume {_NAME} goes on." in page.text
    assert "onestep train method=mean_flow data=eight_gaussians" in page.text
    assert "No trial has been measured yet." in page.text
    assert page.all("img") == []
    assert write_page(Findings.of(_NAME)) == folder_of(_NAME) / "report.html"
    assert "onestep train" not in (folder_of(_NAME) / "table.md").read_text()


def test_a_page_names_the_code_of_each_part_of_a_sweep_that_was_cut_off(home: Path) -> None:
    begun(home)
    for revision in ("abc", "def", "def"):
        book = Book(
            Findings.of(_NAME).study,
            _SETTINGS,
            base=_SETTINGS.base,
            budgets=(256,),
            folder=folder_of(_NAME),
            revision=revision,
        )
        book.suggest()
    assert Findings.of(_NAME).revisions == ("abc", "def")
    assert "abc, then def" in read().text


def test_a_page_says_what_was_stopped_and_what_that_saved(
    home: Path, trained: tuple[Path, Report]
) -> None:
    book = begun(home)
    for value in (1.0, 2.0):
        number = start(book)
        for samples in (64, 128):
            cost = Cost(wall_s=samples / 8, samples=samples)
            if book.measured(number, numbers(value), samples=samples, cost=cost):
                break
        if value == 1.0:
            samples, cost = 256, Cost(wall_s=32.0, samples=256)
        report = trained[1].to_json()
        book.end(number, numbers(value), samples=samples, report=report, cost=cost)
    page = read()
    assert "2 of 4 trials ended: 1 finished, 1 stopped." in page.text
    assert "asha, place 2 of 2 after 64 samples, of which 1 go on" in page.cells
    # 192 of 512 samples, at 8 samples a second.
    assert "saved 192 samples, 38% of" in page.text
    assert "about 24 seconds" in page.text
    told = [one["alt"] for one in page.all("img")]
    assert "eval/w2 at 1 NFE of each trial where it was measured on its way" in told
    ledger = write_page(Findings.of(_NAME)).with_name("ledger.json")
    assert json.loads(ledger.read_text())["saved"]["samples"] == 192


def test_several_objectives_have_a_pareto_plot_and_a_column_each(
    home: Path, trained: tuple[Path, Report]
) -> None:
    both = {
        "quality": Objective(name="eval/w2", nfe=1),
        "cost": Objective(name="cost/training_s"),
    }
    plain = Stopping(kind="none")
    settings = replace(_SETTINGS, objectives=Objectives(by_label=both), scheduler=plain, trials=10)
    book = begun(home, settings)
    for value in range(10):
        cost = 10.0 - value if value else 0.5  # the first one is better in both
        finish(book, [float(value), cost], report=trained[1].to_json())
    page = read()
    told = [str(one["alt"]) for one in page.all("img")]
    assert "cost/training_s against eval/w2 at 1 NFE, with the Pareto set" in told
    assert "Importances of the swept keys" in told
    assert "over 10 finished trials" in page.text
    assert "Winner: trial 0" in page.text
    assert {"0 (-0.25 to 0.5)", "0.5 (0.25 to 1)"} <= set(page.cells)


def test_a_page_shows_what_was_tried_after_training_and_the_pareto_set_of_all_of_it(
    home: Path, trained: tuple[Path, Report]
) -> None:
    space = {"ema.width": {"kind": "uniform", "low": 0.02, "high": 0.2}}
    plain = Stopping(kind="none")
    settings = replace(
        _SETTINGS, scheduler=plain, posthoc=PostHoc.from_dict({"space": space}), trials=1
    )
    book, report = begun(home, settings), trained[1]
    number = start(book)
    for place, (tuned, judged) in enumerate([(0.5, 0.625), (0.125, 0.375), (0.25, 0.75)]):
        quality = numbers(judged)[0]
        one = SubTrial(
            place=place,
            values={"ema.width": 0.1 * place} if place else {},
            said=f"ema.width={0.1 * place}" if place else "as trained",
            tuned=tuple(numbers(tuned)),
            judged=(quality,),
            ways=(Way(nfe=1, quality=quality, latency=None),),
        )
        book.tried(number, one)
    book.tried(number, SubTrial(place=3, values={"ema.width": 0.15}, said="w", error="went wrong"))
    chosen = {"place": 1, "values": {"ema.width": 0.1}, "said": "ema.width=0.1"}
    book.end(
        number,
        numbers(0.375),
        samples=256,
        report=report.to_json(),
        cost=Cost(wall_s=9.0, training_s=4.0, samples=256, posthoc_s=2.5),
        chosen={**chosen, "as_trained": [[0.625, 0.375, 1.125]]},
    )
    page = read()
    assert (
        "Then it is used so: ema.width=0.1; as it was trained it had 0.625 (0.375 to 1.125)."
        in (page.text)
    )
    row = page.cells.index("chosen")
    assert page.cells[row - 5 : row + 1] == [
        "0",
        "ema.width=0.1",
        "0.125",
        "0.375 (0.125 to 0.875)",
        "0",
        "chosen",
    ]
    assert "went wrong" in page.cells
    # Two of the report, in the chosen way, and the other two ways at one evaluation.
    assert "Each of the 4 points" in page.text
    assert "eval/w2 against the cost of the training" in " ".join(
        str(one["alt"]) for one in page.all("img")
    )
    assert "2.5" in page.cells
    write_page(Findings.of(_NAME))
    assert "ema.width=0.1" in (folder_of(_NAME) / "table.md").read_text()


def test_a_sweep_whose_study_is_gone_is_refused(home: Path) -> None:
    begun(home)
    for file in home.glob("optuna.db*"):
        file.unlink()
    with pytest.raises(ValueError, match=rf"optuna.db has no study of sweep {_NAME}"):
        Findings.of(_NAME)


def test_a_page_of_a_running_sweep_knows_the_trials_that_go_on_from_a_rung(
    home: Path, trained: tuple[Path, Report]
) -> None:
    replanned = Stopping(kind="asha", grace_samples=64, reduction=2, replan=True)
    book = begun(home, replace(_SETTINGS, scheduler=replanned))
    cost, report = Cost(wall_s=10.0, training_s=8.0, samples=64), trained[1].to_json()
    for value in (2.0, 1.0):
        book.end(start(book), numbers(value), samples=64, report=report, cost=cost)
    assert start(book) == 1  # on the next rung now
    book.fail(start(book), "no room")
    page = read()
    assert "1 of 4 trials ended: 1 failed. 2 begun and not ended." in page.text
    assert "No whole run yet, best at the highest rung: trial 1" in page.text
    assert "so far a run of 64 samples" in page.text
    assert "Grey dots are trials that go on." in page.text
    order = [cell for cell in page.cells if cell in ("0", "1", "2")]
    assert order[:3] == ["1", "0", "2"]
    findings = Findings.of(_NAME)
    assert findings.best is not None
    assert "training.samples=64" in findings.best.overrides
    assert findings.ledger.total()["samples"] == 128
    assert findings.ledger.saved_samples == 0
    assert (findings.folder / "table.md").exists() is False
    write_page(findings)
    told = (findings.folder / "table.md").read_text()
    assert "No trial has run whole yet. The best at the highest rung, again:" in told


def test_a_page_calls_no_trial_a_winner_that_was_stopped(
    home: Path, trained: tuple[Path, Report]
) -> None:
    replanned = Stopping(kind="asha", grace_samples=64, reduction=2, replan=True)
    book = begun(home, replace(_SETTINGS, scheduler=replanned, trials=1))
    book.end(start(book), numbers(1.0), samples=64, report=trained[1].to_json(), cost=Cost())
    book.close()
    assert "No trial ran whole, best that was stopped: trial 0" in read().text
    assert "Winner" not in read().text
