"""Forwards in a process of their own, where nothing else asks for Python's lock."""

import os
import pickle
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable, Set
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final, Self, final

import numpy as np
import torch
from torch import Tensor

from ..methods.core.condition import Condition
from ..methods.core.flow_map import FlowMap
from ..platform.companion import begin_companion
from .errors import ModelDead
from .parcel import Asked, Hosting
from .speed import AbstractRun, Speed

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
        self._is_closed = False
        self._process, self._control = begin_companion(_PROGRAM, OMP_NUM_THREADS=str(threads))

    def on_end(self, act: Callable[[int], None]) -> None:
        """Lets a thread act once the process has ended, but not where it was closed.

        Args:
            act: What is done, with the status.
        """

        def wait() -> None:
            status = self._process.wait()
            if not self._is_closed:
                act(status)

        threading.Thread(target=wait, name="forwards' end", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, as the end of this one does."""
        self._is_closed = True
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
        distant = Distant(ours)
        with theirs:
            try:
                socket.send_fds(self._control, [b"m"], [theirs.fileno()])
            except OSError as error:
                raise _ended() from error
        distant.take(
            Hosting(
                flow_map=flow_map, speed=speed, device=torch.device(device), cores=frozenset(cores)
            )
        )
        return distant


@final
class Distant(AbstractRun):
    """A map in another process, asked as if it were here, by any thread.

    That process takes a question while it answers another, and so need not wait for this one.

    Args:
        connection: The way to it.
    """

    ahead = 2

    def __init__(self, connection: socket.socket) -> None:
        self._line = _Line(Connection(os.dup(connection.fileno())))
        # A thread that reads is woken by the end of the connection, and by nothing else here.
        weakref.finalize(self, _hang_up, connection)

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
        return self.begin(x, s, t, condition).result()

    def begin(
        self, x: Tensor, s: Tensor, t: Tensor, condition: Condition | None
    ) -> "Future[Tensor]":
        """The same as what will come; answers come in the order of their questions.

        Args:
            x: States at s.
            s: Start times.
            t: End times.
            condition: Condition of each row, or None.

        Raises:
            ModelDead: If its process has ended.
        """
        return self._line.send(Asked.of(x, s, t, condition), x.device)

    def take(self, hosting: Hosting) -> None:
        """Sends the map itself, which is the first message.

        Args:
            hosting: The map.

        Raises:
            ModelDead: If its process has ended.
            RuntimeError: If the map cannot be run so there.
        """
        self._line.send(hosting, torch.device("cpu")).result()


@final
class _Line:
    """Messages to a map and their answers, which a thread of its own takes as they come."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._coming: deque[tuple[Future[Any], torch.device]] = deque()
        self._turn = threading.Lock()  # messages are sent in the order in which answers come
        self._has_ended = False
        threading.Thread(target=self._read, name="forwards", daemon=True).start()

    def send(self, message: Hosting | Asked, device: torch.device) -> "Future[Any]":
        """What will be answered to a message; nothing to a map."""
        parcel = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        coming: Future[Any] = Future()
        with self._turn:
            if self._has_ended:
                raise _ended()
            self._coming.append((coming, device))
            # Where the other end is gone the thread that reads finds it out, and tells all.
            with suppress(OSError):
                self._connection.send_bytes(parcel)
        return coming

    def _read(self) -> None:
        try:
            with self._connection, suppress(EOFError, OSError):
                while True:
                    self._take_answer()
        finally:
            with self._turn:
                self._has_ended = True
            for coming, _ in self._coming:
                coming.set_exception(_ended())

    def _take_answer(self) -> None:
        # In a frame of its own: while the thread waits for the next it holds nothing of the last.
        answer = pickle.loads(self._connection.recv_bytes())
        coming, device = self._coming[0]
        u = torch.from_numpy(answer).to(device) if isinstance(answer, np.ndarray) else None
        self._coming.popleft()
        if isinstance(answer, RuntimeError):
            coming.set_exception(answer)
        else:
            coming.set_result(u)


def _hang_up(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _ended() -> ModelDead:
    return ModelDead("the process of its forwards has ended")
