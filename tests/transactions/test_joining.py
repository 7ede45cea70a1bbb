"""The table "which transaction does the task join", row by row, on real sessions and real databases."""

import gc
import logging
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import Engine, create_engine, event, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from starlette.types import Receive, Scope, Send

from hookware import Hookware, request_session, taskqueue
from hookware.errors import (
    AmbiguousSessionError,
    BadTransactionStateError,
    ConfigurationError,
    SecondWriterError,
    SessionError,
    TaskAlreadyExistsError,
)
from hookware.events import TasksCommitted
from hookware.store.sql.tables import TaskRow
from tests.asgi import Answer, request
from tests.databases import EVERY_ASYNC_DRIVER, EVERY_DATABASE_ON_A_LOOP, Database, refuse_at_commit
from tests.serving import Recorder, serving
from tests.transactions.stored import Stored, business_table


class App:
    """An ASGI app whose one endpoint is a function of the test."""

    def __init__(self, engine: Any, endpoint: Any, *, status: int = 200, after: Any = None) -> None:
        self.endpoint, self.status, self.after = endpoint, status, after
        self.hookware = Hookware(self._app, engine=engine, dispatch=False)
        self.recorder = Recorder(self.hookware)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        result = self.endpoint()
        if result is not None:
            await result
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        if self.after is not None:
            self.after()

    async def post(self) -> Answer:
        async with serving(self.hookware):
            return await request(self.hookware, "/")

    @property
    def committed_count(self) -> int:
        return sum(event.count for event in self.recorder.events if isinstance(event, TasksCommitted))


def add(key: str, **options: Any) -> None:
    taskqueue.add(key, url="/worker", **options)


def put(session: Session, key: str) -> None:
    session.execute(insert(business_table).values(key=key))


# A session is open


@EVERY_DATABASE_ON_A_LOOP
async def test_a_task_joins_the_open_session_and_commits_with_it(engine: Engine, stored: Stored) -> None:
    def endpoint() -> None:
        with Session(engine) as session:
            put(session, "row")
            add("task")
            assert stored.keys() == set()
            session.commit()

    app = App(engine, endpoint)
    assert (await app.post()).status == 200
    assert stored.keys() == {"row", "task"}
    assert app.committed_count == 1


@EVERY_DATABASE_ON_A_LOOP
async def test_a_task_disappears_with_a_rollback(engine: Engine, stored: Stored) -> None:
    def endpoint() -> None:
        with Session(engine) as session:
            put(session, "row")
            add("task")
            session.rollback()

    app = App(engine, endpoint)
    assert (await app.post()).status == 200
    assert stored.keys() == set()
    assert app.committed_count == 0


