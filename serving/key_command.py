"""The command ``onestep key``: makes and revokes the keys that a server asks for."""

import argparse
import os
from pathlib import Path
from typing import ClassVar, Final, final

from .keys import ENVIRONMENT, add_key, key_file, read_keys, remove_key

_DESCRIPTION: Final = """\
Make, list and revoke API keys. A server asks for them with serve.keys=FILE and follows the file
while it runs.

  onestep key new ada --file keys.yaml                          prints the key, once
  onestep key new bob --file keys.yaml --images-per-minute 600  with a bound
  onestep key list --file keys.yaml
  onestep key remove ada --file keys.yaml

Only the SHA-256 of a key is kept. Without --file, ONESTEP_KEYS names the file.
"""


@final
class KeyCommand:
    """Changes a file of keys."""

    name: ClassVar[str] = "key"
    summary: ClassVar[str] = "make and revoke the API keys of a server"
    description: ClassVar[str] = _DESCRIPTION

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the arguments of the command.

        Args:
            parser: Parser of this command alone.
        """
        actions = parser.add_subparsers(dest="action", required=True, metavar="action")
        new = actions.add_parser("new", help="make a key and print it, once")
        new.add_argument("who", metavar="NAME", help="whose key it is, for the log")
        new.add_argument("--images-per-minute", type=int, help="most images in any minute")
        new.add_argument("--requests-per-minute", type=int, help="most requests in any minute")
        listing = actions.add_parser("list", help="names and bounds of all keys")
        remove = actions.add_parser("remove", help="revoke a key")
        remove.add_argument("who", metavar="NAME", help="whose key it is")
        for action in (new, listing, remove):
            action.add_argument("--file", help=f"file of keys; by default {ENVIRONMENT}")

    def run(self, arguments: argparse.Namespace) -> int:
        """Does what was asked for.

        Args:
            arguments: What ``configure`` made the parser read.

        Returns:
            The exit status.

        Raises:
            ValueError: If no file is named, or the change is refused.
        """
        named = key_file(arguments.file, os.environ)
        if named is None:
            raise ValueError(f"the file of keys must be named by --file or {ENVIRONMENT}, got none")
        path = Path(named)
        match arguments.action:
            case "new":
                token = add_key(
                    path,
                    arguments.who,
                    images_per_minute=arguments.images_per_minute,
                    requests_per_minute=arguments.requests_per_minute,
                )
                print(token)
            case "list":
                for key in read_keys(path):
                    print(
                        f"{key.name}  images per minute: {key.images_per_minute or 'any'}  "
                        f"requests per minute: {key.requests_per_minute or 'any'}"
                    )
            case _:
                remove_key(path, arguments.who)
                print(f"removed {arguments.who}")
        return 0
