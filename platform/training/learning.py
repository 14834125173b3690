"""The state of a run and the step that advances it."""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Final, Protocol, final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...methods.core.balance import AbstractBalance, FixedBalance
from ...methods.core.condition import Condition
from ...methods.core.coupling import AbstractSolvedCoupling, CouplingState
from ...methods.core.flow_map import FlowMap
from ...methods.core.game import ONLINE, AbstractGame
from ...methods.core.method import Needs
from ...methods.core.record import Batch, Moment, Nets
from ...methods.core.rng import Purpose, Rng, mix
from ...methods.core.schedule import Schedule
from ..experiment import Training
from .assembly import Learner
from .ema import MovingAverages, average_into
from .feed import AbstractFeed, DataFeed
from .objective import Objective, combine
from .place import Place
from .snapshot import PowerAverages

_COMPILATIONS: Final = 64
"""Most variants of a network that are compiled in a run."""


class OptimizerFactory(Protocol):
    """An optimizer that lacks only its parameters."""

    def __call__(self, params: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""


@final
class Learning:
    """Networks, optimizers and averages of a run, and how one step changes them.

    Args:
        learner: The method or game.
        online: The network to train, on this worker's device.
        frozen: Frozen networks by role.
        optimizer: Makes the optimizer of each player.
        learning_rate: Multiplier of every optimizer's learning rate.
        feed: Where rows come from.
        training: Settings.
        seed: Seed of all random numbers.
        place: Where this worker stands.

    Attributes:
        slowed: What multiplies the learning rate beside its schedule; 1 in an ordinary run.
    """

    def __init__(
        self,
        learner: Learner,
        online: FlowMap,
        frozen: Mapping[str, FlowMap],
        *,
        optimizer: OptimizerFactory,
        learning_rate: Schedule,
        feed: AbstractFeed,
        training: Training,
        seed: int,
        place: Place,
    ) -> None:
        self._learner, self._feed, self._training = learner, feed, training
        self._learning_rate, self._seed, self._place = learning_rate, seed, place
        self.step, self.slowed = 0, 1.0
        self.nets = _nets(learner.needs, online, frozen, seed=seed)
        self._named = dict(self.nets.online.named_parameters())
        if training.compile:
            # What other networks of this process left would count against this one's limit of
            # compilations. A method that jumps and differentiates in several ways needs more of
            # them than eight; beyond the limit torch would go on uncompiled without a word.
            from torch._dynamo import config as dynamo  # takes seconds to import

            torch.compiler.reset()
            dynamo.recompile_limit = max(dynamo.recompile_limit, _COMPILATIONS)
            dynamo.fail_on_recompile_limit_hit = True
            self.nets.online.compile()
        self.averages = MovingAverages(online, training.ema_half_lives, ramp=training.ema_ramp)
        self.power_averages = PowerAverages(online) if training.ema_snapshots else None
        self._coupling = self._placed(learner.coupling.initial(feed.num_data, feed.shape))
        players = (ONLINE, *learner.needs.companions) if isinstance(learner, AbstractGame) else ()
        objectives = {
            player: Objective(learner, self.nets, precision=training.precision, player=player)
            for player in players or (ONLINE,)
        }
        self.optimizers = {
            player: optimizer(list(objective.trained.parameters()))
            for player, objective in objectives.items()
        }
        self._rates = {
            player: [float(group["lr"]) for group in each.param_groups]
            for player, each in self.optimizers.items()
        }
        self._objectives: dict[str, nn.Module] = {
            player: DistributedDataParallel(objective) if place.world > 1 else objective
            for player, objective in objectives.items()
        }

    def solve_coupling(self) -> None:
        """Let a coupling look at the whole set before the first step, if it is one that does."""
        coupling = self._learner.coupling
        if isinstance(coupling, AbstractSolvedCoupling):
            assert isinstance(self._feed, DataFeed), "streams refuse a coupling that remembers"
            self._coupling = self._placed(coupling.solve(self._feed.whole(), self._coupling))

    @property
    def served(self) -> FlowMap:
        """The average that is evaluated and registered."""
        return self.averages.nets[self._training.ema_served]

    def advance(self) -> dict[str, Tensor]:
        """Take one step.

        Returns:
            Means over this worker's rows, without a graph and without waiting for the device.
        """
        training = self._training
        shards = self._place.shards(training.shards)
        now = self._moment(shards)
        batch, rngs = self._paired(now, shards)
        logs: dict[str, Tensor] = {}
        for player in self._players(now):
            logs |= self._turn(player, batch, now, rngs)
        self._follow(now)
        self.step += 1
        return logs

    def first_rows(self, n: int) -> tuple[Tensor, Condition | None]:
        """Data of the first batches of a run, and their conditions; no step is taken.

        Args:
            n: How many.
        """
        training, found = self._training, list[Batch]()
        for step in range(-(-n // training.batch_size)):
            now = replace(self._moment((0,)), step=step)
            rows = self._feed.rows(now, range(training.shards), of=training.shards)
            found.append(self._on_device(rows))
        told = [batch.condition for batch in found if batch.condition is not None]
        condition = Condition.joined(told)[slice(0, n)] if told else None
        return torch.cat([batch.x1 for batch in found])[:n], condition

    @property
    def players(self) -> tuple[str, ...]:
        """Who moves at this step."""
        return self._players(self._moment((0,)))

    def rehearse(self, rows: int) -> None:
        """Compute the loss of each player of this step on the first rows of a shard, both ways.

        Nothing changes: not the networks, not the averages, not the coupling's state.

        Args:
            rows: How many rows, at most those of a shard.

        Raises:
            ValueError: If the loss refuses the rows, or has no gradient.
        """
        now, kept = self._moment((0,)), self._coupling
        batch, (rng,) = self._paired(now, (0,))
        self._coupling = kept
        for player in self._players(now):
            self.give_turn(player)
            terms, _ = self._objectives[player](batch[slice(0, rows)], replace(now, rng=rng))
            self._require_gradient(player, terms, now)

    def give_turn(self, player: str) -> None:
        """Let one player of a game learn, and the others evaluate; a method has one player alone.

        Args:
            player: Who moves.
        """
        if not isinstance(self._learner, AbstractGame):
            return
        for name, part in {ONLINE: self.nets.online, **self.nets.companions}.items():
            part.requires_grad_(player == name).train(player == name)

    def state(self) -> dict[str, Any]:
        """Everything that ``load`` needs to go on bitwise."""
        nets = self.nets
        return {
            "online": nets.online.state_dict(),
            "target": None if nets.target is None else nets.target.state_dict(),
            "averages": self.averages.state(),
            "power_averages": self.power_averages.state() if self.power_averages else [],
            "companions": {name: part.state_dict() for name, part in nets.companions.items()},
            "optimizers": {name: each.state_dict() for name, each in self.optimizers.items()},
            "coupling": dict(self._coupling),
        }

    def load(self, step: int, state: Mapping[str, Any]) -> None:
        """Go back to a state.

        Args:
            step: Steps taken when it was saved.
            state: What ``state`` gave.
        """
        nets = self.nets
        nets.online.load_state_dict(state["online"])
        if nets.target is not None:
            nets.target.load_state_dict(state["target"])
        self.averages.load(state["averages"])
        if self.power_averages:
            self.power_averages.load(state["power_averages"])
        for name, part in nets.companions.items():
            part.load_state_dict(state["companions"][name])
        for name, each in self.optimizers.items():
            each.load_state_dict(state["optimizers"][name])
        self._coupling = self._placed(state["coupling"])
        self.step = step

    def _placed(self, state: CouplingState) -> CouplingState:
        return {name: tensor.to(self._place.device) for name, tensor in state.items()}

    def _moment(self, shards: tuple[int, ...]) -> Moment:
        return Moment(
            step=self.step,
            total=self._training.steps,
            rng=Rng.seeded(self._seed, step=self.step, shards=shards),
            batch_size=self._training.batch_size,
        )

    def _paired(self, now: Moment, shards: tuple[int, ...]) -> tuple[Batch, list[Rng]]:
        """The rows of this worker with their noise, and the streams of its shards.

        A coupling with a state pairs the rows of all workers on each of them, so that their
        copies of the state stay equal without being sent around.
        """
        coupling, of = self._learner.coupling, self._training.shards
        seen = tuple(range(of)) if self._coupling else shards
        moment = self._moment(seen) if seen != shards else now
        batch = self._on_device(self._feed.rows(moment, seen, of=of))
        batch, self._coupling = coupling.pair(batch, self._coupling, moment)
        rngs = moment.rng.by_shard()
        if seen != shards:
            first, rows = shards[0], len(batch) // of
            batch = batch[slice(first * rows, (first + len(shards)) * rows)]
            rngs = rngs[first : first + len(shards)]
        return batch, rngs

    def _on_device(self, batch: Batch) -> Batch:
        return batch.to(self._place.device, self._training.precision.dtype)

    def _players(self, now: Moment) -> tuple[str, ...]:
        return self._learner.players(now) if isinstance(self._learner, AbstractGame) else (ONLINE,)

    def _turn(self, player: str, batch: Batch, now: Moment, rngs: list[Rng]) -> dict[str, Tensor]:
        optimizer, objective = self.optimizers[player], self._objectives[player]
        self.give_turn(player)
        optimizer.zero_grad(set_to_none=True)
        logs: dict[str, Tensor] = {}
        parts = self._training.accumulate
        each, rows = len(rngs) // parts, len(batch) // parts
        for part in range(parts):
            moment = Moment(
                step=now.step,
                total=now.total,
                rng=Rng.joined(rngs[part * each : (part + 1) * each]),
                batch_size=now.batch_size,
            )
            is_last = part == parts - 1
            with nullcontext() if is_last else _unsynchronised(objective):
                terms, more = objective(batch[slice(part * rows, (part + 1) * rows)], moment)
                total = combine(terms, self._balance(player), self._named, now, self._place)
                (total / parts).backward()
            for name, value in {f"loss/{player}": total, **_named(terms, more)}.items():
                logs[name] = logs.get(name, 0.0) + value.detach() / parts
        if self._training.clip_norm:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, self._training.clip_norm)
            logs[f"gradient/{player}"] = norm.detach()
        rate = self._learning_rate(now) * self.slowed
        for group, base in zip(optimizer.param_groups, self._rates[player], strict=True):
            group["lr"] = base * rate
        optimizer.step()
        return logs

    def _require_gradient(self, player: str, terms: Mapping[str, Tensor], now: Moment) -> None:
        """Refuse a loss that cannot be differentiated, as the first step would; nothing is kept."""
        trained = [p for p in self._objectives[player].parameters() if p.requires_grad]
        try:
            total = combine(terms, self._balance(player), self._named, now, self._place)
            torch.autograd.grad(total, trained, allow_unused=True)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"the loss of {player} has no gradient with this network, which has to change, or "
                "the method: one that differentiates its derivative takes no network that "
                f"recomputes activations, see docs/derivatives.md; torch says: {reason}"
            ) from error

    def _balance(self, player: str) -> AbstractBalance:
        return self._learner.balance if player == ONLINE else FixedBalance()

    def _follow(self, now: Moment) -> None:
        training, target = self._training, self._learner.needs.target
        self.averages.update(
            self.nets.online,
            samples=now.samples + training.batch_size,
            batch_size=training.batch_size,
        )
        if self.power_averages:
            self.power_averages.update(self.nets.online, step=now.step + 1)
        is_moved = ONLINE in self._players(now)
        if target is not None and self.nets.target is not None and is_moved:
            average_into(self.nets.target, self.nets.online, target.decay(now))


def _nets(needs: Needs, online: FlowMap, frozen: Mapping[str, FlowMap], *, seed: int) -> Nets:
    target = None if needs.target is None else copy.deepcopy(online).eval().requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(Purpose.COMPANIONS, seed))
        companions = {name: make(online) for name, make in needs.companions.items()}
    device, dtype = _where(online)
    for part in companions.values():
        part.to(device=device, dtype=dtype)
    for net in frozen.values():
        net.to(device).eval().requires_grad_(False)
    return Nets(online=online.train(), target=target, frozen=frozen, companions=companions)


def _where(net: nn.Module) -> tuple[torch.device, torch.dtype]:
    first = next(net.parameters())
    return first.device, first.dtype


def _unsynchronised(objective: nn.Module) -> AbstractContextManager[None]:
    if isinstance(objective, DistributedDataParallel):
        return objective.no_sync()
    return nullcontext()


def _named(terms: Mapping[str, Tensor], logs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"loss/{name}": value for name, value in terms.items()} | {
        f"log/{name}": value for name, value in logs.items()
    }
