"""The guard: has a run probed now and then, stops it where it is lost, or sends it back."""

from collections.abc import Mapping
from typing import Any, Final, final

import torch
from torch import Tensor

from ...methods.core.game import ONLINE
from ..experiment import Experiment
from ..registry.model import at_scale
from .errors import TrainingDiverged, TrainingLost
from .health import LOSS, Health
from .learning import Learning
from .place import Place
from .probe import ROWS, Ground, ask_all, draws_of, probes_of
from .reporter import Reporter

GUARDIAN: Final = "guardian"
"""Its part of a checkpoint."""
_HEALTH: Final = "health"
RETURNED_TO: Final = "guardian/returned_to"
"""Key of the steps that a run goes back to, in what it reports."""
_RETURNS: Final = "returns"
_FORGETS: Final = 0.1
"""Half-life of an average, as a share of the samples seen, up to which it forgets its start."""
_ADVICE: Final = "lower optimizer.lr, clip gradients by training.clip_norm, or set guardian.every=0"


@final
class Guard:
    """Looks after the state of a run; all workers hold the same one.

    The leading worker asks the served average, which no step of training reads, on noise of its
    own; so that a run with probes has the same bits as one without.

    Args:
        experiment: The run.
        place: Where this worker stands.
    """

    def __init__(self, experiment: Experiment, place: Place) -> None:
        self._experiment, self._settings, self._place = experiment, experiment.guardian, place
        self._ground: Ground | None = None
        self._losses: dict[str, list[Tensor]] = {}
        self._health = Health()
        self._returns: list[dict[str, Any]] = []

    @property
    def is_on(self) -> bool:
        """Whether there are probes at all."""
        return self._settings.every > 0

    @property
    def is_unsure(self) -> bool:
        """Whether the last round found a fault and the run may go back: to no such state."""
        return bool(self._health.fault) and self._settings.retries > 0

    def attend(self, learning: Learning, state: Mapping[str, Any]) -> None:
        """Begin to look after a state, at the start of a run or after a return.

        Args:
            learning: The state.
            state: That of its checkpoint; empty for a fresh one.
        """
        found = state.get(GUARDIAN, {})
        self._losses = {}
        self._health = Health(**found.get(_HEALTH, {}))
        self._returns = self._returns or list(found.get(_RETURNS, []))
        learning.slowed = self._settings.lr_factor ** len(self._returns)
        if self.is_on and self._place.leads and self._ground is None:
            data, condition = learning.first_rows(ROWS)
            draws = draws_of(learning.served.domain)
            seed = self._experiment.seed
            self._ground = Ground.of(data, condition, draws=draws, seed=seed)

    def note(self, logs: Mapping[str, Tensor], learning: Learning) -> None:
        """Keep the losses of a step, without waiting for the device."""
        if not self.is_on:
            return
        for player in (ONLINE, *learning.nets.companions):
            if f"loss/{player}" in logs:
                self._losses.setdefault(f"{LOSS}{player}", []).append(logs[f"loss/{player}"])

    def is_due(self, step: int) -> bool:
        """Whether a round belongs to a step."""
        return self.is_on and step % self._experiment.training.every(self._settings.every) == 0

    def measure(self, learning: Learning) -> dict[str, float]:
        """The numbers of a round, the same at all workers.

        Args:
            learning: The state.
        """
        losses = {
            name: self._place.mean(torch.stack(kept)).median().item()
            for name, kept in self._losses.items()
        }
        self._losses = {}
        asked = self._place.told(self._asked(learning) if self._place.leads else None)
        assert asked is not None, "the leading worker has asked"
        return asked | losses

    def look(self, learning: Learning, reporter: Reporter) -> None:
        """Ask one round, and report it.

        Args:
            learning: The state.
            reporter: Told the numbers by the leading worker.

        Raises:
            TrainingLost: If the run is lost.
        """
        found = self.measure(learning)
        if self._place.leads:
            row = {f"guardian/{name}": value for name, value in found.items()}
            reporter.report(row, step=learning.step)
        samples = learning.step * self._experiment.training.batch_size
        self._health = self._health.after(found, progress=self.progress(samples))
        if self._health.is_lost:
            raise TrainingLost(
                f"the run is lost after {samples} samples: {self._health.fault}; {_ADVICE}"
            )

    def check_return(self, lost: TrainingDiverged) -> None:
        """Refuse to go back once more than is allowed.

        Args:
            lost: Why the run is lost.

        Raises:
            TrainingDiverged: If no return is left.
        """
        done = len(self._returns)
        if done < self._settings.retries:
            return
        raise type(lost)(f"{lost}; it had gone back {done} times") if done else lost

    def turn_back(self, lost: TrainingDiverged, *, step: int, to: int, reporter: Reporter) -> None:
        """Note that a lost run goes back.

        Args:
            lost: Why it is lost.
            step: Steps taken when it was found.
            to: Steps taken at the state that it goes back to.
            reporter: Told of it by the leading worker.
        """
        many = len(self._returns) + 1
        factor = self._settings.lr_factor**many
        self._returns.append({"step": step, "to": to, "lr_factor": factor, "why": str(lost)})
        if self._place.leads:
            row = {"guardian/returns": float(many), RETURNED_TO: float(to)}
            reporter.report({**row, "guardian/lr_factor": factor}, step=step)

    def state(self) -> dict[str, Any]:
        """Its part of a checkpoint; nothing where there are no probes."""
        if not self.is_on:
            return {}
        assert not self._losses, "every checkpoint has a round"
        return {
            GUARDIAN: {
                _HEALTH: self._health.to_dict(),
                _RETURNS: list(self._returns),
            }
        }

    def _asked(self, learning: Learning) -> dict[str, float]:
        experiment, served = self._experiment, learning.served
        assert self._ground is not None, "the leading worker has it"
        flow_map = at_scale(served, experiment.evaluation.guidance, model=experiment.name)
        return ask_all(probes_of(served.domain), flow_map, self._ground)

    def progress(self, samples: int) -> float:
        """Share of the run that is done, or 0 while the average still shows its start."""
        training = self._experiment.training
        half_life = min(training.ema_half_lives[training.ema_served], training.ema_ramp * samples)
        return samples / training.samples if half_life <= _FORGETS * samples else 0.0


def returns_in(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How often, when and why a run went back, by the state of a checkpoint."""
    return list(state.get(GUARDIAN, {}).get(_RETURNS, []))
