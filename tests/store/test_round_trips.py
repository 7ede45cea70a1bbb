"""hookware's own connections ask the server no more often than they must, and notice their end all the same."""

import select
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, text

from hookware.env import Env
from hookware.store.sql.engines import own_engine
from hookware.store.sql.notify import notices_of
from hookware.store.sql.runner import ThreadRunner
from tests.postgres import PostgresServer
from tests.proxy import Proxy, proxy_to
from tests.running import eventually

pytestmark = pytest.mark.postgres


def ask(connection: Connection) -> int:
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    with proxy_to(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def runner(postgres: PostgresServer, proxy: Proxy) -> Iterator[ThreadRunner]:
    runner = ThreadRunner(own_engine(create_engine(postgres.url(port=proxy.port))), Env())
    runner.run_blocking(ask)
    yield runner
    runner.dispose()


def test_a_transaction_costs_its_statements_its_begin_and_its_end(runner: ThreadRunner, proxy: Proxy) -> None:
    before = proxy.asked_count
    runner.run_blocking(ask)
    assert proxy.asked_count - before == 3


def test_a_single_statement_costs_one_round_trip_and_the_next_transaction_is_one(
    runner: ThreadRunner, proxy: Proxy
) -> None:
    before = proxy.asked_count
    runner.run_blocking(ask, single=True)
    assert proxy.asked_count - before == 1
    runner.run_blocking(ask)
    assert proxy.asked_count - before == 4


async def test_a_notice_costs_one_round_trip(postgres: PostgresServer, runner: ThreadRunner, proxy: Proxy) -> None:
    notices = notices_of(create_engine(postgres.url()), runner, Env(), True)
    assert notices is not None
    await notices.send()
    before = proxy.asked_count
    await notices.send()
    await notices.ping()
    assert proxy.asked_count - before == 2


def test_a_connection_that_ended_while_nobody_used_it_is_replaced_and_nobody_notices(
    postgres: PostgresServer, runner: ThreadRunner
) -> None:
    pid = runner.run_blocking(ask)
    descriptor = runner.run_blocking(lambda connection: int(connection.connection.driver_connection.fileno()))  # type: ignore[union-attr]  # psycopg's
    with postgres.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
    eventually(lambda: select.select([descriptor], [], [], 0)[0])
    assert runner.run_blocking(ask) != pid


def test_a_connection_that_its_driver_knows_to_be_closed_is_replaced_as_well(runner: ThreadRunner) -> None:
    pid = runner.run_blocking(ask)
    with runner._engine.connect() as connection:
        driver_connection = connection.connection.driver_connection
    driver_connection.close()  # type: ignore[union-attr]  # psycopg's
    assert runner.run_blocking(ask) != pid
