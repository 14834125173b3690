"""What every method must satisfy. A test class inherits ``MethodContract`` and names its method."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar, Final, TypeVar, final

import pytest
import torch
import yaml
from hydra.utils import instantiate
from jaxtyping import Float
from torch import Tensor, nn

from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.dropout import Dropout, dropout_masks
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.guidance import LabelDropout
from onestep.methods.core.method import AbstractLearner, AbstractMethod
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.core.rng import Rng
from onestep.methods.core.weighting import AbstractWeighting
from onestep.platform.configuration import compose
from onestep.tests.methods.exactness import Elsewhere as Elsewhere
from onestep.tests.methods.exactness import Exact as Exact
from onestep.tests.methods.exactness import Order as Order
from onestep.tests.methods.exactness import Setting as Setting
from onestep.tests.methods.exactness import assert_exactness

CLASSES: Final = 3

_Learner = TypeVar("_Learner", bound=AbstractLearner)


@final
class SmallMap(FlowMap):
    """A smooth network of any shape, small enough for float64.

    Attributes:
        masks: With dropout, the mask and the state of each row of each evaluation.
        labels: The labels of each evaluation, or None.
    """

    masks: list[tuple[Tensor, Tensor]]
    labels: list[Tensor | None]

    def __init__(self, *, shape: tuple[int, ...], domain: Domain, dropout: float = 0.0) -> None:
        super().__init__(domain=domain)
        size = math.prod(shape)
        self.label = nn.Embedding(CLASSES + 1, 16)
        self.first = nn.Linear(size + 2, 16)
        self.last = nn.Linear(16, size)
        self.dropout = Dropout(dropout, ordinal=0)
        self.masks, self.labels = [], []

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        self.labels.append(None if condition is None else condition.label)
        at = torch.cat([x.flatten(1), s[:, None], (t - s)[:, None]], dim=1)
        hidden = self.first(at)
        if condition is not None and condition.label is not None:
            hidden = hidden + self.label(condition.label + 1)
        mask = self.dropout(torch.ones(hidden.shape, dtype=hidden.dtype))
        if self.dropout.p:
            self.masks.append((mask, x.detach().clone()))
        u: Tensor = self.last(mask * torch.tanh(hidden))
        return u.reshape(x.shape)


@final
@dataclass(frozen=True, kw_only=True)
class NotedWeighting(AbstractWeighting):
    """No weight, but the times at which one was asked for.

    Attributes:
        asked: Start and end times of each call.
    """

    asked: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __call__(
        self, error: Float[Tensor, " b"], s: Float[Tensor, " b"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        self.asked.append((s, t))
        return error


class LossContract:
    """What every loss must satisfy, that of a method or of a player's turn in a game.

    Attributes:
        shapes: Shapes of samples that the method takes.
        labelled: Whether the method takes class labels.
        jumps_keep_labels: Whether label dropout spares the rows off the diagonal on purpose.
    """

    shapes: ClassVar[tuple[tuple[int, ...], ...]] = ((2,), (1, 8, 8))
    labelled: ClassVar[bool] = True
    jumps_keep_labels: ClassVar[bool] = False

    @pytest.fixture
    def method(self) -> AbstractMethod:
        """The method under test."""
        raise NotImplementedError

    def batch(self, n: int, shape: tuple[int, ...], dtype: torch.dtype) -> Batch:
        """A batch of data with noise, labels and a second stream of data."""
        rng = Rng.seeded(4)
        x0, x1, real = (rng.normal(n, *shape, dtype=torch.float64).to(dtype) for _ in range(3))
        label = torch.arange(n) % CLASSES if self.labelled else None
        return Batch(
            x1=0.5 * x1 + 0.2,
            x0=x0,
            real=0.5 * real + 0.2,
            index=torch.arange(n),
            condition=None if label is None else Condition(label=label),
        )

    # The parts of a loss, put together as the platform does.

    def nets(
        self,
        method: AbstractMethod,
        shape: tuple[int, ...],
        dtype: torch.dtype = torch.float64,
        *,
        dropout: float = 0.0,
    ) -> Nets:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            online = SmallMap(shape=shape, domain=method.domain, dropout=dropout).to(dtype)
            target = SmallMap(shape=shape, domain=method.domain).to(dtype)
            frozen = {
                role: SmallMap(shape=shape, domain=Domain()).to(dtype)
                for role in method.needs.frozen
            }
            companions = {n: f(online).to(dtype) for n, f in method.needs.companions.items()}
        return Nets(
            online=online,
            target=target if method.needs.target is not None else None,
            frozen=frozen,
            companions=companions,
        )

    def moment(self, step: int = 3, shards: tuple[int, ...] = (0,), size: int = 16) -> Moment:
        return Moment(
            step=step, total=10, rng=Rng.seeded(5, step=step, shards=shards), batch_size=size
        )

    def loss(
        self,
        method: AbstractMethod,
        nets: Nets,
        batch: Batch,
        now: Moment,
    ) -> Loss:
        state = method.coupling.initial(16, tuple(batch.x1.shape[1:]))
        paired, _ = method.coupling.pair(batch, state, now)
        return method.loss(nets, paired, now)

    @pytest.fixture
    def case(self, method: AbstractMethod) -> tuple[Nets, Batch]:
        """Networks and sixteen samples of the first shape, in float64."""
        shape = self.shapes[0]
        return self.nets(method, shape), self.batch(16, shape, torch.float64)

    # Shape and value.

    def test_the_losses_are_finite_and_one_for_each_sample(self, method: AbstractMethod) -> None:
        for shape in self.shapes:
            nets, batch = self.nets(method, shape), self.batch(16, shape, torch.float64)
            loss = self.loss(method, nets, batch, self.moment())
            assert loss.terms
            for part in (*loss.terms.values(), *loss.logs.values(), loss.total):
                assert part.shape == (16,)
                assert part.isfinite().all()
            assert loss.times is None or loss.times.shape == (16,)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_losses_keep_the_precision_of_the_data(
        self, method: AbstractMethod, dtype: torch.dtype
    ) -> None:
        shape = self.shapes[0]
        nets, batch = self.nets(method, shape, dtype), self.batch(16, shape, dtype)
        assert self.loss(method, nets, batch, self.moment()).total.dtype == dtype

    def test_a_network_in_bfloat16_has_finite_losses_in_float32(
        self, method: AbstractMethod
    ) -> None:
        shape = self.shapes[-1]
        nets, batch = self.nets(method, shape, torch.float32), self.batch(16, shape, torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = self.loss(method, nets, batch, self.moment()).total
        assert total.dtype == torch.float32
        assert total.isfinite().all()
        torch.autograd.backward(total.mean())
        for parameter in nets.online.parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all()

    # Determinism.

    def test_the_same_moment_gives_the_same_loss(
        self, method: AbstractMethod, case: tuple[Nets, Batch]
    ) -> None:
        first = self.loss(method, *case, self.moment()).total
        self.loss(method, *case, self.moment(step=4))
        assert torch.equal(self.loss(method, *case, self.moment()).total, first)

    def test_the_loss_draws_no_global_random_numbers(
        self, method: AbstractMethod, case: tuple[Nets, Batch]
    ) -> None:
        before = torch.get_rng_state()
        self.loss(method, *case, self.moment())
        assert torch.equal(torch.get_rng_state(), before)

    def test_samples_do_not_talk_once_paired(
        self, method: AbstractMethod, case: tuple[Nets, Batch]
    ) -> None:
        nets, batch = case
        now = self.moment()
        state = method.coupling.initial(len(batch), tuple(batch.x1.shape[1:]))
        paired, _ = method.coupling.pair(batch, state, now)
        want = method.loss(nets, paired, self.moment()).total
        for k in (0, len(batch) - 1):
            x1, x0 = paired.x1.clone(), paired.noise.clone()
            x1[k], x0[k] = x1[k] + 1.0, x0[k] - 1.0
            got = method.loss(nets, replace(paired, x1=x1, x0=x0), self.moment()).total
            others = torch.arange(len(batch)) != k
            torch.testing.assert_close(got[others], want[others], atol=1e-12, rtol=1e-12)
            assert got[k] != want[k]

    def test_every_network_is_given_the_labels(
        self, method: AbstractMethod, case: tuple[Nets, Batch]
    ) -> None:
        if not self.labelled:
            pytest.skip("the method takes no labels")
        nets, batch = case
        self.loss(method, nets, batch, self.moment())
        seen = labels_seen(nets)
        assert seen
        assert all(label is not None for label in seen)

    def test_no_network_is_given_a_label_that_was_dropped(
        self, method: AbstractMethod, case: tuple[Nets, Batch]
    ) -> None:
        if not self.labelled or self.jumps_keep_labels:
            pytest.skip("the method takes no labels, or its own tests say which rows lose theirs")
        nets, batch = case
        self.loss(self.without_labels(method), nets, batch, self.moment())
        seen = labels_seen(nets)
        assert seen
        assert all(label is not None and (label == NULL_LABEL).all() for label in seen)

    def without_labels(self, method: AbstractMethod) -> AbstractMethod:
        """The same method with all labels dropped."""
        return dropping_all(method)

    def test_the_label_of_a_sample_matters_to_its_loss_alone(
        self, method: AbstractMethod, case: tuple[Nets, Batch]
    ) -> None:
        """Most labels do, as only a few are dropped."""
        nets, batch = case
        if batch.condition is None or batch.condition.label is None:
            pytest.skip("the method takes no labels")
        want = self.loss(method, nets, batch, self.moment()).total
        counts = 0
        for k in range(4):
            label = batch.condition.label.clone()
            label[k] = (label[k] + 1) % CLASSES
            other = replace(batch, condition=replace(batch.condition, label=label))
            got = self.loss(method, nets, other, self.moment()).total
            others = torch.arange(len(batch)) != k
            torch.testing.assert_close(got[others], want[others], atol=1e-12, rtol=1e-12)
            counts += int(got[k] != want[k])
        assert counts >= 2

    def test_a_sample_keeps_its_dropout_mask_in_every_evaluation(
        self, method: AbstractMethod
    ) -> None:
        """Where one sample is changed, only states under that sample's mask change."""
        shape, n = self.shapes[0], 16
        batch = self.batch(n, shape, torch.float64)
        paired, _ = method.coupling.pair(batch, method.coupling.initial(n, shape), self.moment())

        def masks(batch: Batch) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
            """The mask of each sample, and what the trained networks saw."""
            nets = self.nets(method, shape, dropout=0.5)
            with dropout_masks(Rng.seeded(8), n):
                own = Dropout(0.5, ordinal=0)(torch.ones(n, 16, dtype=torch.float64))
                method.loss(nets, batch, self.moment())
            trained = [nets.online, *nets.companions.values()]
            maps = [m for part in trained for m in part.modules() if isinstance(m, SmallMap)]
            return own, [call for each in maps for call in each.masks]

        own, before = masks(paired)
        assert before
        assert len(own.unique(dim=0)) == n
        for k in (0, n - 1):
            x1, x0 = paired.x1.clone(), paired.noise.clone()
            x1[k], x0[k] = x1[k] + 1.0, x0[k] - 1.0
            _, after = masks(replace(paired, x1=x1, x0=x0))
            for (mask, x), (again, moved) in zip(before, after, strict=True):
                assert torch.equal(mask, again)
                is_moved = (x != moved).flatten(1).any(1)
                assert torch.equal(mask[is_moved], own[k].expand(int(is_moved.sum()), 16))

    def test_how_shards_lie_on_workers_changes_nothing(
        self, method: AbstractMethod, case: tuple[Nets, Batch]
    ) -> None:
        nets, batch = case
        whole = self.loss(method, nets, batch, self.moment(shards=(0, 1, 2, 3))).total
        halves = [
            self.loss(method, nets, batch[rows], self.moment(shards=shards)).total
            for rows, shards in ((slice(0, 8), (0, 1)), (slice(8, 16), (2, 3)))
        ]
        torch.testing.assert_close(torch.cat(halves), whole, atol=1e-12, rtol=1e-12)


