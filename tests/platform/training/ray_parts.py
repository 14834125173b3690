"""Methods that only the tests of Ray Train train with; workers import them by name."""

import json
import os
import signal
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import final

from onestep.methods.core.coupling import AbstractCoupling, IndependentCoupling
from onestep.methods.core.flow_map import Domain
from onestep.methods.core.method import AbstractMethod, Needs
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.flow_matching import FlowMatching


@dataclass(frozen=True, kw_only=True)
class AbstractActing(AbstractMethod):
    """Flow matching that does something before each of its losses."""

    coupling: AbstractCoupling = IndependentCoupling()

    @abstractmethod
    def act(self, now: Moment) -> None:
        """Do it."""

    @property
    def domain(self) -> Domain:
        return FlowMatching().domain

    @property
    def needs(self) -> Needs:
        return Needs()

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        self.act(now)
        return FlowMatching().loss(nets, batch, now)


@final
@dataclass(frozen=True, kw_only=True)
class DyingOnce(AbstractActing):
    """Flow matching whose first worker to reach a step ends its process, once.

    Attributes:
        at: The step.
        flag: A file that says that it has happened; empty for never.
    """

    at: int = 0
    flag: str = ""

    def act(self, now: Moment) -> None:
        if self.flag and now.step == self.at:
            try:
                Path(self.flag).touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)


@final
@dataclass(frozen=True, kw_only=True)
class Noting(AbstractActing):
    """Flow matching that writes down the environment of its worker.

    Attributes:
        note: Where.
    """

    note: str

    def act(self, now: Moment) -> None:
        del now
        Path(self.note).write_text(json.dumps(dict(os.environ)))
