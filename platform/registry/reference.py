"""How a registered model is named: `digits/3` a version, `digits@champion` an alias."""

import re
from dataclasses import dataclass
from typing import Final, Self, final

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")
_ALIAS: Final = re.compile(r"[a-z][a-z0-9_-]{0,59}")
_RESERVED: Final = re.compile(r"latest|v[0-9]+")


def check_name(name: str) -> str:
    """The name of a registered model, if it is one.

    Args:
        name: Text to check.

    Returns:
        The same text.

    Raises:
        ValueError: If it is no name.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"model name must be 1 to 100 letters, digits, '_', '.' or '-' and begin with a "
            f"letter or digit, got {name!r}"
        )
    return name


def check_alias(alias: str) -> str:
    """An alias, if it is one.

    Args:
        alias: Text to check.

    Returns:
        The same text.

    Raises:
        ValueError: If it is no alias.
    """
    if not _ALIAS.fullmatch(alias) or _RESERVED.fullmatch(alias):
        raise ValueError(
            f"alias must be 1 to 60 lower-case letters, digits, '_' or '-', begin with a letter "
            f"and be neither 'latest' nor like 'v1', got {alias!r}"
        )
    return alias


@final
@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One version of a registered model, which never changes.

    Attributes:
        name: Registered model.
        version: Number from 1.

    Raises:
        ValueError: If the name is no name or the version below 1.
    """

    name: str
    version: int

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.version < 1:
            raise ValueError(f"model version must be at least 1, got {self.version}")

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `digits/3`.

        Args:
            text: Text to read.

        Returns:
            The version that it names.

        Raises:
            ValueError: If the text names no version.
        """
        name, slash, version = text.rpartition("/")
        if not slash or not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
            raise ValueError(f"a model version is written like digits/3, got {text!r}")
        return cls(name=name, version=int(version))

    @staticmethod
    def is_written(text: str) -> bool:
        """Whether a text reads like a version, rather than an alias or a checksum."""
        name, _, version = text.rpartition("/")
        return bool(_NAME.fullmatch(name) and _VERSION.fullmatch(version))


@final
@dataclass(frozen=True, kw_only=True)
class Alias:
    """A name that moves from version to version.

    Attributes:
        alias: The moving name, such as `champion`.
        name: Registered model that has it; None where only one may have it.

    Raises:
        ValueError: If a part is not well formed.
    """

    alias: str
    name: str | None = None

    def __post_init__(self) -> None:
        check_alias(self.alias)
        if self.name is not None:
            check_name(self.name)

    def __str__(self) -> str:
        return self.alias if self.name is None else f"{self.name}@{self.alias}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `digits@champion` or `champion`.

        Args:
            text: Text to read.

        Returns:
            The alias that it names.

        Raises:
            ValueError: If a part is not well formed.
        """
        name, at, alias = text.rpartition("@")
        return cls(alias=alias, name=name if at else None)


def parse_reference(text: str) -> ModelVersion | Alias:
    """Read any reference.

    Args:
        text: `digits/3`, `digits@champion` or `champion`.

    Returns:
        A version or an alias.

    Raises:
        ValueError: If the text is no reference.
    """
    try:
        return ModelVersion.parse(text) if "/" in text else Alias.parse(text)
    except ValueError as error:
        raise ValueError(
            f"a model is referred to as name/version, name@alias or alias, got {text!r}"
        ) from error
