import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from onestep.platform.registry.canary import CanaryState, CanaryTerms
from onestep.platform.registry.canary_ledger import CanaryLedger
from onestep.platform.registry.errors import RegistryUnreachable
from onestep.platform.registry.reference import ModelVersion
from onestep.platform.registry.store import Registry
from onestep.serving.canary_watch import CanaryWatch
from onestep.serving.generator import Generator
from onestep.serving.lot import LOT, LOTS, Lot
from onestep.serving.meaning import Meaning, look
from onestep.serving.schema import CanaryCard, ImagesRequest, ImagesResponse
from onestep.serving.settings import AppSettings
from onestep.serving.split import Split
from onestep.serving.trial import Counted
from onestep.serving.watch import Watch
from onestep.tests.serving.model import STD, gaussian, record_of
from onestep.tests.serving.registry import NETWORK, ORACLE, register_broken

ALIAS = "digits@champion"
TERMS = CanaryTerms(percent=50.0, images=20, max_drift=0.02, max_latency=1000.0)


class Local:
    """Replicas in this process, which a watch of aliases and one of trials ask."""

    def __init__(self, replicas: list[Generator]) -> None:
        self.replicas = replicas
        self.events: list[str] = []

    async def followed(self) -> list[dict[str, Meaning]]:
        return [replica.followed() for replica in self.replicas]

    async def stage(self, version: str) -> list[str]:
        self.events.append(f"stage {version}")
        return [await replica.stage(version) for replica in self.replicas]

    async def point(self, name: str, version: str) -> None:
        for replica in self.replicas:
            replica.point(name, version)

    async def note(self, name: str, problem: str) -> None:
        for replica in self.replicas:
            replica.note(name, problem)

    async def split(self, name: str, split: Split | None) -> None:
        self.events.append(f"split {split and split.percent}")
        for replica in self.replicas:
            replica.split(name, split)

    async def tell(self, name: str, canary: CanaryCard) -> None:
        for replica in self.replicas:
            replica.tell(name, canary)

    async def lot(self, champion: str, canary: str, number: int) -> Lot | str | None:
        return await self.replicas[number % len(self.replicas)].lot(champion, canary, number)


class Scene:
    """A registry whose champion is a Gaussian, and two replicas that are watched."""

    def __init__(self, uri: str) -> None:
        self.registry = Registry(uri)
        self.uri = uri
        self.ledger = CanaryLedger(self.registry)
        self.local = Local([self.replica() for _ in range(2)])
        self.watches = self.new_watches()
        self.seed = 0

    def new_watches(self) -> tuple[Watch, CanaryWatch]:
        settings = AppSettings(tracking_uri=self.uri)
        return (
            Watch(self.local, lambda name: look(settings, name), patience_s=60.0),
            CanaryWatch(self.local, lambda: CanaryLedger(Registry(self.uri))),
        )

    def replica(self) -> Generator:
        return Generator({"tracking_uri": self.uri, "bucket": 4})

    def similar(self) -> str:
        """Another version of nearly the same law as the champion's."""
        record = record_of()
        net = {**record.net, "std": STD * 1.02}
        run_id = self.registry.entry(NETWORK).run_id
        weights = gaussian().state_dict()
        return str(self.registry.register(replace(record, net=net), weights, run_id=run_id))

    async def round(self) -> None:
        for watch in self.watches:
            await watch.round()

    async def ask(self, n: int) -> list[str]:
        """Versions that answer requests of as many seeds, at replicas in turn."""
        versions = []
        for _ in range(n):
            self.seed += 1
            request = ImagesRequest(model=ALIAS, prompt="1", seed=self.seed)
            answer = await self.local.replicas[self.seed % 2].generate(request)
            assert isinstance(answer, ImagesResponse), answer
            versions.append(answer.model)
        return versions

    async def cards(self) -> list[tuple[str, CanaryCard | None]]:
        models = [await replica.describe() for replica in self.local.replicas]
        return [(one.data[0].version, one.data[0].canary) for one in models]

    async def card(self) -> CanaryCard:
        (_, first), *others = await self.cards()
        assert first is not None
        assert all(card == first for _, card in others)
        return first


@pytest.fixture
def uri(uri: str) -> str:
    Registry(uri).promote(ORACLE, "champion", why="a Gaussian")
    return uri


