"""The search: Ray Tune runs the trials of a plan, and the study remembers them."""

import datetime
import os
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from ray import tune

from ..platform.data.source import Dataset
from ..platform.experiment import Workers
from ..platform.home import Home
from ..platform.lock import alone
from ..platform.ray_instance import ray_instance, whole_cpus
from ..platform.registry.connection import Connection, check_tracking
from ..platform.registry.errors import RegistryUnreachable
from ..platform.registry.revision import code_digest, code_files, code_revision
from ..platform.registry.run import RunFacts
from ..platform.shared_storage import check_shared
from ..platform.training.assembly import Models, home_of, registry_of
from ..platform.training.nodes import marked
from ..platform.training.preparation import Preparation
from ..platform.training.ray_train import Loaded
from ..platform.training.reporter import check_wandb
from .board import Show
from .book import Book
from .charges import check_counts
from .cost import Budget
from .earlier import first_points
from .ending import ANEW, has_ended
from .findings import DIGEST, Findings
from .journal import Journal, Say
from .ledger import LEDGER
from .note import COUNTS, SweepNote, changed_files, changes, folder_of, latest_of, name_folder
from .outage import answering
from .plan import Plan
from .progress import Progress
from .remembered import RememberedStorage
from .report import TABLE, SweepResult, result_of_sweep, write_report
from .restart import restart
from .settings import SweepSettings
from .study import begin, check_storage, ended, open_storage, storage_url
from .subtrial import substudy_of
from .trial import try_overrides
from .tuning import run_trials
from .untried import untried
from .warm_start import FirstPoints
from .winner import keep_leaders, register_winner, revision_of, unregistered


def _silence(line: str) -> None:
    del line


def _unseen(lines: Sequence[str]) -> None:
    del lines


def sweep(settings: SweepSettings, *, say: Say = _silence, show: Show = _unseen) -> SweepResult:
    """Run a new sweep.

    Every key and bound is tried before anything is written, and the first point of the space on its
    parents and data. Parents are the versions that their aliases mean now, in all trials.

    Args:
        settings: The sweep.
        say: Told what happens, one line per trial.
        show: Told how far the sweep is, again and again.

    Returns:
        What it found; page and table lie in its folder.

    Raises:
        ValueError: If the sweep is refused, a store does not answer or all trials fail.
    """
    plan = Plan.of(settings)
    _check_stores(plan)
    plan = plan.with_versions(registry_of(plan.experiment))
    now = datetime.datetime.now(datetime.UTC)
    name = f"{settings.name}-{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"
    note = SweepNote(
        asked=settings,
        settings=plan.settings,
        revision=code_revision(),
        code=code_digest(),
        files=code_files(),
    )
    return _run(plan, note, name, say, show, first=first_points(plan))


