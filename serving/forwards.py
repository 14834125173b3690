"""Forwards in a process of their own, where nothing else asks for Python's lock."""

import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Set
from multiprocessing.connection import Connection
from typing import Any, Final, Self, final

import torch
from torch import Tensor

from ..methods.core.condition import Condition
from ..methods.core.flow_map import FlowMap
from .errors import ModelDead
from .parcel import Asked, Hosting
from .speed import Speed

_PROGRAM: Final = "onestep.serving.forward_process"
_FAREWELL_S: Final = 5.0


@final
class Forwards:
    """A process that runs the forwards of models, as long as this one lives.

    Threads of one process take turns at running Python. A forward asks for a turn at each of its
    operations, and so waits for whatever else a server does; in another process it does not.

    Args:
        threads: Threads of torch in that process, at least 1.
    """

    def __init__(self, threads: int) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # It finds what this one does, and the terminal's Ctrl-C is not for it: requests
                # that are under way then are still answered.
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": str(threads)},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, as the end of this one does."""
        self._control.close()
        self._process.wait(_FAREWELL_S)

    def check(self) -> None:
        """Tells whether the process lives.

        Raises:
            ModelDead: If it does not.
        """
        if (status := self._process.poll()) is not None:
            raise ModelDead(f"the process of its forwards ended with {status}")

    def host(
        self,
        flow_map: FlowMap,
        speed: Speed,
        *,
        device: str = "cpu",
        cores: Set[int] = frozenset(),
    ) -> "Distant":
        """Takes a map there; its weights are not needed here any more.

        Args:
            flow_map: The map.
            speed: How it is run.
            device: Where it runs.
            cores: Numbers of the cores that its forwards run on; none for any.

        Returns:
            What asks it. Once nobody holds that, the map is forgotten there.

        Raises:
            ModelDead: If the process does not live.
            RuntimeError: If the map cannot be run so there.
        """
        ours, theirs = socket.socketpair()
        distant = Distant(Connection(ours.detach()))
        with theirs:
            try:
                socket.send_fds(self._control, [b"m"], [theirs.fileno()])
            except OSError as error:
                raise ModelDead("the process of its forwards has ended") from error
        distant.ask(
            Hosting(
                flow_map=flow_map, speed=speed, device=torch.device(device), cores=frozenset(cores)
            )
        )
        return distant


@final
class Distant:
    """A map in another process, called as if it were here, by any thread.

    Args:
        connection: The way to it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._turn = threading.Lock()  # an answer does not say whose question it answers

    def __call__(self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """The map's answer, on the device of its question.

        Args:
            x: States at s.
            s: Start times.
            t: End times.
            condition: Condition of each row, or None.

        Returns:
            The average velocity of each row.

        Raises:
            ModelDead: If its process has ended.
            RuntimeError: If it raised anything.
        """
        u = self.ask(Asked.of(x, s, t, condition))
        return torch.from_numpy(u).to(x.device)

    def ask(self, message: Hosting | Asked) -> Any:
        """What the process answers to a message.

        Args:
            message: The map at first, then a question.

        Returns:
            None to the map, the average velocity of each row to a question.

        Raises:
            ModelDead: If it has ended.
            RuntimeError: If it raised anything.
        """
        question = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        try:
            with self._turn:
                self._connection.send_bytes(question)
                told = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise ModelDead("the process of its forwards has ended") from error
        answer = pickle.loads(told)
        if isinstance(answer, RuntimeError):
            raise answer
        return answer
