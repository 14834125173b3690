"""What can be wrong with data that a user supplies.

ValueError
    DataNotFound    a file, a folder, a download or an optional package is not there
    DataAltered     a file is there, and is not the one that was published
"""

from typing import final


@final
class DataNotFound(ValueError):
    """Data is not where it was looked for; the message says where, and what to do."""


@final
class DataAltered(ValueError):
    """Data is not what its checksum or its format promises; the message names the file."""
