"""The files that settings name, in full, so that they mean the same in another process."""

import os
from dataclasses import replace

from .keys import full_path, key_file
from .settings import AppSettings


def with_full_paths(settings: AppSettings) -> AppSettings:
    """The same settings with their files of keys and of the access log in full.

    Args:
        settings: Settings whose paths the environment and the working folder may complete.
    """
    return replace(
        settings,
        keys=key_file(settings.keys, os.environ),
        access_file=full_path(settings.access_file),
    )
