"""A task that one process commits starts in another one at once, although that one hardly ever polls.

Each `Hookware` here has connections, loops and a voice of its own, as a process has: the database sees no difference.
"""

import warnings
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import psycopg
import pytest
from anyio import to_thread
from sqlalchemy import URL, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlmodel import Session

from hookware import Hookware, TaskRouter, listener, taskqueue
from hookware.events import AttemptStarted, Event, LoopFailed
from hookware.listener import Listener
from hookware.store.sql import ears
from tests.postgres import PostgresServer, postgres_server
from tests.proxy import proxy_to
from tests.running import eventually
from tests.serving import Recorder, serving

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

HARDLY_EVER = 3600.0
PATIENCE_SECONDS = 30.0
"""How long to wait for what takes milliseconds, on any machine: far shorter than the poll."""


class Process:
    """One process of an app: the tasks for /held go on until `go_on` is set."""

    def __init__(self, url: URL, **options: Any) -> None:
        self.is_async = url.get_dialect().is_async
        self.engine = create_async_engine(url).sync_engine if self.is_async else create_engine(url)
        self.go_on = anyio.Event()
        router = TaskRouter()
        router.task_handler("/quick")(self._quick)
        router.task_handler("/held")(self._held)
        options = {"poll_seconds": HARDLY_EVER, "drain_seconds": 0.1, **options}
        self.hookware = Hookware(
            engine=AsyncEngine(self.engine) if self.is_async else self.engine, router=router, **options
        )
        self.recorder = Recorder(self.hookware)

    async def _quick(self) -> None:
        """Be done."""

    async def _held(self) -> None:
        await self.go_on.wait()

    @property
    def listener(self) -> Listener:
        """What is under test, deep inside."""
        found = self.hookware._loops.processing._listener  # type: ignore[union-attr]  # of a process that dispatches
        assert isinstance(found, Listener)
        return found

    @property
    def is_claiming(self) -> bool:
        """Whether a claim is on its way, which would take what is committed meanwhile."""
        dispatcher = self.hookware._loops.processing._dispatcher  # type: ignore[union-attr]  # of a process that dispatches
        return dispatcher._claims_begun != dispatcher._claims_ended

    @property
    def started_count(self) -> int:
        return sum(isinstance(event, AttemptStarted) for event in self.recorder.events)

    async def commit(self, *urls: str, countdown: float = 0, commit: bool = True) -> None:
        """Add tasks in one transaction of the user's, as a route does; roll it back unless `commit`."""

        def add(session: Session) -> None:
            for url in urls:
                taskqueue.add(url=url, countdown=countdown, session=session)
            session.flush()

        def in_a_thread() -> None:
            with Session(self.engine) as session:
                add(session)
                if commit:
                    session.commit()

        if self.is_async:
            async with AsyncSession(AsyncEngine(self.engine), sync_session_class=Session) as session:
                await session.run_sync(add)  # type: ignore[arg-type]  # its class is the one given
                if commit:
                    await session.commit()
        else:
            await to_thread.run_sync(in_a_thread)

    async def until_started(self, count: int) -> None:
        await self.recorder.wait(lambda: self.started_count >= count, seconds=PATIENCE_SECONDS)

    async def until_settled(self, count: int) -> None:
        await self.recorder.wait_settled(count, seconds=PATIENCE_SECONDS)

    async def close(self) -> None:
        """Give the app's own connections back."""
        if self.is_async:
            await AsyncEngine(self.engine).dispose()
        else:
            self.engine.dispose()

    async def until_it_is_cut_off(self) -> None:
        """Wait until the listener has noticed, once, that its connection is lost; it may hear again already."""

        def noticed(event: Event) -> bool:
            return isinstance(event, LoopFailed) and event.loop == "listener"

        await self.recorder.wait(lambda: any(map(noticed, self.recorder.events)), seconds=PATIENCE_SECONDS)

    async def until_it_hears(self, *, hears: bool = True) -> None:
        """Wait until the listener has had an echo, and has looked for what it might have missed."""
        with anyio.fail_after(PATIENCE_SECONDS):
            await until(lambda: self.listener.hears is hears)
            await anyio.wait_all_tasks_blocked()
            await until(lambda: not self.is_claiming)


async def until(condition: Callable[[], object]) -> None:
    """Wait until it is true, with nothing that tells of it."""
    await to_thread.run_sync(lambda: eventually(condition, seconds=PATIENCE_SECONDS))


