"""Addresses of databases, read as SQLAlchemy reads them, so that a password stays a password."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..password import hide_passwords


def address_of(url: str) -> URL:
    """The parts of a database's URL.

    Args:
        url: SQLAlchemy URL.

    Returns:
        The parts.

    Raises:
        ValueError: If it is none, or a part of its password would be taken for a host or a port and
            so be shown by whoever does not find it.
    """
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        address = None  # the error may hold a part of the password
    if address is None or "@" in (address.host or ""):
        raise ValueError(
            "a database must be named by a URL such as postgresql://user:password@host:5432/name, "
            f"with %40 for an @ in the password, got {hide_passwords(url)!r}"
        )
    return address


def file_of(database: str) -> Path:
    """The file of a SQLite database.

    Args:
        database: Its name, which may be a URI such as ``file:/a/b.db``.
    """
    is_uri = database.startswith("file:")
    return Path(unquote(urlsplit(database).path) if is_uri else database)
