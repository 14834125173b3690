"""A PostgreSQL server as the database of a sweep."""

from collections.abc import Iterator
from importlib.util import find_spec

import optuna
import pytest

from onestep.sweeps.study import check_storage, open_storage
from onestep.tests.sweeps.postgresql import USER, Server, programs, server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(programs() is None, reason="initdb of PostgreSQL is not installed"),
    pytest.mark.skipif(find_spec("psycopg") is None, reason="the extra postgres is not installed"),
]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    with server() as running:
        yield running


def test_a_server_that_refuses_is_told_in_one_sentence_without_the_password(
    postgresql: Server,
) -> None:
    check_storage(postgresql.url("postgres"))
    wrong = postgresql.url("postgres", password="hunter3")
    for url, said in (
        (wrong, f'password authentication failed for user "{USER}"'),
        (postgresql.url("missing"), 'database "missing" does not exist'),
        (Server(1).url("postgres"), "Connection refused"),
    ):
        with pytest.raises(ValueError, match=f"{USER}:[*]{{3}}@.* does not answer: .*{said}") as it:
            check_storage(url)
        assert "hunter" not in str(it.value)


def test_a_study_outlives_its_connections(postgresql: Server) -> None:
    storage = open_storage(postgresql.make("idle"))
    study = optuna.create_study(storage=storage)
    postgresql.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'idle'")
    study.set_user_attr("key", "value")
    assert study.user_attrs == {"key": "value"}
    storage.remove_session()
    storage.engine.dispose()