def play(uri: str, work: Callable[[Scene], Awaitable[None]]) -> None:
    async def inner() -> None:
        scene = Scene(uri)
        for replica in scene.local.replicas:
            await replica.reconfigure({"models": {ALIAS: ORACLE, NETWORK: NETWORK}})
        await work(scene)

    asyncio.run(inner())


def test_a_good_version_gets_its_share_and_is_promoted_by_the_registry(uri: str) -> None:
    async def work(scene: Scene) -> None:
        await scene.round()
        assert await scene.cards() == [(ORACLE, None)] * 2
        version = scene.similar()
        scene.ledger.start(version, ALIAS, TERMS, why="a little wider")
        await scene.round()
        assert scene.local.events == [f"stage {version}", "split 50.0"]

        asked = await scene.ask(12)
        assert set(asked) == {ORACLE, version}
        await scene.round()
        card = await scene.card()
        assert (card.state, card.version, card.percent) == ("running", version, 50.0)
        assert card.images == card.requests == asked.count(version)
        assert (card.images_wanted, card.compared, card.drift) == (20, LOT, None)

        scene.watches = scene.new_watches()  # which another process may be
        asked += await scene.ask(60)
        for _ in range(LOTS):
            assert scene.ledger.find(ALIAS).is_running
            await scene.round()
        assert not (found := scene.ledger.read("digits", "champion")) or not found.is_running
        await scene.round()
        assert [served for served, _ in await scene.cards()] == [version] * 2
        card = await scene.card()
        assert (card.state, card.errors, card.compared) == ("promoted", 0, LOT * LOTS)
        assert card.images == asked.count(version) >= 20
        assert card.drift is not None
        assert card.drift < TERMS.max_drift
        moved = scene.registry.history("digits", "champion")[-1]
        assert moved.to == version
        assert moved.why.startswith(f"canary: {card.images} images, 0 of ")
        assert set(await scene.ask(8)) == {version}
        assert scene.local.events[-1] == "split None"

    play(uri, work)


def test_a_version_of_another_law_is_rolled_back_with_its_numbers(uri: str) -> None:
    async def work(scene: Scene) -> None:
        scene.ledger.start(NETWORK, ALIAS, TERMS, why="a network without training")
        for _ in range(LOTS + 2):
            await scene.round()
        assert [served for served, _ in await scene.cards()] == [ORACLE] * 2
        card = await scene.card()
        assert card.state == "rolled_back"
        assert card.why.startswith("its images differ from the champion's by a drift of 0.")
        assert card.drift is not None
        assert card.drift > TERMS.max_drift
        entry = scene.registry.history("digits", "champion-canary")[-1]
        assert (entry.to, entry.why) == ("", card.why)
        assert set(await scene.ask(20)) == {ORACLE}

        replica = scene.replica()  # one that starts later tells it too
        await replica.reconfigure({"models": {ALIAS: ORACLE}})
        scene.local.replicas[1] = replica
        await scene.round()
        assert await scene.card() == card

    play(uri, work)


def test_a_version_that_does_not_load_gets_no_request(uri: str) -> None:
    broken = register_broken(uri)

    async def work(scene: Scene) -> None:
        scene.ledger.start(broken, ALIAS, TERMS, why="a mistake")
        await scene.round()
        assert scene.local.events == [f"stage {broken}"]
        await scene.round()
        card = await scene.card()
        assert card.state == "rolled_back"
        assert card.why.startswith(f"{broken} does not load: ")
        assert "got 0 finite values" in card.why
        assert set(await scene.ask(20)) == {ORACLE}

    play(uri, work)


def test_the_share_moves_ends_and_comes_to_a_replica_that_starts_again(uri: str) -> None:
    async def work(scene: Scene) -> None:
        version = scene.similar()
        begun = scene.ledger.start(version, ALIAS, TERMS, why="a little wider")
        await scene.round()
        moved = scene.ledger.move(begun, 100.0, why="more")
        await scene.round()
        assert set(await scene.ask(6)) == {version}
        scene.local.replicas[0] = scene.replica()
        await scene.local.replicas[0].reconfigure({"models": {ALIAS: ORACLE}})
        assert set(await scene.ask(6)) == {version, ORACLE}
        await scene.round()
        assert set(await scene.ask(6)) == {version}
        scene.ledger.end(moved, CanaryState.STOPPED, why="enough", numbers={})
        await scene.round()
        await scene.round()
        assert set(await scene.ask(6)) == {ORACLE}
        card = await scene.card()
        assert (card.state, card.why) == ("stopped", "enough")

    play(uri, work)


