from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onestep.methods.core.method import PairMix
from onestep.methods.core.record import Batch, Moment
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant, Linear, Piecewise
from onestep.platform.data.digits import Digits
from onestep.platform.data.gaussians import EightGaussians
from onestep.platform.training.feed import AbstractFeed, DataFeed, PairFeed
from onestep.tests.platform.training.recipe import store_pairs

TOTAL = 50


def now(step: int) -> Moment:
    return Moment(step=step, total=TOTAL, rng=Rng.seeded(99), batch_size=32)


def assert_same(a: Batch, b: Batch) -> None:
    assert torch.equal(a.x1, b.x1)
    assert torch.equal(a.index, b.index)
    assert (a.x0 is None) is (b.x0 is None)
    if a.x0 is not None and b.x0 is not None:
        assert torch.equal(a.x0, b.x0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module", params=["data", "flipped", "pairs"])
def feed(request: pytest.FixtureRequest, folder: Path) -> AbstractFeed:
    if request.param == "pairs":
        share = PairMix(generated=Linear(start=0.4, end=0.9))
        return PairFeed(store_pairs(folder), share, seed=4, batch_size=32)
    dataset = Digits(horizontal_flip=request.param == "flipped").load()
    return DataFeed(dataset, seed=4, batch_size=32)


def test_the_rows_are_a_pure_function_of_the_step(feed: AbstractFeed) -> None:
    shards = (0, 1, 2, 3)
    first = feed.rows(now(7), shards, of=4)
    feed.rows(now(8), shards, of=4)
    assert_same(feed.rows(replace(now(7), rng=Rng.seeded(1)), shards, of=4), first)
    assert not torch.equal(feed.rows(now(8), shards, of=4).index, first.index)


def test_the_rows_of_some_shards_are_cut_from_the_batch(feed: AbstractFeed) -> None:
    whole = feed.rows(now(3), (0, 1, 2, 3), of=4)
    assert len(whole) == 32
    for shards, rows in (((0, 1), slice(0, 16)), ((2,), slice(16, 24)), ((3,), slice(24, 32))):
        assert_same(feed.rows(now(3), shards, of=4), whole[rows])


def test_an_epoch_shows_every_datum_once() -> None:
    dataset = EightGaussians(samples=70, held_out=8).load()
    feed = DataFeed(dataset, seed=0, batch_size=32)
    assert feed.num_data == 70
    epochs = [
        torch.cat([feed.rows(now(2 * epoch + k), (0, 1), of=2).index for k in (0, 1)])
        for epoch in (0, 1)
    ]
    for seen in epochs:
        assert len(seen.unique()) == 64
    assert not torch.equal(*epochs)
    batch = feed.rows(now(0), (0, 1), of=2)
    assert torch.equal(batch.x1, dataset.train.take(batch.index)[0])


def test_a_batch_larger_than_the_set_is_refused() -> None:
    dataset = EightGaussians(samples=16, held_out=8).load()
    with pytest.raises(ValueError, match=r"batch_size must be in \[1, 16\].* got 32"):
        DataFeed(dataset, seed=0, batch_size=32)


def test_flips_mirror_about_half_of_the_rows_and_each_shard_by_itself() -> None:
    dataset = Digits(horizontal_flip=True).load()
    feed = DataFeed(dataset, seed=4, batch_size=1024)
    batch = feed.rows(now(0), (0, 1, 2, 3), of=4)
    plain = dataset.train.take(batch.index)[0]
    is_flipped = (batch.x1 != plain).flatten(1).any(1)
    assert torch.equal(batch.x1[is_flipped], plain[is_flipped].flip(-1))
    # 1024 tosses: four standard errors are 0.0625.
    assert abs(is_flipped.double().mean().item() - 0.5) < 0.0625
    a, b = is_flipped.reshape(4, -1)[:2]
    assert not torch.equal(a, b)


def test_each_shard_holds_the_share_of_generated_pairs_that_the_moment_asks_for(
    tmp_path: Path,
) -> None:
    pairs = store_pairs(tmp_path)
    share = PairMix(generated=Linear(start=0.0, end=1.0))
    feed = PairFeed(pairs, share, seed=4, batch_size=64)
    assert feed.num_data == 96 + 64
    for step in range(0, TOTAL, 7):
        batch = feed.rows(now(step), (0, 1), of=2)
        made = (batch.index < 96).reshape(2, 32).sum(1).tolist()
        assert all(abs(rows - 32 * step / TOTAL) < 1.0 for rows in made)
        for kind, offset in ((pairs.generated, 0), (pairs.real, 96)):
            mine = (batch.index >= offset) & (batch.index < offset + len(kind))
            rows = batch.index[mine] - offset
            assert torch.equal(batch.x1[mine], kind.x1[rows])
            assert torch.equal(batch.noise[mine], kind.x0[rows])


@pytest.mark.parametrize("share", [0.4, 0.03, 0.99])
def test_the_share_of_generated_pairs_is_exact_over_the_steps(share: float, folder: Path) -> None:
    """Shards of 8 rows: the mean of 4000 deviates by at most 4 standard errors."""
    feed = PairFeed(
        store_pairs(folder), PairMix(generated=Constant(value=share)), seed=4, batch_size=32
    )
    made = torch.stack(
        [
            (feed.rows(now(step), (0, 1, 2, 3), of=4).index < 96).reshape(4, 8).sum(1)
            for step in range(1000)
        ]
    )
    rest = 8 * share % 1.0
    error = (rest * (1.0 - rest) / 4000) ** 0.5
    assert made.double().mean().item() == pytest.approx(8 * share, abs=4.0 * error)
    assert made.unique().tolist() == [int(8 * share), int(8 * share) + 1]
    assert (made != made[:, :1]).any(), "shards round by themselves"


def test_a_mix_without_real_pairs_is_refused_if_it_ever_needs_them(tmp_path: Path) -> None:
    pairs = store_pairs(tmp_path, real=0)
    PairFeed(pairs, PairMix(generated=Constant(value=1.0)), seed=0, batch_size=8)
    dips = Piecewise(values=(1.0, 0.5, 1.0), boundaries=(0.3, 0.6))
    for share in (Constant(value=0.9), Linear(start=0.4, end=0.9), dips):
        with pytest.raises(ValueError, match="mixes in real pairs, got a set without any"):
            PairFeed(pairs, PairMix(generated=share), seed=0, batch_size=8)
