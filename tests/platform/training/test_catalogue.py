"""Every method resumes bitwise, is the same on two workers and in parts, and walks as recorded."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from onestep.tests.platform.training import golden
from onestep.tests.platform.training.catalogue import (
    CATALOGUE,
    HALF,
    NAMES,
    STEPS,
    experiment,
    learning,
    opened,
    saved,
    walk,
    walk_many,
)
from onestep.tests.platform.training.group import assert_equal, distance, leaves, run_group
from onestep.tests.platform.training.recipe import store_pairs

names = pytest.mark.parametrize("name", NAMES)


class Run(NamedTuple):
    """A run on one worker: its losses, and its saved states in the middle and at the end."""

    losses: list[float]
    half: bytes
    last: dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of pairs."""
    place = tmp_path_factory.mktemp("catalogue") / "pairs"
    store_pairs(place)
    return place


@pytest.fixture(scope="module")
def whole(folder: Path) -> Callable[[str], Run]:
    """The run of a method, made once."""

    @cache
    def run(name: str) -> Run:
        mine = learning(experiment(name, folder))
        losses = walk(mine, HALF)
        half = saved(mine)
        losses += walk(mine, STEPS - HALF)
        return Run(losses=losses, half=half, last=opened(saved(mine)))

    return run


def test_a_target_moves_when_the_network_does(folder: Path) -> None:
    """With its critic, CTM's network moves every other step, the critic first."""
    mine = learning(experiment("consistency_trajectory with a critic", folder))
    assert mine.nets.target is not None
    moved = []
    for _ in range(STEPS):
        before = [weight.clone() for weight in mine.nets.target.parameters()]
        walk(mine, 1)
        after = mine.nets.target.parameters()
        moved.append(not all(map(torch.equal, before, after)))
    assert moved == [False, True] * (STEPS // 2)


@names
def test_a_method_resumes_bitwise(name: str, whole: Callable[[str], Run], folder: Path) -> None:
    losses, half, last = whole(name)
    resumed = learning(experiment(name, folder))
    resumed.load(HALF, opened(half))
    assert walk(resumed, STEPS - HALF) == losses[HALF:]
    assert_equal(opened(saved(resumed)), last)
    assert distance(opened(half)["online"], last["online"]) > 1e-3, "nothing was learned"


@names
def test_a_batch_in_parts_is_the_batch(
    name: str, whole: Callable[[str], Run], folder: Path
) -> None:
    cut = learning(experiment(name, folder, parts=2))
    walk(cut, STEPS)
    assert distance(opened(saved(cut)), whole(name).last) < 1e-10


def test_two_workers_walk_the_way_of_one(whole: Callable[[str], Run], folder: Path) -> None:
    experiments = {name: experiment(name, folder) for name in NAMES}
    for name, together in run_group(walk_many, 2, experiments)[0].items():
        assert distance(opened(together), whole(name).last) < 1e-10, name


def test_the_methods_need_parts_of_every_kind(whole: Callable[[str], Run], folder: Path) -> None:
    """What the tests above are about, beside the online network."""
    kinds = set[str]()
    for name in NAMES:
        kinds |= {
            leaf.split("/")[1]
            for leaf, value in leaves(whole(name).last).items()
            if value is not None
        }
        kinds |= experiment(name, folder)["parents"].keys()
    assert {"target", "companions", "coupling", "teacher", "weak", "pairs"} <= kinds


@pytest.mark.parametrize("name", golden.SHORT)
def test_a_method_walks_as_recorded(name: str, whole: Callable[[str], Run]) -> None:
    """A change that is meant is recorded anew by ``make golden``, with a sentence of reason."""
    recorded = golden.read(name)
    assert list(recorded) == list(range(1, STEPS + 1))
    assert whole(name).losses == pytest.approx(list(recorded.values()), rel=1e-10)


def test_every_method_is_recorded() -> None:
    assert {path.stem for path in golden.FOLDER.glob("*.txt")} == set(CATALOGUE)
