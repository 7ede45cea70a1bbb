"""The request's own session: one transaction that only hookware ends, and the line of writers before SQLite's lock."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, exc, insert, text
from sqlalchemy.exc import DatabaseError, ProgrammingError

from hookware.errors import SessionError, TransientError
from hookware.store.sql import sqlite
from hookware.store.sql.own_session import OwnSession
from tests.transactions.stored import business_table


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/own.db")
    sqlite.configure(engine)
    with engine.begin() as connection:
        business_table.create(connection)
    yield engine
    engine.dispose()


def keys(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return [key for (key,) in connection.exec_driver_sql("SELECT key FROM business ORDER BY key")]


def is_free(lock: sqlite.WriteLock) -> bool:
    lock.acquire()
    lock.release()
    return True


def nothing() -> None:
    """Be told of the commit."""


def put(session: OwnSession, key: str) -> None:
    session.execute(insert(business_table).values(key=key))


def test_commit_all_commits_what_was_written_and_what_completes_it(engine: Engine) -> None:
    session = OwnSession(connect=engine.connect)
    put(session, "a")
    session.commit()
    session.rollback()
    assert keys(engine) == []

    def complete(connection: Connection) -> None:
        connection.execute(insert(business_table).values(key="b"))

    session.commit_all([], complete, nothing)
    assert keys(engine) == ["a", "b"]


def test_a_completion_that_raises_takes_everything_with_it(engine: Engine) -> None:
    lock = sqlite.WriteLock()
    session = OwnSession(connect=engine.connect, turns=lock, takes_turn=True)
    put(session, "a")

    def refuse(_connection: Connection) -> None:
        raise SessionError("stale")

    with pytest.raises(SessionError, match="stale"):
        session.commit_all([], refuse, nothing)
    assert keys(engine) == []
    assert is_free(lock)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool


@pytest.mark.parametrize("end", ["commit", "discard", "close and discard"])
def test_the_write_lock_is_given_back_however_the_session_ends(engine: Engine, end: str) -> None:
    lock = sqlite.WriteLock()
    session = OwnSession(connect=engine.connect, turns=lock, takes_turn=True)
    put(session, "a")
    if end == "commit":
        session.commit_all([], None, nothing)
    else:
        if end.startswith("close"):
            session.close()
        session.discard()
    assert is_free(lock)


def test_the_write_lock_is_given_back_when_the_transaction_cannot_begin(engine: Engine) -> None:
    lock = sqlite.WriteLock()

    @event.listens_for(engine, "checkout")
    def refuse(connection: sqlite3.Connection, *_rest: object) -> None:
        connection.set_authorizer(
            lambda action, *_rest: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK
        )

    session = OwnSession(connect=engine.connect, turns=lock, takes_turn=True)
    with pytest.raises(DatabaseError, match=r"not authorized\s+\[SQL: BEGIN IMMEDIATE\]"):
        put(session, "a")
    session.discard()
    assert is_free(lock)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool


def test_writers_of_one_process_take_turns(engine: Engine) -> None:
    lock = sqlite.WriteLock()
    first = OwnSession(connect=engine.connect, turns=lock, takes_turn=True)
    put(first, "a")
    done: list[str] = []

    def write_second() -> None:
        second = OwnSession(connect=engine.connect, turns=lock, takes_turn=True)
        put(second, "b")
        done.append("b")
        second.commit_all([], None, nothing)

    thread = threading.Thread(target=write_second)
    thread.start()
    done.append("a")
    first.commit_all([], None, nothing)
    thread.join()
    assert done == ["a", "b"]
    assert keys(engine) == ["a", "b"]


@pytest.mark.parametrize("where", ["rollback", "close"])
def test_an_error_of_the_driver_at_the_end_holds_nothing_back(engine: Engine, where: str) -> None:
    lock = sqlite.WriteLock()
    session = OwnSession(connect=engine.connect, turns=lock, takes_turn=True)
    put(session, "a")
    driver = session.open().connection.driver_connection
    assert driver is not None
    driver.close()
    if where == "close":
        with pytest.raises(ProgrammingError):
            session.close()
    session.discard()
    assert is_free(lock)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool
    assert keys(engine) == []


def test_nothing_is_held_while_the_pool_has_no_connection(tmp_path: Path) -> None:
    full = create_engine(f"sqlite:///{tmp_path}/own.db", pool_size=1, max_overflow=0, pool_timeout=0.01)
    lock = sqlite.WriteLock()
    with full.connect():
        session = OwnSession(connect=full.connect, turns=lock, takes_turn=True)
        with pytest.raises(exc.TimeoutError):
            session.open()
        assert is_free(lock)
        session.discard()
    full.dispose()


def test_a_session_that_takes_no_turn_reads_without_the_lock_and_writes_with_it(engine: Engine) -> None:
    lock = sqlite.WriteLock()
    session = OwnSession(connect=engine.connect, turns=lock)
    session.execute(text("SELECT 1"))
    assert is_free(lock)
    assert not sqlite.in_transaction(session.open())
    put(session, "a")
    assert sqlite.in_transaction(session.open())
    session.commit()
    session.commit_all([], None, nothing)
    assert keys(engine) == ["a"]


def test_a_session_that_only_read_commits_without_the_lock(engine: Engine) -> None:
    lock, begun = sqlite.WriteLock(), list[str]()

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        begun.extend([statement] * statement.startswith("BEGIN"))

    session = OwnSession(connect=engine.connect, turns=lock)
    session.execute(text("SELECT 1"))
    lock.acquire()
    session.commit_all([], None, nothing)
    lock.release()
    assert begun == []
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool


def test_a_session_that_takes_its_turn_holds_the_lock_from_its_first_read(engine: Engine) -> None:
    session = OwnSession(connect=engine.connect, turns=sqlite.WriteLock(), takes_turn=True)
    session.execute(text("SELECT 1"))
    assert sqlite.in_transaction(session.open())
    session.discard()


async def test_an_event_loop_waits_for_its_turn_only_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LOOP_TIMEOUT_MS", 10)
    lock = sqlite.WriteLock()
    lock.acquire()
    with pytest.raises(TransientError, match="add_async"):
        lock.acquire()
    lock.release()


def test_a_turn_that_does_not_come_is_a_transient_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 10)
    lock = sqlite.WriteLock()
    lock.acquire()
    with pytest.raises(TransientError, match="Keep writing transactions short"):
        lock.acquire()
    lock.release()


def test_a_finished_session_says_so(engine: Engine) -> None:
    session = OwnSession(connect=engine.connect)
    session.discard()
    with pytest.raises(SessionError, match="committed before the response left"):
        put(session, "late")
