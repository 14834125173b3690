import argparse
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, final

import httpx
import pytest
from ray.job_submission import JobDetails

from onestep.platform.commands import submit
from onestep.platform.commands.submit import Job, Submit
from onestep.platform.wheel import build_wheel, checkout_here

_ADDRESS: Final = "http://127.0.0.1:8265"
_START_S: Final = 120.0
_TINY: Final = (
    "data=moons",
    "net=mlp",
    "net.width=16",
    "training.samples=512",
    "evaluation.samples=64",
    "evaluation.nfes=[1]",
    "sweep.trials=2",
    "sweep.startup=1",
    "sweep.concurrency=1",
)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    Submit().configure(parser)
    return parser.parse_args(words)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI", "ONESTEP_HOME"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_cluster_runs_the_command_line_with_every_word_as_it_was() -> None:
    words = ("train", "name='two words'", "evaluation.nfes=[1, 2]")
    job = Job(command=words, address=_ADDRESS, python="/opt/env/bin/python")
    assert shlex.split(job.entrypoint) == [
        "/opt/env/bin/python",
        "-m",
        "onestep.platform.cli",
        *words,
    ]


def test_the_plain_line_submits_the_same_job(tmp_path: Path) -> None:
    job = Job(
        command=("sweep", "sweep.trials=2"),
        address=_ADDRESS,
        working_dir=tmp_path,
        variables={"MLFLOW_TRACKING_URI": "http://mlflow:5000"},
    )
    line = shlex.split(job.plain_line)
    assert line[:5] == ["ray", "job", "submit", "--address", _ADDRESS]
    assert line[5:7] == ["--working-dir", str(tmp_path)]
    assert line[7:9] == [
        "--runtime-env-json",
        '{"env_vars": {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}}',
    ]
    assert line[9:] == ["--", *shlex.split(job.entrypoint)]
    assert job.runtime_env == {"env_vars": dict(job.variables), "working_dir": str(tmp_path)}