@EVERY_DATABASE_ON_A_LOOP
async def test_closing_without_commit_drops_the_task_and_warns_by_its_url(
    engine: Engine, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    def endpoint() -> None:
        with Session(engine) as session:
            put(session, "row")
            add("task")

    await App(engine, endpoint).post()
    assert stored.keys() == set()
    assert "closed without a commit" in caplog.text
    assert "POST /worker" in caplog.text


@pytest.mark.parametrize("meant", ["nothing", "execute", "flush"])
async def test_a_rollback_of_a_session_that_only_read_warns_of_the_task_that_waited_for_it(
    engine: Engine, stored: Stored, caplog: pytest.LogCaptureFixture, meant: str
) -> None:
    def endpoint() -> None:
        add("task")
        with Session(engine) as session:
            session.execute(text("SELECT 1"))
            if meant == "execute":
                put(session, "row")
            if meant == "flush":
                incomplete = TaskRow()
                incomplete.id = 1
                session.add(incomplete)
                with pytest.raises(DBAPIError):
                    session.flush()
            session.rollback()

    assert (await App(engine, endpoint).post()).status == 200
    assert stored.keys() == set()
    assert ("was rolled back" in caplog.text and "POST /worker" in caplog.text) == (meant == "nothing")


@pytest.mark.parametrize("status", [404, 500])
async def test_closing_without_commit_is_silent_where_the_request_failed(
    engine: Engine, stored: Stored, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    def endpoint() -> None:
        with Session(engine) as session:
            put(session, "row")
            add("task")

    await App(engine, endpoint, status=status).post()
    assert stored.keys() == set()
    assert "closed without a commit" not in caplog.text


@EVERY_DATABASE_ON_A_LOOP
async def test_the_wake_up_comes_with_the_real_commit_only(engine: Engine, stored: Stored) -> None:
    seen: list[int] = []

    def endpoint() -> None:
        with Session(engine) as session:
            savepoint = session.begin_nested()
            add("task", session=session)
            savepoint.commit()
            seen.append(app.committed_count)
            session.commit()
            seen.append(app.committed_count)

    app = App(engine, endpoint)
    await app.post()
    assert seen == [0, 1]


@EVERY_DATABASE_ON_A_LOOP
async def test_a_retry_loop_of_the_application_does_not_double_the_task(engine: Engine, stored: Stored) -> None:
    def endpoint() -> None:
        with Session(engine) as session:
            put(session, "taken")
            session.commit()
            for key in ("taken", "taken", "free"):
                try:
                    add("task", session=session)
                    put(session, key)
                    session.commit()
                except IntegrityError:
                    session.rollback()

    await App(engine, endpoint).post()
    assert stored.task_keys() == ["task"]


@EVERY_DATABASE_ON_A_LOOP
async def test_a_session_joined_to_an_outer_transaction_keeps_nothing_when_that_rolls_back(
    engine: Engine, stored: Stored
) -> None:
    def endpoint() -> None:
        with engine.connect() as connection:
            outer = connection.begin()
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                add("task", session=session)
                session.commit()
            outer.rollback()

    await App(engine, endpoint).post()
    assert stored.keys() == set()


@EVERY_DATABASE_ON_A_LOOP
async def test_a_hundred_tasks_are_one_insert(engine: Engine, stored: Stored) -> None:
    inserts: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def count(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "INSERT INTO hookware_task" in statement:
            inserts.append(statement)

    def endpoint() -> None:
        with Session(engine) as session:
            taskqueue.Queue().add([taskqueue.Task(str(n), url="/worker") for n in range(100)], session=session)
            session.commit()

    app = App(engine, endpoint)
    async with serving(app.hookware):
        inserts.clear()  # the start-up's self-test
        await request(app.hookware, "/")
    assert len(stored.task_keys()) == 100
    assert len(inserts) == 1


@EVERY_DATABASE_ON_A_LOOP
async def test_adding_makes_no_statement_of_its_own(engine: Engine, stored: Stored) -> None:
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, *_rest: statements.append(statement))

    def endpoint() -> None:
        with Session(engine) as session:
            put(session, "row")
            before = list(statements)
            add("task")
            assert statements == before
            session.rollback()

    assert (await App(engine, endpoint).post()).status == 200


# Two sessions


async def test_two_open_sessions_are_ambiguous(engine: Engine, stored: Stored) -> None:
    def endpoint() -> None:
        with Session(engine) as one, Session(engine) as two:
            one.execute(text("SELECT 1"))
            two.execute(text("SELECT 1"))
            with pytest.raises(AmbiguousSessionError, match="session="):
                add("task")

    assert (await App(engine, endpoint).post()).status == 200


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("first_commits", [True, False])
@pytest.mark.parametrize("second_commits", [True, False])
async def test_session_says_which_of_two_the_task_joins(
    engine: Engine, stored: Stored, first_commits: bool, second_commits: bool
) -> None:
    def endpoint() -> None:
        with Session(engine) as one, Session(engine) as two:
            two.execute(text("SELECT 1"))
            add("one", session=one)
            (one.commit if first_commits else one.rollback)()
            add("two", session=two)
            (two.commit if second_commits else two.rollback)()

    await App(engine, endpoint).post()
    expected = {"one": first_commits, "two": second_commits}
    assert stored.keys() == {key for key, commits in expected.items() if commits}


async def test_a_session_that_was_used_before_and_closed_is_not_in_the_way(engine: Engine, stored: Stored) -> None:
    def endpoint() -> None:
        with Session(engine) as reader:
            reader.execute(text("SELECT 1"))
        with Session(engine) as session:
            put(session, "row")
            add("task")
            session.commit()

    await App(engine, endpoint).post()
    assert stored.keys() == {"row", "task"}


async def test_a_second_writer_in_the_same_request_is_refused_at_once(engine: Engine, stored: Stored) -> None:
    def endpoint() -> None:
        with Session(engine) as one, Session(engine) as two:
            put(one, "one")
            with pytest.raises(SecondWriterError, match="Commit or close the first"):
                put(two, "two")
            two.rollback()
            one.commit()
            put(two, "two")
            two.commit()

    with anyio.fail_after(3):
        assert (await App(engine, endpoint).post()).status == 200
    assert stored.keys() == {"one", "two"}


@pytest.mark.parametrize("own_first", [True, False])
async def test_the_own_session_and_another_writer_do_not_wait_for_each_other(
    engine: Engine, stored: Stored, own_first: bool
) -> None:
    def endpoint() -> None:
        with Session(engine) as session:
            one, two = (request_session(), session) if own_first else (session, request_session())
            put(one, "one")
            with pytest.raises(SecondWriterError):
                put(two, "two")
            with pytest.raises(SecondWriterError):
                add("at once", transactional=False)
            session.rollback()

    with anyio.fail_after(3):
        assert (await App(engine, endpoint).post()).status == 200
    assert stored.keys() == ({"one"} if own_first else set())


async def test_a_session_on_another_engine_is_no_candidate(engine: Engine, stored: Stored, tmp_path: Path) -> None:
    other = create_engine(f"sqlite:///{tmp_path}/other.db")

    def endpoint() -> None:
        with Session(other) as elsewhere:
            elsewhere.execute(text("SELECT 1"))
            add("task")
            with pytest.raises(ConfigurationError, match="no Hookware of this process dispatches"):
                add("other", session=elsewhere)

    await App(engine, endpoint).post()
    other.dispose()
    assert stored.keys() == {"task"}


async def test_an_open_transaction_on_another_database_is_warned_of(
    engine: Engine, stored: Stored, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = create_engine(f"sqlite:///{tmp_path}/other.db")

    def endpoint() -> None:
        with Session(other) as elsewhere:
            elsewhere.execute(text("SELECT 1"))
            add("while open")
        add("while closed")

    await App(engine, endpoint).post()
    other.dispose()
    assert stored.keys() == {"while open", "while closed"}
    assert caplog.text.count("on another database than the queue's") == 1


@EVERY_DATABASE_ON_A_LOOP
async def test_tasks_that_the_session_let_go_of_are_warned_of(
    engine: Engine, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    def endpoint() -> None:
        with Session(engine) as session:
            add("task", session=session)
            session.expunge_all()
            put(session, "row")
            session.commit()

    await App(engine, endpoint).post()
    assert stored.keys() == {"row"}
    assert "POST /worker" in caplog.text


# No session yet


@EVERY_DATABASE_ON_A_LOOP
async def test_the_order_of_add_and_first_use_does_not_matter(engine: Engine, stored: Stored) -> None:
    def endpoint() -> None:
        add("task")
        with Session(engine) as session:
            put(session, "row")
            session.rollback()
        add("kept")
        with Session(engine) as session:
            put(session, "other row")
            session.commit()

    await App(engine, endpoint).post()
    assert stored.keys() == {"kept", "other row"}


@EVERY_DATABASE_ON_A_LOOP
async def test_tasks_without_a_session_commit_before_the_response_leaves(engine: Engine, stored: Stored) -> None:
    seen: list[set[str]] = []
    app = App(engine, lambda: add("task"), after=lambda: seen.append(stored.keys()))
    assert (await app.post()).status == 200
    assert seen == [{"task"}]
    assert app.committed_count == 1


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_tasks_without_a_session_are_dropped_by_a_failing_status(
    engine: Engine, stored: Stored, status: int
) -> None:
    await App(engine, lambda: add("task"), status=status).post()
    assert stored.keys() == set()


@EVERY_DATABASE_ON_A_LOOP
async def test_tasks_without_a_session_are_dropped_by_an_exception(engine: Engine, stored: Stored) -> None:
    def endpoint() -> None:
        add("task")
        raise ValueError("no")

    answer = await App(engine, endpoint).post()
    assert isinstance(answer.error, ValueError)
    assert stored.keys() == set()


@EVERY_DATABASE_ON_A_LOOP
async def test_cancellation_drops_what_was_not_committed(engine: Engine, stored: Stored) -> None:
    reached = anyio.Event()

    async def endpoint() -> None:
        add("task")
        put(request_session(), "row")
        reached.set()
        await anyio.sleep_forever()

    app = App(engine, endpoint)
    async with serving(app.hookware), anyio.create_task_group() as group:
        group.start_soon(request, app.hookware, "/")
        await reached.wait()
        group.cancel_scope.cancel()
    assert stored.keys() == set()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool


@EVERY_DATABASE_ON_A_LOOP
async def test_a_task_added_in_a_thread_joins_the_session_of_the_request(engine: Engine, stored: Stored) -> None:
    async def endpoint() -> None:
        with Session(engine) as session:
            put(session, "row")
            await anyio.to_thread.run_sync(lambda: add("task"))
            session.commit()

    await App(engine, endpoint).post()
    assert stored.keys() == {"row", "task"}


# The request's own session


@EVERY_DATABASE_ON_A_LOOP
async def test_the_own_session_commits_with_the_tasks_before_the_response(engine: Engine, stored: Stored) -> None:
    seen: list[set[str]] = []

    def endpoint() -> None:
        put(request_session(), "row")
        add("task")

    await App(engine, endpoint, after=lambda: seen.append(stored.keys())).post()
    assert seen == [{"row", "task"}]


@EVERY_DATABASE_ON_A_LOOP
async def test_a_failing_own_commit_gives_the_client_500(database: Database, engine: Engine, stored: Stored) -> None:
    refuse_at_commit(database, engine)

    def endpoint() -> None:
        request_session().execute(text("INSERT INTO child VALUES (7)"))
        add("task")

    answer = await App(engine, endpoint).post()
    assert answer.status == 500
    assert b"done" not in answer.body
    assert isinstance(answer.error, IntegrityError)
    assert stored.keys() == set()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool


@EVERY_DATABASE_ON_A_LOOP
async def test_a_commit_by_the_handler_ends_only_a_savepoint_of_the_own_session(engine: Engine, stored: Stored) -> None:
    def endpoint() -> None:
        session = request_session()
        put(session, "row")
        session.commit()
        assert stored.keys() == set()
        raise ValueError("no")

    await App(engine, endpoint).post()
    assert stored.keys() == set()


@EVERY_DATABASE_ON_A_LOOP
async def test_the_own_session_is_over_when_the_response_has_left(engine: Engine, stored: Stored) -> None:
    sessions: list[Session] = []

    def endpoint() -> None:
        sessions.append(request_session())
        put(sessions[0], "row")

    def after() -> None:
        with pytest.raises(SessionError, match="finished"):
            put(sessions[0], "late")

    await App(engine, endpoint, after=after).post()
    assert stored.keys() == {"row"}


@EVERY_DATABASE_ON_A_LOOP
async def test_a_request_that_does_not_touch_the_own_session_takes_no_connection(engine: Engine) -> None:
    taken: list[object] = []

    def asks_only() -> None:
        request_session()

    app = App(engine, asks_only)
    async with serving(app.hookware):
        event.listen(engine, "checkout", lambda *_args: taken.append(1))
        await request(app.hookware, "/")
    assert taken == []


# Late commits


@EVERY_DATABASE_ON_A_LOOP
async def test_tasks_committed_after_the_response_are_warned_of_once(
    engine: Engine, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    sessions: list[Session] = []

    def endpoint() -> None:
        sessions.append(Session(engine))
        put(sessions[-1], f"row {len(sessions)}")
        add("task")

    app = App(engine, endpoint, after=lambda: sessions[-1].commit())
    async with serving(app.hookware):
        for _ in range(2):
            await request(app.hookware, "/")
            sessions[-1].close()
    assert caplog.text.count('scope="function"') == 1
    assert len(stored.task_keys()) == 2


# Connections


@EVERY_DATABASE_ON_A_LOOP
async def test_a_connection_takes_the_task_into_its_transaction(engine: Engine, stored: Stored) -> None:
    def endpoint() -> None:
        for commits in (True, False):
            with engine.connect() as connection:
                add(f"task {commits}", connection=connection)
                assert stored.task_keys().count(f"task {commits}") == 0
                (connection.commit if commits else connection.rollback)()

    app = App(engine, endpoint)
    await app.post()
    assert stored.keys() == {"task True"}
    assert app.committed_count == 1


@EVERY_ASYNC_DRIVER
async def test_an_async_connection_needs_the_async_form(async_engine: AsyncEngine, stored: Stored) -> None:
    async def endpoint() -> None:
        async with async_engine.begin() as connection:
            with pytest.raises(SessionError, match="add_async"):
                add("task", connection=connection)
            await taskqueue.add_async("task", url="/worker", connection=connection)
            savepoint = await connection.begin_nested()
            await taskqueue.add_async("undone", url="/worker", connection=connection)
            await savepoint.rollback()

    app = App(async_engine, endpoint)
    await app.post()
    assert stored.task_keys() == ["task"]
    assert app.committed_count >= 1


@EVERY_ASYNC_DRIVER
async def test_an_async_session_is_joined_without_await(async_engine: AsyncEngine, stored: Stored) -> None:
    async def endpoint() -> None:
        async with AsyncSession(async_engine) as session:
            await session.execute(text("SELECT 1"))
            add("ambient")
            add("given", session=session)
            await session.commit()
            add("rolled back", session=session)
            await session.rollback()

    app = App(async_engine, endpoint)
    await app.post()
    assert sorted(stored.task_keys()) == ["ambient", "given"]


# Outside of a request


@EVERY_DATABASE_ON_A_LOOP
async def test_outside_of_a_request_a_task_is_durable_on_return(engine: Engine, stored: Stored) -> None:
    hookware = Hookware(engine=engine, dispatch=False)
    async with serving(hookware):
        thread = threading.Thread(target=add, args=("from a thread",))
        thread.start()
        thread.join()
        assert stored.keys() == {"from a thread"}
        await taskqueue.add_async("from async code", url="/worker")
        assert stored.keys() == {"from a thread", "from async code"}


async def test_transactional_false_inside_a_request_adds_at_once(engine: Engine, stored: Stored) -> None:
    def endpoint() -> None:
        add("at once", transactional=False)
        assert stored.keys() == {"at once"}
        raise ValueError("no")

    await App(engine, endpoint).post()
    assert stored.keys() == {"at once"}


async def test_transactional_true_outside_of_a_request_is_refused(engine: Engine) -> None:
    hookware = Hookware(engine=engine, dispatch=False)
    async with serving(hookware):
        with pytest.raises(BadTransactionStateError, match="session="):
            add("task", transactional=True)
        with pytest.raises(BadTransactionStateError, match="session="):
            await taskqueue.add_async("task", url="/worker", transactional=True)


@EVERY_DATABASE_ON_A_LOOP
async def test_a_taken_name_is_refused_at_once_outside_and_never_kills_a_transaction(
    engine: Engine, stored: Stored
) -> None:
    def endpoint() -> None:
        add("first", name="n", transactional=False)
        with pytest.raises(TaskAlreadyExistsError, match="'n'"):
            add("second", name="n", transactional=False)
        with Session(engine) as session:
            put(session, "row")
            add("third", name="n", session=session)
            session.commit()

    assert (await App(engine, endpoint).post()).status == 200
    assert stored.keys() == {"first", "third", "row"}


async def test_two_phase_and_bare_sessions_outside_a_request_work_with_session(
    engine: Engine, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    hookware = Hookware(engine=engine, dispatch=False)
    async with serving(hookware):
        with Session(engine) as session, session.begin():
            add("task", session=session)
        with Session(engine) as session:
            add("forgotten", session=session)
    assert stored.keys() == {"task"}
    assert "closed without a commit" in caplog.text


@pytest.mark.usefixtures("alone")
async def test_a_request_that_bypasses_hookware_is_complained_of_loudly(
    engine: Engine, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    gc.collect()  # instances that earlier tests made and never started
    hookware = Hookware(engine=engine)
    with caplog.at_level(logging.ERROR):
        await taskqueue.add_async("task", url="/worker")
        await taskqueue.add_async("task", url="/worker")
    assert caplog.text.count("neither a request nor the lifespan has passed through Hookware") == 1
    assert hookware.config.dispatch is True


@pytest.mark.usefixtures("alone")
async def test_a_script_that_only_adds_is_not_complained_of(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()
    hookware = Hookware(engine=engine, dispatch=False)
    await taskqueue.add_async("task", url="/worker")
    assert caplog.text == ""
    assert hookware.config.dispatch is False


async def test_a_transaction_on_another_database_that_opens_later_is_warned_of(
    engine: Engine, stored: Stored, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = create_engine(f"sqlite:///{tmp_path}/other.db")

    def endpoint() -> None:
        add("task")
        with Session(other) as elsewhere:
            elsewhere.execute(text("SELECT 1"))
            elsewhere.rollback()

    await App(engine, endpoint).post()
    other.dispose()
    assert "on another database than the queue's" in caplog.text
    assert "test.db" in caplog.text
