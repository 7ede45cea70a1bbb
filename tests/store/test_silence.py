"""A peer that takes everything and answers nothing: the kernel sees nothing wrong, and no call may hang on it."""

from collections.abc import Iterator
from contextlib import suppress
from threading import Barrier

import anyio
import pytest
from anyio import to_thread
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError

from hookware.env import Env
from hookware.errors import TransientError
from hookware.store.sql import runner as runner_module
from hookware.store.sql.engines import own_engine
from hookware.store.sql.runner import ThreadRunner
from tests.postgres import PostgresServer
from tests.proxy import Proxy, proxy_to

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    with proxy_to(postgres.port) as proxy:
        yield proxy


def ask(connection: Connection) -> object:
    return connection.execute(text("SELECT 1")).scalar()


async def test_a_call_that_waits_for_ever_is_ended_by_the_next_ones(
    postgres: PostgresServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = ThreadRunner(own_engine(create_engine(postgres.url(port=proxy.port))), Env())
    ended = anyio.Event()

    async def beat() -> None:
        """Wait as the heartbeat does: in its own thread, and without an end of its own."""
        with suppress(OperationalError):  # its ping may have hung, which is asked again on a new connection
            await to_thread.run_sync(runner.run_blocking, ask, abandon_on_cancel=True)
        ended.set()

    both = Barrier(2)
    async with anyio.create_task_group() as calls:
        for _call in range(2):  # each gets a connection, and gives it to the pool
            calls.start_soon(runner.run, lambda _connection: both.wait(10))
    monkeypatch.setattr(runner_module, "LIMIT_SECONDS", 0.3)
    runner.hurry(0.5)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as threads:
            proxy.fall_silent()
            threads.start_soon(beat)
            with pytest.raises(TransientError):
                await runner.run(ask)
            proxy.accept()
            while not ended.is_set():
                with suppress(TransientError):  # as a loop does, until nothing hangs any more
                    await runner.run(ask)
    monkeypatch.undo()
    runner.relax()
    assert await runner.run(ask) == 1
    await runner.close()