def test_a_dry_run_prints_the_plain_line_and_asks_no_cluster(
    bare: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del bare
    words = ("--address", "http://nowhere.invalid:1", "--dry-run", "--", "train", "method=reflow")
    assert Submit().run(arguments("--installed", *words)) == 0
    job = Job(command=("train", "method=reflow"), address="http://nowhere.invalid:1")
    assert capsys.readouterr().out == f"{job.plain_line}\n"


def test_the_code_of_the_checkout_goes_along_with_the_commands_that_it_has(
    bare: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del bare
    assert Submit().run(arguments("--address", _ADDRESS, "--dry-run", "--", "train")) == 0
    words = shlex.split(capsys.readouterr().out)
    sent = json.loads(words[words.index("--runtime-env-json") + 1])["py_modules"]
    package, metadata = map(Path, sent)
    assert package.name == "onestep"
    # Ray puts the parents on the path. Without what is installed here, all comes from them.
    ask = (
        f"import sys; sys.path[:0] = {[str(package.parent), str(metadata.parent)]};"
        "import importlib.metadata as m, onestep;"
        "print(onestep.__file__, *sorted(e.name for e in m.entry_points(group='onestep.conf')))"
    )
    python = (sys.executable, "-S", "-E", "-c", ask)
    said = subprocess.run(python, capture_output=True, text=True, check=True, cwd="/").stdout
    assert said.split() == [f"{package}/__init__.py", "methods", "platform", "serving", "sweeps"]


def test_the_lines_of_the_readme_name_their_cluster(
    bare: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del bare
    readme = (Path(__file__).resolve().parent.parent.parent / "README.md").read_text()
    lines = [line for line in readme.splitlines() if line.startswith("    onestep submit ")]
    assert any(" -- sweep " in line for line in lines)
    for line in lines:
        _, _, *words = shlex.split(line, comments=True)
        assert Submit().run(arguments("--dry-run", "--installed", *words)) == 0
        assert capsys.readouterr().out.startswith("ray job submit --address http")


def test_the_plain_line_shows_no_secret_and_the_job_has_them_all() -> None:
    job = Job(
        command=("train",),
        address="https://ada:secret@cluster:8265",
        variables={
            "MLFLOW_TRACKING_URI": "https://mlflow:5000",
            "WANDB_API_KEY": "secret",
            "EMPTY": "",
        },
    )
    assert "secret" not in job.plain_line
    line = shlex.split(job.plain_line)
    assert line[4] == "https://ada:***@cluster:8265"
    assert json.loads(line[6]) == {
        "env_vars": {
            "MLFLOW_TRACKING_URI": "https://mlflow:5000",
            "WANDB_API_KEY": "***",
            "EMPTY": "***",
        }
    }
    assert job.runtime_env == {"env_vars": dict(job.variables)}


@pytest.mark.parametrize(
    "words",
    [
        ["--", "sweep", "sweep.storage=postgresql+psycopg://ada:secret@db/optuna"],
        ["--", "sweep", "sweep.storage='postgresql+psycopg://db/optuna?user=ada&password=secret'"],
        ["--", "train", "storage.tracking_uri=https://ada:secret@mlflow:5000"],
        ["--env", "MLFLOW_TRACKING_URI=https://ada:secret@mlflow:5000", "--", "train"],
    ],
)
def test_a_password_that_ray_would_show_with_the_job_is_refused(
    words: list[str], bare: pytest.MonkeyPatch
) -> None:
    del bare
    said = r"must hold no password, .* got .*\*\*\*.*: .*~/\.pgpass .* MLFLOW_TRACKING_PASSWORD"
    with pytest.raises(ValueError, match=said) as caught:
        Submit().run(arguments("--address", _ADDRESS, "--dry-run", "--installed", *words))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["--address", "http://ada:secret@127.0.0.1:9", "--", "train"],
        ["--address", "ray://ada:secret@127.0.0.1:9", "--", "train"],
        ["--address", _ADDRESS, "--env", "=secret", "--", "train"],
    ],
)
def test_a_refusal_shows_no_secret(words: list[str], bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"\*\*\*") as caught:
        Submit().run(arguments(*words))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", _ADDRESS], "needs a command after --"),
        (["--address", _ADDRESS, "--", "submit", "train"], "any command but itself"),
        (["--", "train"], "give --address http://HOST:8265"),
        (["--address", "127.0.0.1:6379", "--", "train"], "HTTP address of a cluster"),
        (["--address", "auto", "--", "train"], "got 'auto'"),
        (["--address", _ADDRESS, "--env", "X", "--", "train"], "NAME=VALUE, got 'X'"),
        (["--address", _ADDRESS, "--working-dir", "/no/folder", "--", "train"], "got /no/folder"),
        (
            ["--address", _ADDRESS, "--dry-run", "--wheel", "/no/file", "--", "train"],
            "got /no/file",
        ),
    ],
)
def test_a_bad_submission_is_refused(words: list[str], said: str, bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=said):
        Submit().run(arguments(*words))


def test_a_cluster_that_does_not_answer_is_named(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"no Ray cluster takes jobs at http://127\.0\.0\.1:9"):
        Submit().run(arguments("--", "train"))


@final
class Refusal(BaseHTTPRequestHandler):
    """A cluster that asks for a token, and gets another one or none."""

    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, *words: object) -> None:
        del words


