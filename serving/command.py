"""The command ``onestep serve``: hosts registered models until it is told to stop."""

import argparse
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Final, final

from ..platform.commands.arguments import add_overrides
from ..platform.password import without_passwords
from .config_file import config_file
from .exposure import warn_if_open
from .keys import key_file
from .settings import ServeSettings

if TYPE_CHECKING:
    from .host import Hosted

_CONF: Final = "onestep.serving.conf"
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_STOPPING: Final = "stopping; requests under way are answered first: Ctrl-C again ends them"
_DESCRIPTION: Final = """\
Host registered models over HTTP on Ray Serve, in OpenAI's images shape.

  onestep serve                                the model with the alias champion
  onestep serve digits/3                       a version; serve.model=digits/3 is the same
  onestep serve digits@champion faces@champion several, each under the name written here
  onestep serve serve.port=0 serve=throughput  any free port; larger batches
  onestep serve serve=cluster --config-file    the file that serve deploy takes, for a cluster

A model is refused here, before anything starts, if it is missing or altered. With RAY_ADDRESS
set, the application runs on that cluster, where serve.port=0 is the port of a Serve that runs
already. The page is at /, the API at /docs.
"""


@final
class Serve:
    """Hosts models until SIGINT or SIGTERM."""

    name = "serve"
    summary = "host registered models over HTTP"
    description = _DESCRIPTION

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the arguments of the command.

        Args:
            parser: Parser of this command alone.
        """
        # One list, because nothing else says where the model ends and overrides begin.
        parser.add_argument(
            "--config-file",
            action="store_true",
            help="print the file that serve deploy takes, and stop; nothing is looked up",
        )
        add_overrides(
            parser,
            "a model, such as digits/3 or champion, or a Hydra override, such as serve.port=8080",
            shown="the resolved settings",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Serves until a signal.

        Args:
            arguments: What ``configure`` made the parser read.

        Returns:
            The exit status.

        Raises:
            ValueError: If a setting is refused, or the model cannot be served.
        """
        from ..platform.configuration import compose

        node = compose("serve", _overrides(arguments.overrides), module=_CONF)
        settings = ServeSettings.from_dict(node["serve"])
        if arguments.config_file:
            print(config_file(settings, arguments.overrides), end="")
            warn_if_open(settings.host, key_file(settings.app.keys, os.environ))
            return 0
        if arguments.dry_run:
            print(json.dumps(without_passwords(asdict(settings)), indent=2))
            return 0
        return self._serve(settings)

    def _serve(self, settings: ServeSettings) -> int:
        # Torch, MLflow and Ray are slow to import, and --help needs none of them.
        from .host import Hosted

        with _interruptible() as interruptible:
            try:
                names = ", ".join(settings.app.names)
                print(f"loading {names}; Ray Serve takes half a minute to start", flush=True)
                with Hosted(settings) as hosted:
                    interruptible()  # Ray has put its own handler in the place of ours
                    print(_greeting(hosted), flush=True)
                    if hosted.asks_keys and settings.app.ingresses > 1:
                        print(f"each of {settings.app.ingresses} ingresses allows a key its bounds")
                    try:
                        threading.Event().wait()
                    except KeyboardInterrupt:
                        print(_STOPPING, flush=True)
                        raise
            except KeyboardInterrupt:
                print("stopped", flush=True)
        return 0


def _overrides(words: Sequence[str]) -> list[str]:
    """The words with those that name models as an override too."""
    models = [word for word in words if "=" not in word and not word.startswith("~")]
    given = any(word.startswith(("serve.model=", "serve.models=")) for word in words)
    if models and given:
        raise ValueError(
            f"models must be named as words or in serve.models, got both: {' '.join(words)}"
        )
    others = [word for word in words if word not in models]
    match models:
        case []:
            return others
        case [model]:
            return [*others, f"serve.model='{model}'"]
        case _:
            names = ",".join(f"'{model}'" for model in models)
            return [*others, f"serve.models=[{names}]"]


def _greeting(hosted: "Hosted") -> str:
    url, name = hosted.url, next(iter(hosted.versions))
    key = ' \\\n          -H "Authorization: Bearer $KEY"' if hosted.asks_keys else ""
    served = ", ".join(f"{name} ({version})" for name, version in hosted.versions.items())
    body = json.dumps({"model": name, "prompt": hosted.example, "n": 1, "seed": 0})
    return f"""\
serving {served}
  page  {url}/
  API   {url}/docs
  try   curl -s {url}/v1/images/generations -H 'Content-Type: application/json'{key} \\
          -d '{body}'
stop with Ctrl-C"""


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Lets SIGTERM and SIGINT raise KeyboardInterrupt, so that every block on the way closes."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    def install() -> None:
        for number in _STOP_SIGNALS:
            signal.signal(number, interrupt)

    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    install()
    try:
        yield install
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
