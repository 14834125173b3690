"""`onestep submit`: runs any other command as a job on a Ray cluster."""

import argparse
import asyncio
import json
import os
import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, final
from urllib.parse import urlsplit

from ..head_watch import LOST
from ..home import VARIABLES
from ..password import hide_passwords
from ..wheel import build_wheel, checkout_here, modules_of

if TYPE_CHECKING:  # Ray takes a second to import, and `--help` needs none of it
    from ray.job_submission import JobDetails, JobSubmissionClient

_ADDRESSES: Final = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_POLL_S: Final = 1.0
_PATIENCE_S: Final = 60.0
"""How long a cluster may not answer before its job counts as lost."""
_SIGNAL: Final = 128
_CURE: Final = (
    "leave it out, and put it on the cluster's nodes, for PostgreSQL into ~/.pgpass or the file "
    "that PGPASSFILE names, for MLflow into MLFLOW_TRACKING_PASSWORD"
)


@final
@dataclass(frozen=True, kw_only=True)
class Job:
    """A command on its way to a cluster.

    Attributes:
        command: Arguments of `onestep`.
        address: HTTP address of the cluster's job server.
        python: Interpreter on the cluster that has the package.
        working_dir: Folder that is sent along and that the command runs in, or None.
        modules: Folders that are sent along for Python to import from, before what is installed.
        variables: Environment of the command.

    Raises:
        ValueError: If there is no command, the address is none, the folder is missing, or a URL in
            the command or of a store holds a password.
    """

    command: tuple[str, ...]
    address: str
    python: str = "python"
    working_dir: Path | None = None
    modules: tuple[Path, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError(
                "submit needs a command after --, such as `onestep submit -- train method=reflow`"
            )
        if self.command[0] == "submit":
            raise ValueError("submit runs any command but itself, got submit")
        address = urlsplit(self.address)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(
                "--address, RAY_API_SERVER_ADDRESS or RAY_ADDRESS must be the HTTP address of a "
                "cluster's dashboard, such as http://127.0.0.1:8265, "
                f"got {hide_passwords(self.address)!r}"
            )
        if self.working_dir is not None and not self.working_dir.is_dir():
            raise ValueError(f"--working-dir must be a folder, got {self.working_dir}")
        stores = [f"{name}={self.variables[name]}" for name in VARIABLES if name in self.variables]
        for word in (*self.command, *stores):
            if (shown := hide_passwords(word)) != word:
                raise ValueError(
                    "a URL in a job must hold no password, for Ray keeps the job's line and "
                    f"variables and shows them, got {shown!r}: {_CURE}"
                )

    @property
    def entrypoint(self) -> str:
        """The line that the cluster's shell runs."""
        return shlex.join(self._words)

    @property
    def _words(self) -> list[str]:
        return [self.python, "-m", "onestep.platform.cli", *self.command]

    @property
    def runtime_env(self) -> dict[str, str | list[str] | dict[str, str]]:
        """What goes along with the command, as Ray has it."""
        env: dict[str, str | list[str] | dict[str, str]] = {"env_vars": dict(self.variables)}
        if self.modules:
            env["py_modules"] = [str(folder) for folder in self.modules]
        if self.working_dir is not None:
            env["working_dir"] = str(self.working_dir)
        return env

    @property
    def plain_line(self) -> str:
        """The `ray job submit` line that does the same, with ``***`` in the place of secrets."""
        words = ["ray", "job", "submit", "--address", self.address]
        if self.working_dir is not None:
            words += ["--working-dir", str(self.working_dir)]
        env: dict[str, Any] = {}
        if self.variables:
            env["env_vars"] = {name: _shown(name, it) for name, it in self.variables.items()}
        if self.modules:
            env["py_modules"] = self.runtime_env["py_modules"]
        if env:
            words += ["--runtime-env-json", json.dumps(env)]
        return shlex.join(hide_passwords(word) for word in (*words, "--", *self._words))


@final
class Submit:
    """The command that sends another command to a cluster."""

    name: ClassVar[str] = "submit"
    summary: ClassVar[str] = "run another command as a job on a Ray cluster"
    description: ClassVar[str] = """Run any other onestep command as a job on a Ray cluster.

Run from a checkout, it builds the wheel and sends it along, so that the cluster runs the code that
is here; what the package depends on has to be installed there, as cluster.yaml does. Without a
checkout, or with --installed, the job runs the package that the cluster has. Where the cluster asks
for a token, set RAY_AUTH_MODE=token here, and RAY_AUTH_TOKEN or ~/.ray/auth_token to its token.
ONESTEP_HOME, ONESTEP_ARTIFACTS, ONESTEP_DATA, ONESTEP_TRUST and MLFLOW_TRACKING_URI go along when
they are set.

examples:
  onestep submit --address http://127.0.0.1:8265 -- sweep sweep=mean_flow_curriculum
  onestep submit --no-wait -- train method=mean_flow workers.num_workers=4 workers.gpus_per_worker=1
  onestep submit --working-dir configs -- train 'hydra.searchpath=[.]' experiment=mine

The plain `ray job submit` line that does the same is printed first, with *** in the place of a
password in the address and of the values of --env, but for the five variables above. Ray keeps the
command and all variables, and shows them to whoever may see its dashboard: a URL with a password is
refused, and what the nodes' own environment or ~/.pgpass can say is better left there.
"""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "--address",
            help="the cluster's dashboard, such as http://127.0.0.1:8265; "
            "by default RAY_API_SERVER_ADDRESS or RAY_ADDRESS",
        )
        parser.add_argument(
            "--python", default="python", help="interpreter on the cluster (default: python)"
        )
        parser.add_argument(
            "--working-dir", type=Path, help="folder to send along and to run the command in"
        )
        code = parser.add_mutually_exclusive_group()
        code.add_argument(
            "--wheel", type=Path, help="a wheel of onestep to send along, in the place of a new one"
        )
        code.add_argument(
            "--installed", action="store_true", help="run the package that the cluster has"
        )
        parser.add_argument(
            "--env",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="a variable for the command; may be repeated",
        )
        parser.add_argument(
            "--no-wait", action="store_true", help="leave when the job is submitted"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="print the plain line for the address and stop"
        )
        parser.add_argument(
            "onestep_command",
            nargs=argparse.REMAINDER,
            metavar="-- command ...",
            help="the command and its arguments",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Submit the job and follow it.

        Args:
            arguments: Parsed arguments.

        Returns:
            0 if the job succeeded or is not waited for, else the status that its command ended
            with; 1 where it was stopped, and 75, as of the command, where the cluster has gone.

        Raises:
            ValueError: If the job is refused or no cluster answers.
        """
        words = tuple(arguments.onestep_command)
        job = Job(
            command=words[1:] if words[:1] == ("--",) else words,
            address=arguments.address or _address(os.environ),
            python=arguments.python,
            working_dir=arguments.working_dir,
            variables=_variables(os.environ, arguments.env),
        )
        client = None if arguments.dry_run else _client(job.address)
        if not arguments.installed:
            job = replace(job, modules=_modules(arguments.wheel, _cache(os.environ)))
        if client is None:
            print(job.plain_line)
            return 0
        shown = hide_passwords(job.address)
        print(f"the same without onestep:\n  {job.plain_line}", flush=True)
        job_id = _submit(client, job)
        print(f"submitted {job_id}", flush=True)
        if arguments.no_wait:
            print(f"  ray job logs --address {shown} --follow {job_id}")
            return 0
        try:
            return follow(client, job_id)
        except KeyboardInterrupt:
            print(f"\n{job_id} goes on; ray job stop --address {shown} {job_id} ends it")
            raise


def _modules(wheel: Path | None, cache: Path) -> tuple[Path, ...]:
    """The folders of a wheel, if there is one or something to build it from."""
    if wheel is not None:
        return modules_of(wheel, cache)
    checkout = checkout_here()
    if checkout is None:
        return ()
    with tempfile.TemporaryDirectory(prefix="onestep-wheel-") as folder:
        return modules_of(build_wheel(checkout, Path(folder)), cache)


def _cache(environment: Mapping[str, str]) -> Path:
    """Where wheels lie for the line that is printed, which may be run again later."""
    root = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "onestep" / "wheels"


def _address(environment: Mapping[str, str]) -> str:
    for name in _ADDRESSES:
        if environment.get(name):
            return environment[name]
    raise ValueError(
        "submit needs a cluster: give --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS"
    )


def _variables(environment: Mapping[str, str], given: Sequence[str]) -> dict[str, str]:
    found = {name: environment[name] for name in VARIABLES if environment.get(name)}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            got = f"{name}{equals}{'***' if value else ''}"
            raise ValueError(f"--env must be NAME=VALUE, got {got!r}")
        found[name] = value
    return found


def _shown(name: str, value: str) -> str:
    """The value of a variable as it may be printed: any but folders and stores may be a secret."""
    return hide_passwords(value) if name in VARIABLES else "***"


def _client(address: str) -> "JobSubmissionClient":
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ValueError(
            f"no Ray cluster takes jobs at {hide_passwords(address)} without its token: set "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token to the cluster's"
        ) from error
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(
            f"no Ray cluster takes jobs at {hide_passwords(address)}: {_first_line(error)}"
        ) from error


def _submit(client: "JobSubmissionClient", job: Job) -> str:
    try:
        return str(client.submit_job(entrypoint=job.entrypoint, runtime_env=job.runtime_env))
    except RuntimeError as error:
        raise ValueError(f"the cluster refuses the job: {_first_line(error)}") from error


def follow(client: "JobSubmissionClient", job_id: str) -> int:
    """Print the output of a job until it ends.

    Args:
        client: The cluster.
        job_id: The job.

    Returns:
        The exit status of its command, or 75 where the cluster has gone.
    """
    try:
        asyncio.run(_print_logs(client, job_id))
    except (RuntimeError, OSError) as error:
        print(f"the log is cut off ({_first_line(error)}); waiting for the job's end", flush=True)
    heard_at = time.monotonic()
    while True:
        try:
            job = client.get_job_info(job_id)
        except (RuntimeError, OSError) as error:
            if time.monotonic() - heard_at > _PATIENCE_S:
                print(f"{job_id} is lost with its cluster: {_first_line(error)}")
                return LOST
        else:
            heard_at = time.monotonic()
            if job.status.is_terminal():
                print(f"{job_id}: {job.status}")
                return _status_of(job)
        time.sleep(_POLL_S)


def _status_of(job: "JobDetails") -> int:
    if job.status == "SUCCEEDED":
        return 0
    code = job.driver_exit_code or 1
    return code if code > 0 else _SIGNAL - code  # as a shell has it


async def _print_logs(client: "JobSubmissionClient", job_id: str) -> None:
    async for lines in client.tail_job_logs(job_id):
        print(lines, end="", flush=True)


def _first_line(error: Exception) -> str:
    return hide_passwords(next(iter(str(error).splitlines()), type(error).__name__))