def test_a_cluster_that_wants_its_token_says_how_it_is_given(bare: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            with pytest.raises(ValueError, match=r"without its token: set RAY_AUTH_MODE=token"):
                Submit().run(arguments("--address", address, "--", "train"))
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a cluster says of a job, in turn; at last nothing any more."""

    found: list[JobDetails]

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield "a line\n"

    def get_job_info(self, job_id: str) -> JobDetails:
        if not self.found:
            raise ConnectionError("nobody answers")
        return self.found.pop(0)


def told(status: str, code: int | None = None) -> JobDetails:
    return JobDetails(type="SUBMISSION", status=status, entrypoint="", driver_exit_code=code)


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (told("SUCCEEDED", 0), 0),
        (told("FAILED", 75), 75),
        (told("FAILED", 2), 2),
        (told("FAILED", -9), 137),
        (told("FAILED"), 1),
        (told("STOPPED"), 1),
    ],
)
def test_the_exit_status_is_that_of_the_command(
    last: JobDetails, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "_POLL_S", 0.0)
    assert submit.follow(Answers(found=[told("RUNNING"), last]), "job") == code


def test_a_job_whose_cluster_has_gone_may_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_POLL_S", 0.01)
    monkeypatch.setattr(submit, "_PATIENCE_S", 0.1)
    assert submit.follow(Answers(found=[told("RUNNING")]), "job") == 75


@dataclass(frozen=True, kw_only=True)
class Head:
    """A Ray head of this test alone."""

    address: str
    environment: Mapping[str, str]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=dict(self.environment), capture_output=True, text=True, timeout=500
        )

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(
            *(sys.executable, "-m", "onestep.platform.cli", "submit"),
            *("--address", self.address, "--python", sys.executable, *words),
        )


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def processes_of(folder: str) -> Iterator[int]:
    """Processes whose command line names a folder that is this test's alone."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if folder.encode() in place.read_bytes():
                yield int(place.parent.name)


@pytest.fixture
def head(bare: pytest.MonkeyPatch) -> Iterator[Head]:
    folder = tempfile.mkdtemp(prefix="os-", dir="/tmp")  # Ray's sockets need a short path
    gcs, dashboard, agent, client = free_ports(4)
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command: Sequence[str] = [
        *("ray", "start", "--head", "--block", "--num-cpus=1", f"--temp-dir={folder}"),
        *(f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
        f"--dashboard-agent-listen-port={agent}",
    ]
    with (Path(folder) / "head.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for(f"{address}/api/version", environment["RAY_AUTH_TOKEN"], process)
        yield Head(address=address, environment=environment)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for pid in processes_of(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(url: str, token: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        assert process.poll() is None, "the head ended"
        with suppress(httpx.HTTPError):
            if httpx.get(url, headers={"Authorization": f"Bearer {token}"}).is_success:
                return
        time.sleep(0.5)
    raise TimeoutError(f"nobody answers at {url}")


def changed_checkout(folder: Path) -> Path:
    """A checkout of another version that has one more command."""
    here = checkout_here()
    assert here is not None
    kept = shutil.ignore_patterns(".*", "build", "dist", "tests", "benchmarks", "__pycache__")
    shutil.copytree(here, folder, ignore=kept)
    (folder / "__init__.py").write_text('"""Changed."""\n\n__version__ = "9.9.9"\n')
    project = (folder / "pyproject.toml").read_text()
    train = 'train = "onestep.platform.commands.train:Train"\n'
    assert train in project
    changed = project.replace(train, train + train.replace("train", "practise", 1))
    (folder / "pyproject.toml").write_text(changed)
    return folder


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_runs_by_onestep_submit_a_job_by_the_plain_line_and_a_failed_one_is_told(
    head: Head, tmp_path: Path
) -> None:
    done = head.submit("--env", f"ONESTEP_HOME={tmp_path}", "--", "sweep", *_TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCEEDED" in done.stdout
    assert "onestep train method=mean_flow" in done.stdout, "the line that repeats the best trial"
    (table,) = tmp_path.glob("sweeps/*/table.md")
    assert table.read_text().count("| finished |") == 2

    wheel = build_wheel(changed_checkout(tmp_path / "changed"), tmp_path)
    sent = head.submit("--wheel", str(wheel), "--", "--version")
    assert "onestep 9.9.9" in sent.stdout, "the code that is sent goes before what is installed"
    sent = head.submit("--wheel", str(wheel), "--", "practise", "--help")
    assert "usage: onestep practise" in sent.stdout, "and so do its commands"

    plain = head.submit("--dry-run", "--", "--version").stdout
    again = head.run("bash", "-c", plain)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "onestep 0" in again.stdout + again.stderr

    failed = head.submit("--", "--no-such-option")
    assert failed.returncode == 2, "as of the command itself"
    assert "FAILED" in failed.stdout

    for changed in ({"RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "disabled"}):
        stranger = Head(address=head.address, environment={**head.environment, **changed})
        refused = stranger.submit("--", "--version")
        assert refused.returncode == 2
        assert "without its token: set RAY_AUTH_MODE=token" in refused.stderr.splitlines()[-1]
