"""The page of a sweep: one HTML file with all that it found, which needs nothing beside it."""

import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from ..platform.atomic import write_json, write_text
from ..platform.evaluation.figures import png_of, quality_against_nfe
from ..platform.evaluation.report import Report
from ..platform.password import hide_passwords
from . import charts, curricula, fairness
from .ancestry import ancestry
from .findings import Findings
from .gallery import gallery_of
from .importance import EVALUATOR, importances_of
from .ledger import LEDGER, Ledger
from .markup import Html, breakable, joined, picture, table, tag
from .objective import Number
from .pareto_page import after_training, pareto_section
from .record import Outcome, TrialRecord
from .report import FRONT_FIRST, promotion, shown, wanted, write_report
from .settings import SweepSettings
from .style import STYLE
from .warm_start import FirstPoints
from .winner import KEPT
from .yardstick import yardsticks

PAGE: Final = "report.html"
_FEW: Final = 50
"""Trials below which importances are a rough guide."""


def write_page(findings: Findings) -> Path:
    """Write page, ledger, table and records into the folder of a sweep.

    Args:
        findings: What is known of the sweep, which another process may be running.

    Returns:
        The page.
    """
    write_report(
        sorted(findings.ranked, key=lambda one: one.number),
        findings.settings,
        name=findings.name,
        folder=findings.folder,
        ending=findings.ending,
        untried=findings.untried,
    )
    write_json(findings.folder / LEDGER, findings.ledger.to_dict())
    write_text(findings.folder / PAGE, page_of(findings, now=datetime.datetime.now(datetime.UTC)))
    return findings.folder / PAGE


def page_of(findings: Findings, *, now: datetime.datetime) -> str:
    """The page of a sweep, running or not.

    Args:
        findings: What is known of the sweep.
        now: When it is written.

    Returns:
        HTML that loads nothing.
    """
    title = f"Sweep {findings.name}"
    sections = [
        _section("Trials", [*_trials(findings), *_begun(findings)]),
        *([_section("Lineage", _lineage(findings))] if _is_population(findings) else []),
        _section("Quality", _quality(findings)),
        *([_section("After training", tried)] if (tried := after_training(findings)) else []),
        _section("Pareto set", pareto_section(findings)),
        _section("Keys", _keys(findings)),
        _section("Schedules", _schedules(findings)),
        _section("Learning", _learning(findings)),
        _section("Samples", _samples(findings)),
        _section("Stopped and failed", _ends(findings)),
        _section("Costs", _costs(findings.ledger)),
        _section("Provenance", _provenance(findings)),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", STYLE),
    )
    moment = f"{now:%Y-%m-%d %H:%M} UTC"
    header = tag("header", tag("h1", title), tag("p", f"{_state(findings)} Written at {moment}."))
    main = tag("main", _winner(findings), *sections)
    return f"<!doctype html>\n{tag('html', head, tag('body', header, main), lang='en')}\n"


def _state(findings: Findings) -> str:
    ended, running = len(findings.ended), len(findings.running)
    planned = findings.settings.trials
    ways = [
        f"{n} {outcome}"
        for outcome in Outcome
        if (n := sum(one.outcome is outcome for one in findings.ended))
    ]
    said = f"{ended} of {planned} trials ended" + (f": {', '.join(ways)}." if ways else ".")
    said += f" {running} begun and not ended." if running else ""
    if findings.ending:
        return f"{said} The sweep has ended: {findings.ending}."
    if ended >= planned:
        return said
    return f"{said} If nobody runs it any more, onestep sweep --resume {findings.name} goes on."


def _winner(findings: Findings) -> Html:
    best = findings.best
    if best is None:
        return tag("section", tag("h2", "Winner"), tag("p", "No trial has been measured yet."))
    planned = findings.settings.trials
    is_over = bool(findings.ending) or (len(findings.ended) >= planned and not findings.running)
    numbers = [
        tag("div", tag("dt", str(one)), tag("dd", _number(number)))
        for one, number in zip(findings.objectives.all, best.results, strict=True)
    ]
    values = [
        tag("div", tag("dt", breakable(key)), tag("dd", shown(value)))
        for key, value in best.values.items()
    ]
    title = f"{'Winner' if is_over else 'Best so far'}: trial {best.number}"
    if best.outcome is not Outcome.FINISHED:
        which = "at the highest rung" if best.outcome is Outcome.UNDERWAY else "that was stopped"
        title = f"No whole run yet, best {which}: trial {best.number}"
    if best.outcome is not Outcome.FINISHED and is_over:
        title = f"No trial ran whole, best that was stopped: trial {best.number}"
    parts = [
        tag("h2", title),
        tag("dl", *numbers, class_="numbers"),
        *(tag("p", one) for one in yardsticks(best, findings.objectives, findings.folder)),
        tag("dl", *values, class_="values"),
        tag("p", f"This line repeats {'its training' if best.said else 'it'}:"),
        tag("pre", tag("code", best.command), tabindex="0"),
    ]
    if best.said:
        parts.append(tag("p", joined("Then it is used so: ", tag("code", best.said), _gain(best))))
    if findings.model is not None:
        line = promotion(findings.model, findings.name)
        registered = joined("It is registered as ", tag("strong", findings.model))
        parts += [
            tag("p", registered, "; this line lets an alias mean it, which is then served:"),
            tag("pre", tag("code", line), tabindex="0"),
        ]
    return tag("section", *parts, class_="winner")