@asynccontextmanager
async def process(url: URL, **options: Any) -> AsyncIterator[Process]:
    """Run one; if it dispatches, it listens."""
    one = Process(url, **options)
    try:
        async with serving(one.hookware):
            if options.get("dispatch", True) and options.get("listen", True):
                await one.until_it_hears()
            yield one
            one.go_on.set()
    finally:
        await one.close()


class Overheard:
    """Hears all notices of a database, through a connection of the test's."""

    def __init__(self, connection: "psycopg.Connection[tuple[object, ...]]") -> None:
        self._connection = connection
        connection.execute("LISTEN hookware")

    def so_far(self) -> list[int]:
        """Give the server's processes that sent notices since the last time, in order."""
        own_pid = self._connection.info.backend_pid
        self._connection.execute("NOTIFY hookware, 'that was all'")  # is heard after all that was sent before
        pids: list[int] = []
        for notice in self._connection.notifies(timeout=PATIENCE_SECONDS):
            if notice.pid == own_pid:
                return pids
            pids.append(notice.pid)
        raise AssertionError("not even the own notice was heard")


@pytest.fixture
def url(postgres: PostgresServer, postgres_database: str) -> URL:
    return postgres.url(postgres_database)


@pytest.fixture
def overheard(postgres: PostgresServer, postgres_database: str) -> Iterator[Overheard]:
    with postgres.connect(postgres_database) as connection:
        yield Overheard(connection)


@pytest.fixture
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_LEAST_PING_SECONDS", 0.1)
    monkeypatch.setattr(listener, "_MOST_PING_SECONDS", 0.1)
    monkeypatch.setattr(listener, "ECHO_SECONDS", 1.0)


# From one process to another.


async def test_a_task_of_a_process_that_runs_none_starts_in_another_at_once(url: URL) -> None:
    async with process(url, dispatch=False) as web, process(url) as other:
        for count in range(1, 4):
            await web.commit("/quick")
            await other.until_settled(count)


@pytest.mark.parametrize(
    ("anyio_backend", "driver"),
    [("asyncio", "psycopg_async"), ("asyncio", "asyncpg"), (("asyncio", {"use_uvloop": True}), "asyncpg")],
    ids=["psycopg", "asyncpg", "asyncpg on uvloop"],
)
async def test_so_it_does_with_asyncio_drivers(url: URL, driver: str) -> None:
    url = url.set(drivername=f"postgresql+{driver}")
    async with process(url, dispatch=False) as web, process(url) as other:
        for count in range(1, 4):
            await web.commit("/quick")
            await other.until_settled(count)


async def test_a_countdown_is_known_to_the_others_and_ends_when_it_should(url: URL) -> None:
    async with process(url, dispatch=False) as web, process(url) as other:
        await web.commit("/quick", countdown=0.5)
        await other.until_settled(1)


async def test_a_process_with_no_free_slot_leaves_its_tasks_to_others(url: URL) -> None:
    async with process(url, concurrency=1) as full, process(url) as idle:
        await full.commit("/held")
        await full.until_started(1)
        await full.commit("/quick")
        await idle.until_settled(1)
        assert full.started_count == 1


async def test_a_process_with_too_few_slots_leaves_the_rest_to_others(url: URL) -> None:
    async with process(url, concurrency=2) as small, process(url) as idle:
        await small.commit(*["/held"] * 5)
        await until(lambda: small.started_count + idle.started_count == 5)
        assert small.started_count <= 2


async def test_tasks_given_back_at_a_shutdown_start_elsewhere_at_once(url: URL) -> None:
    async with process(url) as other:
        async with process(url) as ending:
            await ending.commit("/held")
            await ending.until_started(1)
            other.go_on.set()
            ending.go_on = anyio.Event()
            assert other.started_count == 0
        await other.until_settled(1)


async def test_what_the_app_adds_while_it_shuts_down_starts_elsewhere_at_once(url: URL) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await ending.commit("/quick")
        await send({"type": "lifespan.shutdown.complete"})

    ending = Process(url)
    ending.hookware.app = app
    async with process(url) as other:
        async with serving(ending.hookware):
            await ending.until_it_hears()
        await other.until_settled(1)
    await ending.close()


def test_a_connection_that_nobody_else_holds_is_closed_without_a_complaint(
    postgres: PostgresServer, postgres_database: str
) -> None:
    """A listener may be stopped when its thread has just opened one."""
    opened = deque([postgres.connect(postgres_database)])
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        ears._close(opened)
    assert complaints == []
    assert not opened


# What is sent, and by whom.


