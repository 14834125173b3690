import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from onestep.platform.registry.store import Registry
from onestep.serving.generator import Generator
from onestep.serving.meaning import Meaning, look
from onestep.serving.settings import AppSettings
from onestep.serving.watch import RETRY_S, Watch
from onestep.tests.serving.registry import NETWORK, ORACLE, register_broken

ALIAS = "digits@champion"
LONG_S = 60.0


class Local:
    """Replicas in this process."""

    def __init__(self, replicas: list[Generator]) -> None:
        self.replicas = replicas
        self.staged: list[str] = []
        self.noted: list[str] = []
        self.fails_on: Generator | None = None

    async def followed(self) -> list[dict[str, Meaning]]:
        return [replica.followed() for replica in self.replicas]

    async def stage(self, version: str) -> list[str]:
        self.staged.append(version)
        return [
            "it has no memory left" if replica is self.fails_on else await replica.stage(version)
            for replica in self.replicas
        ]

    async def point(self, name: str, version: str) -> None:
        for replica in self.replicas:
            replica.point(name, version)

    async def note(self, name: str, problem: str) -> None:
        self.noted.append(problem)
        for replica in self.replicas:
            replica.note(name, problem)


class Scene:
    """A registry, two replicas that follow an alias of it, and their watch."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.registry = Registry(uri)
        self.time = 0.0
        self.local = Local([self.replica() for _ in range(2)])
        settings = AppSettings(tracking_uri=uri)
        self.watch = Watch(
            self.local,
            lambda name: look(settings, name),
            clock=lambda: self.time,
            patience_s=LONG_S,
        )

    def replica(self) -> Generator:
        return Generator({"tracking_uri": self.uri, "bucket": 4})

    async def start(self) -> None:
        for replica in self.local.replicas:
            await replica.reconfigure({"models": {ALIAS: NETWORK, ORACLE: ORACLE}})

    async def seen(self) -> list[tuple[str, str | None]]:
        """Version and problem of the alias on each replica."""
        models = [await replica.describe() for replica in self.local.replicas]
        return [(one.data[0].version, one.data[0].problem) for one in models]

    def move(self, version: str) -> None:
        """Not by promotion, so that a broken version may be moved to."""
        name, _, number = version.partition("/")
        self.registry.connection.client.set_registered_model_alias(name, "champion", number)


def play(uri: str, work: Callable[[Scene], Awaitable[None]]) -> None:
    async def inner() -> None:
        scene = Scene(uri)
        await scene.start()
        await work(scene)

    asyncio.run(inner())


class Bare:
    """A replica without models, which loads version 2 when it is told to."""

    def __init__(self) -> None:
        self.versions = {"slow@champion": "slow/1", "fast@champion": "fast/1"}
        self.staged: list[str] = []
        self.loaded: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    async def followed(self) -> list[dict[str, Meaning]]:
        return [{name: Meaning(version=one, problem="") for name, one in self.versions.items()}]

    async def stage(self, version: str) -> list[str]:
        self.staged.append(version)
        return await self.loaded if version == "slow/2" else [""]

    async def point(self, name: str, version: str) -> None:
        self.versions[name] = version

    async def note(self, name: str, problem: str) -> None:
        raise AssertionError(problem)


def test_a_load_that_takes_long_or_fails_keeps_no_other_name_from_being_followed() -> None:
    async def work() -> None:
        bare, meant = Bare(), {"slow@champion": "slow/2", "fast@champion": "fast/2"}
        watch = Watch(bare, meant.__getitem__, patience_s=0.2)
        async with asyncio.timeout(10.0):
            await watch.round()
            meant["fast@champion"] = "fast/3"
            await watch.round()
            assert bare.versions == {"slow@champion": "slow/1", "fast@champion": "fast/3"}
            assert sorted(bare.staged) == ["fast/2", "fast/3", "slow/2"]
            bare.loaded.set_exception(OSError("the replica is gone"))
            meant["fast@champion"] = "fast/4"
            with pytest.raises(OSError, match="the replica is gone"):
                await watch.round()
            assert bare.versions["fast@champion"] == "fast/4"
            bare.loaded = asyncio.get_running_loop().create_future()
            bare.loaded.set_result([""])
            await watch.round()
            assert bare.versions["slow@champion"] == "slow/2"

    asyncio.run(work())


def test_a_moved_alias_is_swapped_on_all_replicas_and_back(uri: str) -> None:
    async def work(scene: Scene) -> None:
        await scene.watch.round()
        assert scene.local.staged == []
        for version in (ORACLE, NETWORK):
            scene.move(version)
            await scene.watch.round()
            assert await scene.seen() == [(version, None)] * 2
        assert scene.local.staged == [ORACLE, NETWORK]

    play(uri, work)


def test_a_version_that_one_replica_cannot_load_is_served_by_none(uri: str) -> None:
    async def work(scene: Scene) -> None:
        scene.local.fails_on = scene.local.replicas[1]
        scene.move(ORACLE)
        await scene.watch.round()
        problem = f"{ALIAS} means {ORACLE}, which does not load: it has no memory left"
        assert await scene.seen() == [(NETWORK, problem)] * 2

        scene.local.fails_on = None
        await scene.watch.round()
        assert scene.local.staged == [ORACLE]  # it is not tried in every round
        scene.time += RETRY_S
        await scene.watch.round()
        assert await scene.seen() == [(ORACLE, None)] * 2

    play(uri, work)


def test_altered_weights_and_weights_that_are_not_numbers_leave_the_old_version(uri: str) -> None:
    nan = register_broken(uri)
    for file in (Path(uri.removeprefix("sqlite:///")).parent / "artifacts").rglob("*.safetensors"):
        if Registry(uri).entry(ORACLE).files.folder.rpartition("/")[2] == file.parent.name:
            file.write_bytes(file.read_bytes()[:-1] + b"\x7f")

    async def work(scene: Scene) -> None:
        for version, why in ((nan, "got 0 finite values"), (ORACLE, "was altered")):
            scene.move(version)
            await scene.watch.round()
            for served, problem in await scene.seen():
                assert served == NETWORK
                assert problem is not None
                assert problem.startswith(f"{ALIAS} means {version}, which does not load: ")
                assert why in problem
        scene.move(NETWORK)
        await scene.watch.round()
        assert await scene.seen() == [(NETWORK, None)] * 2

    async def start(scene: Scene) -> None:
        for replica in scene.local.replicas:
            await replica.reconfigure({"models": {ALIAS: NETWORK}})
        await work(scene)

    scene = Scene(uri)
    asyncio.run(start(scene))


def test_a_replica_that_starts_again_serves_what_the_others_do(uri: str) -> None:
    async def work(scene: Scene) -> None:
        scene.move(ORACLE)
        await scene.watch.round()
        scene.local.replicas[0] = scene.replica()
        await scene.local.replicas[0].reconfigure({"models": {ALIAS: NETWORK}})
        assert await scene.seen() == [(ORACLE, None)] * 2

    play(uri, work)


def test_a_replica_beside_a_broken_version_serves_the_last_good_one(uri: str) -> None:
    nan = register_broken(uri)

    async def work(scene: Scene) -> None:
        scene.move(nan)
        scene.local.replicas[0] = scene.replica()
        await scene.local.replicas[0].reconfigure({"models": {ALIAS: NETWORK}})
        await scene.watch.round()
        assert [version for version, _ in await scene.seen()] == [NETWORK, NETWORK]
        assert all("got 0 finite values" in str(problem) for _, problem in await scene.seen())

    play(uri, work)


def test_an_alias_that_is_gone_leaves_what_is_served_and_says_so(uri: str) -> None:
    async def work(scene: Scene) -> None:
        client = scene.registry.connection.client
        client.delete_registered_model_alias("digits", "champion")
        await scene.watch.round()
        for version, problem in await scene.seen():
            assert version == NETWORK
            assert str(problem).startswith(f"{ALIAS} cannot be looked up: no model has the alias")
        scene.move(NETWORK)
        await scene.watch.round()
        assert await scene.seen() == [(NETWORK, None)] * 2

    play(uri, work)


def test_a_version_of_a_user_config_stays(uri: str) -> None:
    async def work(scene: Scene) -> None:
        for replica in scene.local.replicas:
            await replica.reconfigure({"model": ORACLE, "name": ALIAS})
        await scene.watch.round()
        assert await scene.seen() == [(ORACLE, None)] * 2
        scene.local.replicas[0].point(ALIAS, NETWORK)  # one that was on its way
        assert await scene.seen() == [(ORACLE, None)] * 2

    play(uri, work)


def test_a_problem_with_a_path_is_told_once_and_without_the_path(uri: str) -> None:
    async def work(scene: Scene) -> None:
        def look(name: str) -> str:
            raise ValueError(f"/home/ada/mlflow.db does not know {name}")

        watch = Watch(scene.local, look)
        for _ in range(3):
            await watch.round()
        assert len(scene.local.noted) == 2  # one for each name
        assert not [problem for problem in scene.local.noted if "ada" in problem]

    play(uri, work)