def _gain(best: TrialRecord) -> str:
    if not best.chosen or not best.as_trained:
        return ""
    return f"; as it was trained it had {best.as_trained[0]}."


def _trials(findings: Findings) -> list[Html]:
    if not findings.ranked:
        return [tag("p", "None has ended yet.")]
    keys = list(findings.keys)
    labels = [
        joined(str(one), tag("br"), tag("small", one.mode)) for one in findings.objectives.all
    ]
    head = ["trial", *labels, *map(breakable, keys), "samples", "seconds", "outcome"]
    rows = [_row(one, keys, len(labels)) for one in findings.ranked]
    commands = [
        tag("li", f"trial {one.number}", tag("pre", tag("code", one.command), tabindex="0"))
        for one in findings.ranked
    ]
    intervals = "From best to worst, with intervals at 95 %. "
    if len(labels) > 1:
        intervals += f"{FRONT_FIRST} "
    return [
        tag("p", intervals, "A dash stands where a trial has no such key or number."),
        table(head, rows),
        *([tag("p", findings.untried)] if findings.untried else []),
        tag("details", tag("summary", "The line that repeats each trial"), tag("ul", *commands)),
    ]


def _begun(findings: Findings) -> list[Html]:
    """The trials that have not ended, by the lines that they are."""
    lines = [
        tag("li", f"trial {number}", tag("pre", tag("code", command), tabindex="0"))
        for number, command in findings.running.items()
    ]
    return [tag("p", "Begun and not ended:"), tag("ul", *lines)] if lines else []


def _row(trial: TrialRecord, keys: list[str], objectives: int) -> list[str]:
    numbers: list[str] = [_number(one) for one in trial.results] or ["-"] * objectives
    values = [shown(trial.values[key]) if key in trial.values else "-" for key in keys]
    ending: list[str] = [str(trial.outcome)]
    if trial.chosen:
        ending.append(joined(tag("br"), tag("small", trial.said)))
    if trial.remark:
        ending.append(joined(tag("br"), tag("small", trial.remark)))
    samples = f"{trial.samples:,}" if trial.samples else "-"
    end = tag("span", *ending, class_=trial.outcome)
    return [str(trial.number), *numbers, *values, samples, f"{trial.cost.wall_s:.4g}", end]


def _is_population(findings: Findings) -> bool:
    return findings.settings.scheduler.is_population


def _lineage(findings: Findings) -> list[Html]:
    measured = [one for one in findings.measured if one.lineage is not None]
    if not measured:
        return [tag("p", "No trial has been measured yet.")]
    best = measured[0]
    rows = []
    for one in sorted(findings.ended, key=lambda each: each.number):
        lineage = one.lineage
        assert lineage is not None
        numbers = [str(each) for each in one.results] or ["-"] * len(findings.objectives.all)
        begun = "the start" if lineage.parent is None else f"trial {lineage.parent}"
        state = "" if lineage.beginning is None else f"sha256 {lineage.beginning.sha256[:12]}"
        rows.append(
            [
                str(one.number),
                str(lineage.generation),
                str(lineage.member),
                joined(begun, tag("br"), tag("small", state)) if state else begun,
                "copied" if lineage.was_replaced else "-",
                *numbers,
            ]
        )
    told = [tag("li", one) for one in ancestry(best, findings.ended, findings.objectives)]
    head = ["trial", "generation", "member", "began from", "", *map(str, findings.objectives.all)]
    repeats = (
        "The line that repeats the winner trains all of this again in one run, to the same bits: "
        "its changes stand in it, each with the samples after which it holds."
    )
    return [
        tag("p", f"How trial {best.number} came about, from the first sample on:"),
        tag("ol", *told),
        tag("p", repeats),
        tag("details", tag("summary", "All trials by generation"), table(head, rows)),
    ]