def test_a_version_that_fails_after_it_was_good_for_long_is_rolled_back(uri: str) -> None:
    class Busy(Local):
        """Replicas of which one has answered many requests, and fails some more at each look."""

        errors = 0

        async def followed(self) -> list[dict[str, Meaning]]:
            first, *others = await super().followed()
            meaning = first[ALIAS]
            if meaning.split is not None:
                self.errors += 4
                counted = Counted(requests=10**5 + self.errors, errors=self.errors)
                meaning = replace(meaning, counted=counted)
            return [{**first, ALIAS: meaning}, *others]

    async def work(scene: Scene) -> None:
        scene.ledger.start(scene.similar(), ALIAS, TERMS, why="a little wider")
        watch = CanaryWatch(Busy(scene.local.replicas), lambda: scene.ledger)
        for _ in range(3):
            assert scene.ledger.find(ALIAS).is_running
            await watch.round()
        canary = scene.ledger.read("digits", "champion")
        assert canary is not None
        assert canary.state is CanaryState.ROLLED_BACK
        assert canary.why == "4 of the latest 4 requests failed, allowed is a share of 0.01"

    play(uri, work)


def test_an_alias_that_somebody_moves_to_the_canary_ends_the_trial(uri: str) -> None:
    async def work(scene: Scene) -> None:
        version = scene.similar()
        scene.ledger.start(version, ALIAS, TERMS, why="a little wider")
        await scene.round()
        scene.registry.promote(version, "champion", why="no time to wait")
        for _ in range(3):
            await scene.round()
        card = await scene.card()
        assert (card.state, card.why) == ("promoted", f"{ALIAS} means {version}")
        assert set(await scene.ask(6)) == {version}

    play(uri, work)


def test_a_canary_that_cannot_be_read_gets_no_request_unless_nobody_answers(uri: str) -> None:
    async def work(scene: Scene) -> None:
        terms = replace(TERMS, percent=100.0)
        version = scene.similar()
        scene.ledger.start(version, ALIAS, terms, why="a little wider")
        await scene.round()
        assert set(await scene.ask(2)) == {version}

        def unreachable() -> CanaryLedger:
            raise RegistryUnreachable("nobody answers")

        await CanaryWatch(scene.local, unreachable).round()
        assert set(await scene.ask(2)) == {version}
        to = ModelVersion.parse(NETWORK)
        scene.registry.ledger.write("digits", "champion-canary", to=to, why="by hand", who=None)
        await scene.round()
        assert set(await scene.ask(6)) == {ORACLE}

    play(uri, work)


def test_a_trial_that_fails_keeps_no_other_from_going_on_and_loses_no_lot(uri: str) -> None:
    class Failing(Local):
        async def lot(self, champion: str, canary: str, number: int) -> Lot | str | None:
            if number == 1:
                raise RuntimeError("the replica died")
            return await super().lot(champion, canary, number)

    async def work(scene: Scene) -> None:
        Registry(uri).promote(NETWORK, "best", why="a second name")
        for replica in scene.local.replicas:
            await replica.reconfigure({"models": {ALIAS: ORACLE, "digits@best": NETWORK}})
        version = scene.similar()
        scene.ledger.start(version, ALIAS, TERMS, why="a little wider")
        scene.ledger.start(version, "digits@best", TERMS, why="a little wider")
        watch = CanaryWatch(Failing(scene.local.replicas), lambda: scene.ledger)
        await watch.round()
        await watch.round()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="the replica died"):
                await watch.round()
        scene.local.replicas[0].point(ALIAS, NETWORK)  # as between two moves
        with pytest.raises(RuntimeError):
            await watch.round()
        scene.local.replicas[0].point(ALIAS, ORACLE)
        watched = watch._comparisons
        assert {name: len(one.lots) for name, one in watched.items()} == {
            ALIAS: 1,
            "digits@best": 1,
        }

    play(uri, work)