def resume(
    name: str,
    *,
    trials: int | None = None,
    concurrency: int | None = None,
    retries: int | None = None,
    budget: Budget | None = None,
    address: str | None = None,
    wandb: bool | None = None,
    any_code: bool = False,
    say: Say = _silence,
    show: Show = _unseen,
) -> SweepResult:
    """Go on with a sweep; trials that have ended are kept as they are.

    Args:
        name: Name of the sweep, as it was printed.
        trials: Another number of trials in all, or None.
        concurrency: Another number of trials at once, or None.
        retries: Another number of retries of each trial, or None.
        budget: Another budget, or None.
        address: Another Ray cluster, or None.
        wandb: Whether Weights & Biases is told of trials from now on, or None for as before.
        any_code: Whether the code may be another than it was begun with.
        say: Told what happens.
        show: Told how far the sweep is.

    Returns:
        What the whole sweep found.

    Raises:
        ValueError: If there is no such sweep, it is running, its data or code have changed, or it
            has exceeded another count or limit already.
    """
    note, code = SweepNote.of(name), code_digest()
    if not any_code and note.code != code:
        found = changed_files(note.files, code_files())
        raise ValueError(
            f"sweep {name} was begun with code {note.code[:12]} (revision {note.revision}), this "
            f"is {code[:12]} ({code_revision()}){found and f', {found}'}: its trials would not "
            f"compare; go back to that code, accept this one by --any-code, or {ANEW}"
        )
    if note.settings.scheduler.is_population and trials not in (None, note.settings.trials):
        raise ValueError(
            f"sweep {name} trains a population in {note.settings.trials} trials, which cut its run "
            f"into generations: it goes on with as many, got {trials}"
        )
    given: dict[str, Any] = {
        "trials": trials,
        "concurrency": concurrency,
        "retries": retries,
        "budget": budget,
        "address": address,
        "wandb": wandb,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    settings = replace(note.settings, **changed)
    plan = Plan.of(settings)
    _check_stores(plan)
    return _run(plan, replace(note, settings=settings), name, say, show, before=note.settings)


def sweep_or_resume(
    settings: SweepSettings,
    *,
    any_code: bool = False,
    say: Say = _silence,
    show: Show = _unseen,
) -> SweepResult:
    """Go on with the last sweep of these settings, or run a new one where there is none.

    The same command, given again after every kill, brings one sweep to its end. One that has ended,
    with other settings or code, is followed by a new one.

    Args:
        settings: The sweep.
        any_code: Whether the code may be another than it was begun with.
        say: Told what happens.
        show: Told how far the sweep is.

    Returns:
        What the whole sweep found.

    Raises:
        ValueError: If the last sweep of this name has not ended and was another one, or of other
            code, or what ``sweep`` and ``resume`` raise.
    """
    # From the look-up on: two that begin together would both find no sweep to go on with.
    with alone(name_folder(settings.name), what="sweep"):
        return _sweep_or_resume(settings, any_code=any_code, say=say, show=show)


def _sweep_or_resume(
    settings: SweepSettings, *, any_code: bool, say: Say, show: Show
) -> SweepResult:
    name = latest_of(settings)
    if name is None:
        return sweep(settings, say=say, show=show)
    note = SweepNote.of(name)
    found = changes(note.asked, settings)
    other = "settings" if found else "code" if note.code != code_digest() and not any_code else ""
    if other and _is_over(name, note.settings):
        say(f"sweep {name} has ended, with other {other}: a new one begins")
        return sweep(settings, say=say, show=show)
    if found:
        raise ValueError(
            f"sweep {name} has not ended and is another one ({found}): bring it to its end by "
            f"--resume {name}, or {ANEW}"
        )
    return resume(
        name,
        **{count: getattr(settings, count) for count in COUNTS},
        any_code=any_code,
        say=say,
        show=show,
    )


def _is_over(name: str, settings: SweepSettings) -> bool:
    study = _study_of(name, settings)
    return has_ended(study, settings) or len(ended(study)) >= settings.trials


def _check_stores(plan: Plan) -> None:
    home = home_of(plan.experiment)
    check_tracking(home.tracking_uri, artifacts=home.artifacts)
    check_storage(storage_url(plan.settings, home.root))
    if plan.settings.wandb:
        check_wandb()


def _study_of(name: str, settings: SweepSettings) -> optuna.Study:
    storage = open_storage(storage_url(settings, Home.here().root))
    return begin(storage, name, settings.objectives)


def _run(
    plan: Plan,
    note: SweepNote,
    name: str,
    say: Say,
    show: Show,
    *,
    first: FirstPoints | None = None,
    before: SweepSettings | None = None,
) -> SweepResult:
    home, folder = home_of(plan.experiment), folder_of(name)
    ready = plan.prepare(folder)
    settings, url = plan.settings, storage_url(plan.settings, home.root)
    # Last: it makes the file of a new database. Sub-trials are a study of their own, which the
    # sweep's reads, too.
    storage = RememberedStorage(open_storage(url))
    # Two processes would run each other's trials twice.
    with alone(folder, what="sweep"), answering(url, name=name):
        study = begin(storage, name, settings.objectives)
        _check_data(study, ready.dataset)
        if before is not None:
            check_counts(study.get_trials(deepcopy=False), before=before, now=settings)
        note.keep(name)
        facts = _facts(plan, ready.dataset, name=name)
        first = _first_of(study, plan, first, say)
        book = Book(
            study,
            settings,
            base=plan.base,
            folder=folder,
            budgets=plan.budgets,
            first=first.points,
            substudy=substudy_of(storage, name, settings),
            revision=facts.revision,
        )
        done = len(ended(study))
        say(
            f"sweep {name}: {settings.trials} trials, {settings.objectives}, {done} ended before"
            + (f", {len(book.interrupted)} go on" if book.interrupted else "")
        )
        if settings.unlearned:
            say(settings.unlearned)
        for trial in book.interrupted:
            say(restart(trial, plan, folder))
        journal = Journal(
            study,
            settings,
            folder=folder,
            connection=Connection(home.tracking_uri, artifacts=home.artifacts),
            facts=facts,
            say=say,
        )
        _keep_leaders(study, settings, folder)
        with _kept(journal, name, say):
            if not book.is_done:
                progress = Progress(study, settings, budgets=plan.budgets, folder=folder, show=show)
                callbacks = [journal, progress]
                _search(plan, book, callbacks, ready, home=home, folder=folder)
            book.close()
            _keep_leaders(study, settings, folder)  # of all that are closed now
            if ending := book.ending:
                say(f"the sweep has ended: {ending}")
            result = result_of_sweep(
                ended(study), settings, study_name=name, storage=url, folder=folder
            )
            if reason := unregistered(result.best, plan.samples):
                say(reason)
            write_report(
                result.trials,
                settings,
                name=name,
                folder=folder,
                ending=ending,
                untried=untried(study),
            )
            journal.catch_up()
            run = journal.run_of(result.best.number)
            unknown = ", ".join(dict.fromkeys((note.revision, facts.revision)))
            revision = revision_of(result.best, result.trials, unknown=unknown)
            model = register_winner(
                result.best, plan, ready, run, study=study, folder=folder, revision=revision
            )
            # What draws is slow to import, and a sweep begins without it.
            from .page import PAGE, write_page

            write_page(Findings(study=study, note=note, folder=folder))
            journal.keep(PAGE, TABLE, LEDGER)
    return replace(result, model=model)


def _keep_leaders(study: optuna.Study, settings: SweepSettings, folder: Path) -> None:
    generations = settings.generations
    keep_leaders(folder, ended(study), settings.objectives, generations=generations)


@contextmanager
def _kept(journal: Journal, name: str, say: Say) -> Iterator[None]:
    """The MLflow run of a sweep, from which in the end no trial is missing."""
    try:
        with journal.run, journal:
            journal.catch_up()
            yield
            journal.catch_up()
    except KeyboardInterrupt:
        say(f"interrupted; `onestep sweep --resume {name}` goes on")
        raise
    except RegistryUnreachable as error:
        raise RegistryUnreachable(
            f"no trial of sweep {name} is lost, and --resume {name} writes into MLflow what is "
            f"missing there: {error}"
        ) from error


def _search(
    plan: Plan,
    book: Book,
    callbacks: list[tune.Callback],
    ready: Preparation,
    *,
    home: Home,
    folder: Path,
) -> None:
    settings = plan.settings
    workers = plan.experiment.workers
    resources = {"cpu": workers.cpus_per_worker, "gpu": workers.gpus_per_worker}
    if workers.uses_ray:
        # They are the workers' own, which the trial asks Ray for. It takes a byte of memory
        # itself, because Ray Tune knows no trial that takes nothing.
        resources = {"cpu": 0.0, "memory": 1.0}
    # Passwords of stores are among them.
    parts = {
        "objectives": settings.objectives.to_dict(),
        "budgets": plan.on_the_way,
        "last_rung": len(plan.budgets) - 1,
        "folder": str(folder),
        "posthoc": settings.posthoc and settings.posthoc.to_dict(),
        "latency": asdict(settings.latency),
        "seed": settings.seed,
        "base": plan.base,
        "environment": home.variables(os.environ) | _wandb_variables(settings),
        "wandb": settings.wandb,
    }
    instance = ray_instance(
        address=settings.address,
        num_cpus=whole_cpus(plan.cpus),
        tells_state=workers.uses_ray,
    )
    with ThreadPoolExecutor(1) as beside:
        # Ray's start is mostly waiting.
        judging = beside.submit(plan.benchmark, ready.dataset)
        tuning = beside.submit(plan.tuning_benchmark, ready.dataset)
        models = beside.submit(ready.assembly.load_models)
        with instance as is_own, _shared(folder, workers, is_own=is_own) as mark:
            run_trials(
                try_overrides,
                book,
                resources=resources,
                parts=parts
                | {
                    "benchmark": judging.result(),
                    "tuning": tuning.result(),
                    "models": models.result(),
                    "loaded": _loaded(ready.dataset, models.result(), workers),
                    "mark": mark,
                },
                concurrency=settings.concurrency,
                callbacks=callbacks,
                folder=folder,
            )


def _loaded(dataset: Dataset, models: Models, workers: Workers) -> Loaded | None:
    """Data and parents where the workers of all groups find them; Ray is up."""
    return Loaded.put(dataset, models) if workers.uses_ray else None


@contextmanager
def _shared(folder: Path, workers: Workers, *, is_own: bool) -> Iterator[tuple[Path, str] | None]:
    """The mark of a folder that the nodes share that may get a trial; None on this machine alone.

    Where they do not, checkpoints of trials would be lost with their nodes. Trials on nodes that
    come later look for the mark themselves.
    """
    if is_own:
        yield None
        return
    # The process of a trial of several workers takes no CPU, and may be on any node.
    needed = {"CPU": workers.cpus_per_worker, "GPU": workers.gpus_per_worker}
    check_shared(folder, needed=None if workers.uses_ray else needed)
    with marked(folder) as mark:
        yield mark


def _wandb_variables(settings: SweepSettings) -> dict[str, str]:
    """What says on this machine how Weights & Biases is used, for trials on others."""
    if not settings.wandb:
        return {}
    return {key: value for key, value in os.environ.items() if key.startswith("WANDB_")}


def _first_of(study: optuna.Study, plan: Plan, found: FirstPoints | None, say: Say) -> FirstPoints:
    """The points that a sweep tries first, which its study remembers from its beginning on."""
    known = FirstPoints.known_to(study)
    if known is not None:
        return known
    # Without trials: a sweep that was begun before there were any first points has none.
    first = found or (FirstPoints() if study.get_trials(deepcopy=False) else first_points(plan))
    first.keep(study)
    for line in first.sentences(plan.settings.founders):
        say(line)
    return first


def _facts(plan: Plan, dataset: Dataset, *, name: str) -> RunFacts:
    return RunFacts(
        experiment=dataset.name,
        name=name,
        config=plan.settings.to_dict(),
        overrides=plan.base,
        seed=plan.settings.seed,
        data_digest=dataset.digest,
    )


def _check_data(study: optuna.Study, dataset: Dataset) -> None:
    digest = dataset.digest
    known = study.user_attrs.get(DIGEST, digest)
    if known != digest:
        raise ValueError(
            f"sweep {study.study_name} was begun on other data: their digest is {known[:12]}..., "
            f"that of {dataset.name} is now {digest[:12]}..."
        )
    study.set_user_attr(DIGEST, digest)