def _quality(findings: Findings) -> list[Html]:
    objectives, parts = findings.objectives, []
    for place in range(1, len(objectives.all) if findings.measured else 0):
        figure = charts.pareto(findings.measured, objectives, place=place)
        told = f"{objectives.all[place]} against {objectives.lead}, with the Pareto set"
        caption = f"The Pareto set of the finished trials is ringed. {_marks(findings)}"
        parts.append(_figure(figure, told, caption))
    reports = [
        replace(report, provenance=replace(report.provenance, model=f"trial {one.number}"))
        for one in findings.leaders
        if (report := findings.report(one)) is not None
    ]
    names = dict.fromkeys(one.name for one in objectives.all if one.nfe is not None)
    for name in names:
        having = [one for one in reports if _has(one, name)]
        nfes = sorted({nfe for report in having for nfe in report.nfes})
        if len(nfes) > 1:
            caption = f"Measured at {', '.join(map(str, nfes))} network evaluations of a sample."
            told = f"{name} of the leading trials against the number of network evaluations"
            figure = quality_against_nfe(having, metric=name)
            parts.append(_figure(figure, told, caption))
    if parts:
        return [_flow(parts)]
    if not reports:
        return [tag("p", "No trial has come to its end yet.")]
    few = "The trials were measured at one number of network evaluations, which makes no curve."
    return [tag("p", few)]


def _has(report: Report, name: str) -> bool:
    return any(one.name == name and one.nfe for one in report.measurements)


def _marks(findings: Findings) -> str:
    going_on = " Grey dots are trials that go on." if findings.underway else ""
    return f"Grey crosses are trials that were stopped.{going_on}"


def _keys(findings: Findings) -> list[Html]:
    if not findings.measured:
        return [tag("p", "No trial has been measured yet.")]
    lead = findings.objectives.lead
    figures = [
        _figure(charts.against_key(findings.measured, lead, key, law), f"{lead} against {key}")
        for key, law in findings.keys.items()
    ]
    parts = [tag("p", f"Intervals are at 95 %. {_marks(findings)}"), _flow(figures)]
    if findings.settings.scheduler.is_population:
        said = "No importances: trials of a population are parts of runs, of different lengths."
        return [*parts, tag("p", said)]
    try:
        found = importances_of(findings.study, findings.objectives)
    except ValueError as error:
        return [*parts, tag("p", f"No importances: {error}.")]
    note = (
        f"Importances by {EVALUATOR} over {found.trials} finished trials: which share of an "
        "objective's variance over the space goes with a key alone; the rest goes with several."
    )
    if found.trials < _FEW:
        note += (
            f" With fewer than {_FEW} trials they are a rough guide, and may order keys wrongly."
        )
    if found.left_out:
        note += f" Keys that not every trial has are left out: {', '.join(found.left_out)}."
    return [*parts, _figure(charts.importances(found), "Importances of the swept keys", note)]


def _schedules(findings: Findings) -> list[Html]:
    trials = findings.measured[:KEPT]
    if not trials:
        return [tag("p", "No trial has been measured yet.")]
    try:
        figures = curricula.figures_of(trials)
    except ValueError as error:
        return [tag("p", f"They cannot be drawn: {error}.")]
    if not figures:
        return [tag("p", "No schedule of the leading trials moves or differs.")]
    drawn = [
        _figure(figure, f"{path} of the leading trials over the run")
        for path, figure in figures.items()
    ]
    return [
        tag("p", "Schedules that move, or that differ between the leading trials."),
        _flow(drawn),
    ]


def _learning(findings: Findings) -> list[Html]:
    leaders = [one.number for one in findings.measured[:KEPT]]
    losses = {one.number: readings for one in findings.trials if (readings := findings.losses(one))}
    parts = []
    if losses:
        figure = charts.losses(losses, leaders=leaders)
        caption = (
            "The mean loss of each trial since its reading before. Losses of different methods or "
            "weights are on different scales."
        )
        parts.append(_figure(figure, "Training loss of each trial over samples seen", caption))
    rungs = {one.number: rungs for one in findings.trials if (rungs := findings.rungs(one))}
    ends = {one.number: one for one in findings.measured}
    if rungs:
        for number in rungs:
            if number in ends:
                rungs[number] |= {ends[number].samples: ends[number].results[0].value}
        lead = findings.objectives.lead
        figure = charts.rungs(rungs, lead, leaders=leaders)
        parts.append(_figure(figure, f"{lead} of each trial where it was measured on its way"))
    return [_flow(parts)] if parts else [tag("p", "No trial has told its loss yet.")]


def _samples(findings: Findings) -> list[Html]:
    if not findings.leaders:
        return [tag("p", "No trial has come to its end yet.")]
    found = gallery_of(findings)
    parts = [tag("p", f"Not shown is {one}.") for one in found.missing]
    if found.figure is not None:
        caption = "By the leading trials, all from the same noise."
        parts.insert(0, _figure(found.figure, "Samples of the leading trials", caption))
    return parts