class ConfigurationContract:
    """What a method or game must satisfy as a value that configuration files describe."""

    @pytest.fixture
    def learner(self) -> AbstractLearner:
        """The method or game under test."""
        raise NotImplementedError

    def test_the_method_is_a_frozen_final_dataclass(self, learner: AbstractLearner) -> None:
        assert dataclasses.is_dataclass(learner)
        assert type(learner).__dict__["__final__"]
        field = dataclasses.fields(learner)[0]
        assert field.kw_only
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(learner, field.name, None)

    def test_the_method_survives_a_configuration_file(self, learner: AbstractLearner) -> None:
        node = yaml.safe_load(yaml.safe_dump(to_node(learner)))
        assert instantiate(node, _convert_="all") == learner
        assert replace(learner) == learner  # type: ignore[type-var]

    def test_the_file_of_the_method_builds_it_and_names_every_field(
        self, learner: AbstractLearner
    ) -> None:
        package, _, name = type(learner).__module__.rpartition(".")
        if package != "onestep.methods":
            pytest.skip("the method is defined in a test")
        node = compose("train", [f"method={name}"])["method"]
        assert type(instantiate(node, _convert_="all")) is type(learner)
        fields = {field.name for field in dataclasses.fields(learner)}  # type: ignore[arg-type]
        assert {key for key in node if key != "_target_"} == fields

    def test_a_misspelt_field_is_refused(self, learner: AbstractLearner) -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            type(learner)(misspelt=1)  # type: ignore[call-arg]