async def test_a_process_that_can_run_its_tasks_itself_tells_nobody(url: URL, overheard: Overheard) -> None:
    async with process(url) as busy:
        for count in range(1, 4):
            await busy.commit("/quick", "/quick")
            await busy.until_settled(2 * count)
        assert overheard.so_far() == []


async def test_nothing_is_told_before_the_commit_nor_of_a_rollback(url: URL, overheard: Overheard) -> None:
    async with process(url, dispatch=False) as web:
        await web.commit("/quick", commit=False)
        with Session(web.engine) as session:
            taskqueue.add(url="/quick", session=session)
            session.flush()
            assert overheard.so_far() == []
            session.rollback()
    assert overheard.so_far() == []


async def test_notices_are_never_sent_in_a_transaction_of_the_users(url: URL, overheard: Overheard) -> None:
    statements: list[str] = []
    users_pids: set[object] = set()
    async with process(url, dispatch=False) as web:

        @event.listens_for(web.engine, "before_cursor_execute")
        def note(connection: Any, _cursor: object, statement: str, *_rest: object) -> None:
            statements.append(statement)
            users_pids.add(connection.connection.driver_connection.info.backend_pid)

        await web.commit("/quick", "/quick")
    pids = overheard.so_far()
    assert pids
    assert not set(pids) & users_pids
    assert any("INSERT INTO hookware_task" in statement for statement in statements)
    assert not [statement for statement in statements if "notify" in statement.lower()]


def test_a_script_tells_the_others_in_the_same_call(url: URL, overheard: Overheard) -> None:
    engine = create_engine(url)
    hookware = Hookware(engine=engine, dispatch=False, router=TaskRouter())
    hookware._outbox.store.prepare_blocking(create_tables=True)
    with Session(engine) as session:
        taskqueue.add(url="/quick", session=session)
        session.flush()
        assert overheard.so_far() == []
        session.commit()
        assert len(overheard.so_far()) == 1
    engine.dispose()


# Connections that are lost.


@pytest.mark.usefixtures("quick_pings")
async def test_a_listener_whose_connection_is_ended_gets_another(url: URL, postgres: PostgresServer) -> None:
    async with process(url, dispatch=False) as web, process(url) as other:
        with postgres.connect(str(url.database)) as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            ).fetchall()
        assert len(ended) == 1
        await other.until_it_hears(hears=False)
        await other.until_it_hears()
        await web.commit("/quick")
        await other.until_settled(1)


@pytest.mark.usefixtures("quick_pings")
async def test_a_half_open_listener_gets_another_connection(url: URL, postgres: PostgresServer) -> None:
    with proxy_to(postgres.port) as proxy:
        listen = postgres.url(str(url.database), port=proxy.port)
        async with process(url, dispatch=False) as web, process(url, listen=listen) as other:
            (dead,) = proxy.ports
            proxy.fall_silent([dead])
            await until(lambda: proxy.ports - {dead})
            await other.until_it_hears()
            await web.commit("/quick")
            await other.until_settled(1)


async def test_a_half_open_listener_costs_no_more_than_the_poll(url: URL, postgres: PostgresServer) -> None:
    with proxy_to(postgres.port) as proxy:
        listen = postgres.url(str(url.database), port=proxy.port)
        async with process(url, dispatch=False) as web, process(url, listen=listen, poll_seconds=0.2) as other:
            proxy.fall_silent()
            await web.commit("/quick")
            await other.until_settled(1)
            assert other.listener.hears  # it has not even noticed


async def test_who_cannot_listen_polls_and_who_does_not_want_to_as_well(url: URL, postgres: PostgresServer) -> None:
    with proxy_to(postgres.port) as proxy:
        proxy.refuse()
        listen = postgres.url(str(url.database), port=proxy.port)
        async with process(url, dispatch=False) as web:
            for where in (listen, False):
                one = Process(url, listen=where, poll_seconds=0.2)
                async with serving(one.hookware):
                    await web.commit("/quick")
                    await one.until_settled(1)
                    if where is not False:
                        proxy.accept()
                        await one.until_it_hears()
                await one.close()


@pytest.mark.usefixtures("quick_pings")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_all_is_well_after_the_server_was_restarted() -> None:
    with postgres_server() as server:
        url = server.url(server.new_database())
        async with process(url, dispatch=False) as web, process(url) as other:
            await to_thread.run_sync(server.restart)
            web.engine.dispose()  # the app's own pool is the app's affair
            await other.until_it_is_cut_off()
            await other.until_it_hears()
            await web.commit("/quick")
            await other.until_settled(1)
