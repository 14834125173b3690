"""Collapse to the mean and its cure, and captions that are obeyed."""

import pytest

from onestep.benchmarks import captions, mean_collapse, mean_collapse_page
from onestep.benchmarks.recipes import digest, digest_of
from onestep.tests.benchmarks.stored import read


@pytest.mark.parametrize("trial", mean_collapse.TRIALS)
def test_the_collapse_was_seen_on_the_recipe_of_today(trial: str) -> None:
    stored = read("mean_collapse")["trials"][trial]
    assert stored["digest"] == digest_of(mean_collapse.stages(trial))


def test_the_page_of_the_collapse_is_that_of_its_numbers() -> None:
    assert mean_collapse_page.PAGE.read_text() == mean_collapse_page.page(read("mean_collapse"))


def test_the_bars_of_the_collapse_refuse_a_collapse_that_is_cured_and_a_cure_that_is_none() -> None:
    stored = read("mean_collapse")
    trials = stored["trials"]
    cured = {**trials, "independent": trials["loom"]}
    assert not all(bar["reached"] for bar in mean_collapse.bars({**stored, "trials": cured}))
    for name in set(trials) - {"independent"}:
        lost = {**trials, name: trials["independent"]}
        assert not all(bar["reached"] for bar in mean_collapse.bars({**stored, "trials": lost}))


def test_captions_were_obeyed_by_the_recipe_of_today() -> None:
    stored = read("captions")
    assert stored["digest"] == digest(captions.RECIPE, captions.SHORT, dataset=captions.DATASET)
    assert captions.PAGE.read_text() == captions.page(stored)


def test_the_bars_of_captions_refuse_one_class_for_all_and_a_caption_that_is_not_read() -> None:
    stored = read("captions")
    step = stored["stages"][captions.STEP]
    for wrong in ({"agreement": step["shuffled"]}, {"shuffled": step["agreement"]}):
        stages = {**stored["stages"], captions.STEP: {**step, **wrong}}
        assert not all(bar["reached"] for bar in captions.bars({**stored, "stages": stages}))
