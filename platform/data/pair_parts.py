"""Parts of a set of pairs in the making, kept so that what is done is done when it is cut off."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

from safetensors.torch import load as load_tensors
from torch import Tensor

from ..atomic import encode_safetensors, sha256, write_bytes

_PREFIX: Final = "parts-"
_TENSOR: Final = "x"


@final
class PairParts:
    """Tensors on disk, each in a file that is named by its checksum.

    A part that is missing, truncated or altered is made again. Parts lie in a folder that is named
    by the digest of all that decides their bits, so that none is taken for another's.

    Args:
        folder: Folder of the set.
        decided_by: Plain values that decide the bits.
    """

    def __init__(self, folder: Path, decided_by: Mapping[str, Any]) -> None:
        text = json.dumps(dict(decided_by), sort_keys=True)
        self._set = folder
        self._folder = folder / f"{_PREFIX}{sha256(text.encode())[:16]}"

    def part(self, kind: str, number: int, make: Callable[[], Tensor]) -> Tensor:
        """A part as an earlier attempt has left it, or made and written now.

        Args:
            kind: Which pairs it is of.
            number: Its number among their parts.
            make: Makes it, on the CPU.

        Returns:
            The part.
        """
        name = f"{kind}-{number:08d}"
        for file in self._folder.glob(f"{name}.*.safetensors"):
            payload = file.read_bytes()
            if sha256(payload) == file.name.split(".")[1]:
                return load_tensors(payload)[_TENSOR]
        made = make()
        payload = encode_safetensors({_TENSOR: made})
        write_bytes(self._folder / f"{name}.{sha256(payload)}.safetensors", payload)
        return made

    def clear(self) -> None:
        """Delete the parts of all attempts at the set."""
        for folder in self._set.glob(f"{_PREFIX}*"):
            shutil.rmtree(folder)
