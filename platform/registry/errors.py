"""What can go wrong between the platform and its registry.

ValueError
+-- RegistryError
    +-- RegistryUnreachable   the store does not answer
    +-- ReferenceNotFound     no such model, version or alias
    +-- ModelAltered          files or history are not what was registered
    +-- ModelNotTrusted       its record names a class of another package
    +-- ArchitectureMismatch  the weights belong to another network
    +-- PromotionRefused      a gate or another promotion stands in the way
"""

from typing import final


class RegistryError(ValueError):
    """A failure of the registry that a user can cause or mend."""


@final
class RegistryUnreachable(RegistryError):
    """The store of runs and models does not answer."""


@final
class ReferenceNotFound(RegistryError):
    """A reference names no model of the registry."""


@final
class ModelAltered(RegistryError):
    """A registered file, or the history of an alias, is not what was written."""


@final
class ModelNotTrusted(RegistryError):
    """A record names a class that the user has not said may run."""


@final
class ArchitectureMismatch(RegistryError):
    """Weights do not fit the network that their record describes."""


@final
class PromotionRefused(RegistryError):
    """A gate, or a promotion at the same moment, keeps an alias where it is."""
