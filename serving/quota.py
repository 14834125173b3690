"""How much of the service a key may use in a minute."""

import math
import time
from typing import Final, final

from limits.storage import MemoryStorage

_MINUTE_S: Final = 60


@final
class Quota:
    """Counts what names have used in the minute that ends now, in the memory of this process."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()

    def take(self, what: str, name: str, *, cost: int, limit: int) -> int:
        """Uses some of what a name may use in a minute, all of it or nothing.

        Args:
            what: What is used, such as ``images``.
            name: Who uses it.
            cost: How much of it, at most the limit.
            limit: Most in any minute.

        Returns:
            0 if it was there; else the whole seconds until it will be, if nobody takes it before.
        """
        # The library's limiters count by the limit, too: one that is changed would begin at zero.
        key = f"{what}/{name}"
        if self._storage.acquire_entry(key, limit, _MINUTE_S, amount=cost):
            return 0
        # The library tells when the oldest use ends; as many as are asked for must have ended.
        uses = self._storage.events[key]
        in_the_way = uses[limit - cost : limit - cost + 1]
        free = in_the_way[0].atime + _MINUTE_S if in_the_way else 0.0
        return max(1, math.ceil(free - time.time() + 0.001))