class MethodContract(LossContract, ConfigurationContract):
    """Inherit as ``class TestMeanFlow(MethodContract)``, give the fixture and the exactness.

    Attributes:
        exactness: What the method's gradient does at the oracle.
        through: Roles of frozen maps, or ``target``, that the method differentiates through.
    """

    exactness: ClassVar[Exact | Order | Elsewhere]
    through: ClassVar[frozenset[str]] = frozenset()

    @pytest.fixture
    def learner(self, method: AbstractMethod) -> AbstractMethod:
        return method

    def test_gradients_reach_the_online_net_and_the_companions_alone(
        self, method: AbstractMethod, case: tuple[Nets, Batch]
    ) -> None:
        nets, batch = case
        loss = self.loss(method, nets, batch, self.moment())
        torch.autograd.backward(loss.total.sum())
        for name, trained in {"online": nets.online, **nets.companions}.items():
            gradients = [p.grad for p in trained.parameters() if p.grad is not None]
            assert gradients, f"no gradient reaches {name}"
            assert all(g.isfinite().all() for g in gradients)
            assert any(g.abs().max() > 0 for g in gradients)
        held = {**nets.frozen} | ({} if nets.target is None else {"target": nets.target})
        for role in held.keys() - self.through:
            assert all(p.grad is None for p in held[role].parameters()), f"{role} has a gradient"

    def test_a_row_is_weighted_at_the_start_and_the_end_of_its_jump(
        self, method: AbstractMethod, case: tuple[Nets, Batch]
    ) -> None:
        fields = {f.name: f for f in dataclasses.fields(method)}  # type: ignore[arg-type]
        if "weighting" not in fields or fields["weighting"].type is not AbstractWeighting:
            pytest.skip("the method has no such weight")
        noted = NotedWeighting()
        noting = replace(method, weighting=noted)  # type: ignore[type-var]
        loss = self.loss(noting, *case, self.moment())
        assert loss.times is not None
        assert all(bool((s <= t).all()) for s, t in noted.asked)
        assert any(torch.equal(s, loss.times) or torch.equal(t, loss.times) for s, t in noted.asked)

    def test_the_gradient_is_exact_as_declared(self, method: AbstractMethod) -> None:
        assert_exactness(self.exactness, method)


def labels_seen(nets: Nets) -> list[Tensor | None]:
    """What each evaluation of a small map, in training or held, was told as its labels."""
    held = [*nets.frozen.values(), *([] if nets.target is None else [nets.target])]
    parts = [nets.online, *nets.companions.values(), *held]
    maps = [m for part in parts for m in part.modules() if isinstance(m, SmallMap)]
    return [label for each in maps for label in each.labels]


def dropping_all(learner: _Learner) -> _Learner:
    """The same learner with all labels dropped; the test of one that never drops any is skipped."""
    if "label_dropout" not in {f.name for f in dataclasses.fields(learner)}:  # type: ignore[arg-type]
        pytest.skip("the method drops no labels")
    return replace(learner, label_dropout=LabelDropout(probability=1.0))  # type: ignore[type-var]


def to_node(value: object) -> Any:
    """A value as the configuration node that builds it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: to_node(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init
        }
        return {"_target_": f"{type(value).__module__}.{type(value).__qualname__}", **fields}
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): to_node(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_node(part) for part in value]
    return value