def _ends(findings: Findings) -> list[Html]:
    early = [one for one in findings.ranked if one.outcome in (Outcome.STOPPED, Outcome.FAILED)]
    if not early:
        return [tag("p", "No trial was stopped or failed.")]
    rows = [
        [
            str(one.number),
            tag("span", str(one.outcome), class_=one.outcome),
            one.remark,
            f"{one.samples:,}" if one.samples else "-",
            f"{one.cost.wall_s:.4g}",
        ]
        for one in early
    ]
    return [table(["trial", "outcome", "why", "samples", "seconds"], rows)]


def _costs(ledger: Ledger) -> list[Html]:
    if not ledger.entries:
        return [tag("p", "No trial has ended yet.")]
    columns: dict[str, Callable[[float], str]] = {
        "trials": "{:,.0f}".format,
        "samples": "{:,.0f}".format,
        "wall_s": "{:,.1f}".format,
        "training_s": "{:,.1f}".format,
    }
    titles = ["outcome", "trials", "samples", "seconds held", "seconds of training, processor"]
    if ledger.total()["posthoc_s"]:
        columns["posthoc_s"] = "{:,.1f}".format
        titles.append("seconds of settings tried")
    if ledger.total()["gpu_s"]:
        columns["gpu_s"] = "{:,.1f}".format
        titles.append("seconds of GPUs")
    if ledger.has_price:
        columns["money"] = "{:,.2f}".format
        titles.append("money")

    def cells(outcome: Outcome | None) -> list[str]:
        total = ledger.total(outcome)
        return [form(total[column]) for column, form in columns.items()]

    rows = [
        [str(outcome), *cells(outcome)] for outcome in Outcome if ledger.total(outcome)["trials"]
    ]
    parts = [table(titles, rows, foot=["all", *cells(None)])]
    if ledger.saved_samples > 0:
        text = (
            f"Early stopping saved {ledger.saved_samples:,} samples, {ledger.saved_share:.0%} of "
            "those that these trials would have seen at full length, and about "
            f"{ledger.saved_s:,.0f} seconds at the pace of each trial."
        )
        parts.append(tag("p", text))
    elif ledger.saved_samples < 0:
        text = (
            f"Early stopping saved nothing: with runs that begin anew at each rung, these trials "
            f"took {-ledger.saved_samples:,} samples more than they would have at full length."
        )
        parts.append(tag("p", text))
    return parts


def _provenance(findings: Findings) -> list[Html]:
    settings = findings.settings
    facts = {
        "objectives": wanted(settings),
        "sampler": ", ".join([str(settings.sampler), *_of_sampler(settings)]),
        "seed": str(settings.seed),
        "early stopping": ", ".join(
            [
                str(settings.scheduler.kind),
                *(f"{key} {value}" for key, value in settings.scheduler.effective.items()),
            ]
        ),
        "fairness": fairness.judged(settings.scheduler),
        "trials at once": str(settings.concurrency),
        "data": f"sha256 {findings.data_digest}" if findings.data_digest else "not known yet",
        "code": ", then ".join(findings.revisions),
        "folder": str(findings.folder),
    }
    first = FirstPoints.known_to(findings.study) or FirstPoints()
    if first.points:
        facts["warm start"] = "; ".join(first.sentences(settings.founders))
    pairs = [tag("div", tag("dt", key), tag("dd", breakable(text))) for key, text in facts.items()]
    base = [tag("li", tag("code", hide_passwords(one))) for one in settings.base]
    return [
        tag("dl", *pairs, class_="values"),
        tag(
            "details",
            tag("summary", f"{len(base)} overrides of every trial"),
            tag("ul", *base),
        ),
    ]


def _of_sampler(settings: SweepSettings) -> list[str]:
    """The settings that have an effect on who suggests the points."""
    texts = {
        "startup": f"{settings.startup} random trials first",
        "population": f"{settings.population} trials of a generation",
    }
    return [text for name, text in texts.items() if name not in settings.idle]


def _section(title: str, parts: list[Html]) -> Html:
    return tag("section", tag("h2", title), *parts)


def _flow(parts: list[Html]) -> Html:
    """Pictures beside each other, as many as there is room for."""
    return tag("div", *parts, class_="flow")


def _figure(figure: Figure, told: str, caption: str = "") -> Html:
    return picture(png_of(figure), told=told, caption=caption)


def _number(number: Number) -> Html:
    if number.low == number.high:
        return joined(f"{number.value:.4g}")
    low, high = f"{number.low:.4g}", f"{number.high:.4g}"
    return joined(f"{number.value:.4g} ", tag("small", f"({low} to {high})"))
