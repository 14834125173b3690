"""Configuration: Hydra composes plain dictionaries here, and nowhere else."""

import json
import re
from collections.abc import Sequence
from copy import deepcopy
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from .password import hide_passwords

PLATFORM: Final = "onestep.platform.conf"
SEARCH: Final = "hydra.searchpath="
"""Beginning of the override that names folders with files of the user's own."""
_METHODS: Final = "onestep.methods.conf"
_GROUPS: Final = ("stages", "experiment", "method", "data", "net", "optimizer", "learning_rate")
"""Groups of which ``onestep train`` takes a file by ``GROUP=NAME``."""
# A composition takes a tenth of a second, and most trials of a sweep differ in such values alone.
_KEPT: Final = 64
_VALUE: Final = re.compile(r"(?!hydra\.)\w+(\.\w+)+=")
"""An override that chooses no file, and adds and removes no key."""
_WORD: Final = re.compile(r"[\w/@.]+=(?!null$)[\w./:-]+$")
"""One that chooses a file or sets a plain value, so that no value below its key comes before it."""


def compose(
    config_name: str, overrides: Sequence[str] = (), *, module: str = PLATFORM
) -> dict[str, Any]:
    """A resolved configuration.

    Config groups come from the folders of ``hydra.searchpath``, from the module itself and from
    every module that an installed package names under the entry point ``onestep.conf``. What was
    composed is kept: files that change in the meantime are read after ``forget``.

    Args:
        config_name: The primary file, without its ending.
        overrides: Hydra overrides, such as ``method=mean_flow`` or ``training.samples=200000``.
        module: The package that holds the primary file.

    Returns:
        Plain dictionaries, lists and scalars.

    Raises:
        ValueError: If an override names no key, gives a value of the wrong kind or misses one, if
            there is no folder where one is named, or if a file is no YAML.
    """
    for override in overrides:
        if not re.match(r"[~]|[^=]+=", override):
            raise ValueError(f"an override is KEY=VALUE, got {hide_passwords(override)!r}")
    try:
        config = _composed(config_name, overrides, module)
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise ValueError(f"{key} has no value: give one, as {key}=...") from error
    except YAMLError as error:
        raise ValueError(_unreadable(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        unknown = re.match(r"Could not override '([^']+)'", str(error))
        if unknown is None:
            raise ValueError(f"{_sentence(error)}{_searched(error, overrides)}") from error
        allowed = _allowed(unknown[1], config_name, overrides, module)
        raise ValueError(f"there is no key {unknown[1]}{allowed}") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def forget() -> None:
    """Let the next compositions read their files again."""
    _by_hydra.cache_clear()
    _groups.cache_clear()


def folders_named(overrides: Sequence[str]) -> list[str]:
    """The folders that the last ``hydra.searchpath`` names, as whole paths.

    Args:
        overrides: All overrides.

    Returns:
        What Hydra searches first; nothing where no override names any.

    Raises:
        ValueError: If it is no list of texts, or there is no such folder.
    """
    given = [o for o in overrides if o.startswith(SEARCH)]
    if not given:
        return []
    try:
        named = OverridesParser.create().parse_override(given[-1]).value()
    except HydraException:
        named = None
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise ValueError(f"{SEARCH[:-1]} must be a list of folders such as [conf], got {given[-1]}")
    return [_place(one) for one in named]


def search_in(folders: Sequence[str]) -> str:
    """The override that names folders.

    Args:
        folders: Their whole paths.
    """
    return f"{SEARCH}{json.dumps(list(folders), ensure_ascii=False)}"


def _place(named: str) -> str:
    if named.startswith("pkg://"):
        return named
    folder = Path(named.removeprefix("file://")).absolute()
    if not folder.is_dir():
        raise ValueError(f"{SEARCH[:-1]} must name folders, got {named}: there is no {folder}")
    return f"file://{folder}"


def _composed(config_name: str, overrides: Sequence[str], module: str) -> DictConfig:
    search = search_in([*folders_named(overrides), *_groups(module)])
    overrides = [o for o in overrides if not o.startswith(SEARCH)]
    choices = [o for o in overrides if not _VALUE.match(o)]
    if all(map(_WORD.match, choices)):  # of others the order counts
        values = [o for o in overrides if _VALUE.match(o)]
        try:
            return _changed(_by_hydra(config_name, (*choices, search), module), values)
        except (HydraException, OmegaConfBaseException):
            pass  # Hydra tells what is wrong
    return _by_hydra(config_name, (*overrides, search), module)


def _changed(config: DictConfig, values: Sequence[str]) -> DictConfig:
    """A configuration with other values, set as Hydra sets them."""
    found = deepcopy(config)
    for override in OverridesParser.create().parse_overrides(list(values)):
        if override.is_sweep_override():
            raise HydraException(f"one value is needed, got {override.input_line}")
        OmegaConf.update(found, override.key_or_group, override.value(), merge=True)
    return found


@cache
def _groups(module: str) -> list[str]:
    """Where Hydra looks beside a module; to ask all installed packages takes milliseconds."""
    groups = sorted(e.value for e in entry_points(group="onestep.conf") if e.value != module)
    return [f"pkg://{group}" for group in groups]


@lru_cache(maxsize=_KEPT)
def _by_hydra(config_name: str, overrides: tuple[str, ...], module: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_module(module, version_base="1.3"):
        return hydra_compose(config_name, overrides=list(overrides))


def _allowed(key: str, config_name: str, overrides: Sequence[str], module: str) -> str:
    """The keys that stand where an unknown key was looked for, with the things chosen as they are.

    Overrides inside things are left out: one of them is unknown.
    """
    names = {override: override.partition("=")[0] for override in overrides}
    choices = [
        o for o, name in names.items() if o.startswith(SEARCH) or ("." not in name and name != key)
    ]
    try:
        node = _composed(config_name, choices, module)
    except (HydraException, OmegaConfBaseException):
        return ""
    place: list[str] = []
    for part in key.split(".")[:-1]:
        inner = node.get(part, None)
        if not isinstance(inner, DictConfig):
            break
        node = inner
        place.append(part)
    if len(place) == key.count(".") and key.split(".")[-1] in node:
        return f" with all of these fields: to take its place write '~{key}' '+{key}=...'"
    keys = ", ".join(sorted(str(k) for k in node if not str(k).startswith("_")))
    return f", allowed{' in ' if place else ''}{'.'.join(place)}: {keys}"


def _meant(asked: str) -> str:
    """The group that has a file of the name that was looked for in another one."""
    group, _, name = asked.rpartition("/")
    for other in _GROUPS:
        for module in (PLATFORM, _METHODS):
            if other != group and files(module).joinpath(other, f"{name}.yaml").is_file():
                return f": did you mean {other}={name}? If not"
    return ""


def question(asked: str, options: Sequence[str]) -> str:
    """The question whether another word was meant; nothing where none is like it.

    Args:
        asked: What was written.
        options: The words that there are.
    """
    found = get_close_matches(asked, options, n=1)
    return f": did you mean {found[0]}?" if found else ""


def _nearest(asked: str, options: Sequence[str]) -> str:
    """The name of the same group that is most like the one that was asked for, if one is."""
    group, _, name = asked.rpartition("/")
    found = get_close_matches(name, options, n=1)
    return f": did you mean {group}={found[0]}? If not" if found else ""


def _searched(error: Exception, overrides: Sequence[str]) -> str:
    """The user's own folders in which a file was looked for; nothing where none are named."""
    folders = folders_named(overrides)
    if not (isinstance(error, MissingConfigException) and error.missing_cfg_file and folders):
        return ""
    shown = ", ".join(folder.removeprefix("file://") for folder in folders)
    return f"; there is no {error.missing_cfg_file}.yaml in {shown}"


def _unreadable(error: YAMLError) -> str:
    """Where a file is no YAML, and why."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return f"cannot read a file as YAML: {' '.join(str(error).split())}"
    mark, begun = error.problem_mark, error.context_mark
    since = f", {error.context} that begins in line {begun.line + 1}" if begun is not None else ""
    return f"cannot read {mark.name} as YAML, line {mark.line + 1}: {error.problem}{since}"


def _sentence(error: Exception) -> str:
    """Hydra's message on one line, without its advice and its search path."""
    if isinstance(error, MissingConfigException) and error.options:
        asked = str(error.missing_cfg_file)
        meant = _meant(asked) or _nearest(asked, error.options)
        return f"there is no {asked}{meant}, allowed: {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        hidden = hide_passwords(error.override)
        if hidden != error.override:  # the message may hold a part of it
            return (
                f"cannot read {hidden}: a value with signs as # or {{ needs quotes, 'key=\"value\"'"
            )
    # Hydra says nothing itself of an interpolation that cannot be read.
    said = str(error) or str(error.__cause__)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("See https", "full_key", "object_type"))]
    return ". ".join(dict.fromkeys(line.rstrip(".") for line in kept))
