"""Captions go wherever labels go, and steer what is made."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onestep.methods.core.condition import Condition
from onestep.methods.core.flow_map import Domain, DomainKind, FlowMap
from onestep.methods.core.method import PairMix
from onestep.methods.core.path import LinearPath
from onestep.methods.core.record import Moment
from onestep.methods.core.rng import Rng
from onestep.methods.core.schedule import Constant
from onestep.methods.nets.dit import DiT
from onestep.platform.api import load
from onestep.platform.configuration import compose
from onestep.platform.data.captioned_digits import CaptionedDigits
from onestep.platform.data.pairs import read_pairs
from onestep.platform.data.source import Dataset
from onestep.platform.experiment import Experiment, PairGeneration
from onestep.platform.training.assembly import assemble, registry_of
from onestep.platform.training.cost import cost_of
from onestep.platform.training.derivative_choice import DerivativeChoice, is_auto
from onestep.platform.training.feed import DataFeed, PairFeed
from onestep.platform.training.measurement import served_map
from onestep.platform.training.pair_generation import generate_pairs
from onestep.platform.training.place import Place
from onestep.platform.training.reporter import MemoryReporter
from onestep.platform.training.sequence import StageSequence
from onestep.platform.training.stand_in import stand_in
from onestep.platform.training.watcher import Silence
from onestep.platform.training.worker import work

WORDS = len(CaptionedDigits().vocabulary)
TINY = (
    "data=captioned_digits",
    "net=dit_captions",
    "net.width=32",
    "net.depth=2",
    "net.head_width=16",
    "training.threads=1",
    "training.shards=1",
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return CaptionedDigits().load()


def experiment(*overrides: str) -> Experiment:
    given = (*TINY, *overrides)
    return Experiment.from_dict(compose("train", given), given)


def now() -> Moment:
    return Moment(step=0, total=10, rng=Rng.seeded(1), batch_size=8)


def tokens_of(condition: Condition | None) -> torch.Tensor:
    assert condition is not None
    assert condition.label is None
    assert condition.tokens is not None
    return condition.tokens


def velocity() -> DiT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        domain = Domain(kind=DomainKind.DIAGONAL)
        net = DiT(
            shape=(1, 8, 8), domain=domain, vocabulary=WORDS, width=32, depth=1, head_width=16
        )
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return net.eval().requires_grad_(False)


# Where captions go.


def test_rows_of_data_bring_their_captions(data: Dataset) -> None:
    batch = DataFeed(data, seed=3, batch_size=8).rows(now(), (0,), of=1)
    assert data.train.tokens is not None
    assert torch.equal(tokens_of(batch.condition), data.train.tokens[batch.index])


def test_pairs_keep_the_captions_that_they_were_made_for(data: Dataset, tmp_path: Path) -> None:
    settings = PairGeneration(count=32, steps=2, guidance=2.0, real=False)
    made = generate_pairs(velocity(), data, settings, tmp_path, lineage={})
    tokens = tokens_of(made.generated.condition)
    plain = replace(settings, guidance=1.0)
    other = generate_pairs(velocity(), data, plain, tmp_path / "plain", lineage={})
    assert torch.equal(tokens_of(other.generated.condition), tokens)
    assert (other.generated.x1 - made.generated.x1).abs().max() > 1e-3
    stored = read_pairs(tmp_path)
    assert torch.equal(tokens_of(stored.generated.condition), tokens)
    feed = PairFeed(stored, PairMix(generated=Constant(value=1.0)), seed=3, batch_size=8)
    batch = feed.rows(now(), (0, 1), of=2)
    assert torch.equal(tokens_of(batch.condition), tokens[batch.index])
    assert torch.equal(batch.x1, made.generated.x1[batch.index])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("net=dit_tiny",), "captions of captioned_digits have 16 words, got a network of 0: take"),
        (("net.vocabulary=9",), "have 16 words, got a network of 9: take one with attention"),
        (("net=mlp", "+net.vocabulary=16"), "MLP takes no tokens, got vocabulary 16"),
        (("data=digits",), "takes tokens by its field vocabulary, which method mean_flow does not"),
    ],
)
def test_a_network_that_cannot_read_the_captions_is_refused(
    overrides: tuple[str, ...], said: str
) -> None:
    given = ("data=captioned_digits", "net=dit_captions", *overrides)
    values = compose("train", given)
    with pytest.raises(ValueError, match=said):
        assemble(Experiment.from_dict(values, given))


# What they do.


def losses(net: FlowMap, data: Dataset, rows: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """Flow-matching losses of held-out rows at early times, told the captions of other rows."""
    x1, _ = data.held_out.take(rows)
    rng = Rng.seeded(11)
    x0, t = rng.normal(*x1.shape), 0.5 * rng.uniform(len(x1))
    x, v = LinearPath().at(x0, x1, t)
    with torch.no_grad():
        found = net.velocity(x, t, data.held_out.condition(told))
    return (found - v).square().flatten(1).sum(1)


@pytest.mark.slow
def test_captions_steer_after_a_short_training(data: Dataset, tmp_path: Path) -> None:
    """Held-out digits cost clearly more under the captions of others, or none, than under theirs.

    Under captions of the other shade they cost more still.
    """
    run = experiment(
        "method=flow_matching",
        "training.samples=38400",
        "training.batch_size=64",
        "training.ema_half_lives=[2000]",
        "optimizer.lr=2e-3",
    )
    last = work(run.to_dict(), place=Place(), reporter=MemoryReporter(), folder=tmp_path)
    assert last is not None
    net = served_map(assemble(run), last, data)
    rows = torch.arange(len(data.held_out))
    label = data.held_out.label
    assert label is not None
    shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    swapped = rows.roll(len(rows) // 2)
    assert (label[swapped] // 10 != label // 10).all()
    right = losses(net, data, rows, rows)
    for told, least in ((shuffled, 1.1), (swapped, 1.2)):
        wrong = losses(net, data, rows, told)
        gain = wrong - right
        assert gain.mean() > 10.0 * gain.std() / len(gain) ** 0.5
        assert wrong.mean() > least * right.mean()


@pytest.mark.slow
def test_all_stages_of_instaflow_take_captions(tmp_path, monkeypatch) -> None:
    """Teacher, reflow and one step, each evaluated by whether an image is what its caption says.

    That they learn to make it is seen in benchmarks/captions.py, which takes minutes.
    """
    monkeypatch.setenv("ONESTEP_HOME", str(tmp_path))
    plan = compose("train", ["stages=captioned_digits_instaflow"])["stages"]
    common = (
        *TINY[2:],
        "training.samples=512",
        "training.batch_size=64",
        "evaluation.samples=64",
        "pairs.count=256",
        "pairs.steps=2",
    )
    done = StageSequence.of(plan, common).run(Silence())
    for stage in ("teacher", "flow", "step"):
        assert "eval/class_agreement/nfe_1" in done[stage].report.metrics()
    registry = registry_of(StageSequence.of(plan, common).check()[0])
    record = registry.load(str(done["step"].reference)).record
    assert record.parents["teacher"] == str(done["flow"].reference)
    assert record.classes == 0
    model = load(str(done["step"].reference))
    one, other = (model.sample(2, caption=f"a {shade} seven") for shade in ("bright", "dark"))
    assert not torch.equal(one, other)
    assert torch.equal(model.sample(2), model.sample(2, caption=""))
    with pytest.raises(ValueError, match="unknown word 'eleven', allowed: a, bright"):
        model.sample(1, caption="a dark eleven")


def test_what_stands_for_captions_is_told_to_the_network() -> None:
    """A loss that is guided by captions is tried, counted and timed without the data."""
    run = experiment("method=mean_flow", "method.guidance.omega=2.0")
    stand_in(run, Place()).advance()
    summary = cost_of(run, {}, is_measured=True)
    told = summary["compute"]["flops_per_sample"]
    assert told is not None
    assert summary["time"]["seconds_per_sample"] > 0.0
    plain = ("data=digits", "net.vocabulary=0", "method.guidance.omega=1.0")
    assert (
        told
        > cost_of(experiment("method=mean_flow", *plain), {}, is_measured=False)["compute"][
            "flops_per_sample"
        ]
    ), "attention to the words is counted"


def test_a_derivative_is_chosen_for_a_network_that_reads_captions(tmp_path: Path) -> None:
    run = experiment("method=mean_flow", "derivative@method.derivative=auto")
    choice = DerivativeChoice.of(assemble(run), tmp_path)
    assert not is_auto(choice.applied(run))
