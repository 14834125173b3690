"""Passwords of stores: hidden in all that the platform prints or writes into a record."""

import re
from collections.abc import Mapping
from typing import Any, Final

# A password may hold a slash or an @ that should have been percent-encoded: databases accept it,
# and a part of it would be shown otherwise. A user may hold an @, as ada@server in Azure. After the
# colon of a web address, digits and a slash are a port. A URL may have lost one of its slashes.
_OF_A_USER: Final = re.compile(
    r"(?<=[:/]/)(?!(?:(?<=http://)|(?<=https://))[^\s:/\[]*:\d+[/?#])([^\s:/\[]*):\S*@"
)
# After a semicolon or its code: the connection string of a driver, inside the query.
_OF_A_QUERY: Final = re.compile(
    r"((?:[?&;]|%3b)\w*(?:password|passwd|pwd)(?:=|%3d))[^\s&]*", re.IGNORECASE
)


def hide_passwords(text: str) -> str:
    """The same text with ``***`` for the password of each URL in it.

    Args:
        text: A URL, or a text with URLs, such as an override or an error of a database.
    """
    return _OF_A_QUERY.sub(r"\1***", _OF_A_USER.sub(r"\1:***@", text))


def without_passwords(value: Any) -> Any:
    """The same plain value with ``***`` for the passwords in all its texts.

    Args:
        value: What a JSON file holds; tuples become lists.
    """
    if isinstance(value, str):
        return hide_passwords(value)
    if isinstance(value, Mapping):
        return {key: without_passwords(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_passwords(part) for part in value]
    return value
