"""A process that is killed between two changes of folders."""

import os
import sys
from collections.abc import Callable
from typing import Final

_CHANGES: Final = ("os.rename", "os.remove", "os.rmdir")
_WHOLE: Final = 0
_KILLED: Final = 1
_FAILED: Final = 2


def killed_after(changes: int, act: Callable[[], object]) -> bool:
    """Act in a child process that is killed before it moves or removes one thing more than asked.

    Args:
        changes: How many files and folders it moves or removes.
        act: What it does.

    Returns:
        Whether it was killed before it had done it all.
    """
    child = os.fork()
    if not child:
        _act_and_die(changes, act)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (_WHOLE, _KILLED)
    return os.waitstatus_to_exitcode(status) == _KILLED


def _act_and_die(changes: int, act: Callable[[], object]) -> None:
    left = changes

    def count(event: str, args: object) -> None:
        nonlocal left
        if event in _CHANGES:
            if not left:
                os._exit(_KILLED)
            left -= 1

    sys.addaudithook(count)
    try:
        act()
    except BaseException:
        os._exit(_FAILED)
    os._exit(_WHOLE)
