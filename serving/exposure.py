"""Who can reach a server, and the warning where that is everybody."""

import logging
from ipaddress import ip_address
from typing import Final

_LOG: Final = logging.getLogger(__name__)


def warn_if_open(host: str, keys: str | None) -> None:
    """Warns where others reach a server that asks for no key.

    Args:
        host: Address that it listens on.
        keys: File of the keys that may ask; None where none is asked for.
    """
    if keys is None and not _is_loopback(host):
        _LOG.warning(
            "%s is reachable from elsewhere and asks for no key: whoever reaches it may use it; "
            "see `onestep key new`, serve.keys and ONESTEP_KEYS",
            host,
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"
