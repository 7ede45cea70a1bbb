"""Whatever a handler does with its session, only what it has committed last of all is stored, and only with the task.

From its first commit on, each of its transactions is a savepoint; before that there is none to pay for. The model
knows nothing of that: a commit keeps what was written, a rollback or a close forgets what was not kept.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, exc, insert, select, text

from hookware.store.sql import sqlite
from hookware.store.sql.own_session import OwnSession
from tests.postgres import PostgresServer
from tests.transactions.stored import business_table

STEPS = ("write", "write", "read", "commit", "rollback", "close", "block", "failing block", "nested", "failing nested")
SEQUENCES = 300


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/own.db")
        sqlite.configure(engine)
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        engine = create_engine(server.new_schema())
    with engine.begin() as connection:
        business_table.create(connection)
    yield engine
    engine.dispose()


class Model:
    """What a handler would find if each of its commits were one."""

    def __init__(self) -> None:
        self.kept: set[str] = set()
        self.pending: set[str] = set()

    def commit(self) -> None:
        self.kept |= self.pending
        self.pending = set()

    def forget(self) -> None:
        self.pending = set()


class FailedError(Exception):
    """A handler's block ends with it."""


def play(session: OwnSession, model: Model, steps: list[str], prefix: str) -> None:
    for number, step in enumerate(steps):
        key = f"{prefix}.{number}"
        match step:
            case "write":
                session.execute(insert(business_table).values(key=key))
                model.pending.add(key)
            case "read":
                found = set(session.execute(select(business_table.c.key)).scalars())
                assert found >= model.kept | model.pending
            case "commit":
                session.commit()
                model.commit()
            case "rollback" | "close":
                getattr(session, step)()
                model.forget()
            case "block" | "failing block" if not session.in_transaction():
                try:
                    with session.begin():
                        session.execute(insert(business_table).values(key=key))
                        if step.startswith("failing"):
                            raise FailedError
                    model.kept.add(key)
                except FailedError:
                    pass
            case "nested" | "failing nested":
                try:
                    with session.begin_nested():
                        session.execute(insert(business_table).values(key=key))
                        if step.startswith("failing"):
                            raise FailedError
                    model.pending.add(key)
                except FailedError:
                    pass
            case _:
                pass


def stored(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(select(business_table.c.key)).scalars())


@pytest.mark.parametrize("takes_turn", [True, False])
def test_any_sequence_stores_what_was_committed_and_what_waits_at_the_end(engine: Engine, takes_turn: bool) -> None:
    choose, expected, lock = random.Random(7), set[str](), sqlite.WriteLock()
    turns = lock if engine.dialect.name == "sqlite" else None
    for number in range(SEQUENCES):
        model, steps = Model(), choose.choices(STEPS, k=choose.randint(1, 8))
        session = OwnSession(connect=engine.connect, turns=turns, takes_turn=takes_turn)
        play(session, model, steps, str(number))
        assert stored(engine) == expected, steps
        if choose.random() < 0.7:
            session.commit_all([], completing if takes_turn else None, lambda: None)
            expected |= model.kept | model.pending
        else:
            session.discard()
        assert stored(engine) == expected, steps
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool


def completing(connection: Connection) -> None:
    assert connection.in_transaction()
    connection.execute(text("SELECT 1"))


def statements_of(engine: Engine, *steps: str) -> list[str]:
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    event.listen(engine, "savepoint", lambda *args: seen.append("SAVEPOINT"))
    session = OwnSession(connect=engine.connect, takes_turn=True)
    play(session, Model(), list(steps), "k")
    session.commit_all([], completing, lambda: None)
    return [each for each in seen if "SAVEPOINT" in each]


@pytest.mark.parametrize("steps", [["write"], ["write", "commit"], ["write", "rollback", "write"], ["write", "close"]])
def test_a_handler_that_commits_once_or_never_pays_for_no_savepoint(engine: Engine, steps: list[str]) -> None:
    assert statements_of(engine, *steps) == []
    assert statements_of(engine, "commit", "write", "commit", "write") != []


@pytest.mark.postgres
def test_a_failed_statement_that_nobody_minded_is_no_commit(postgres: PostgresServer) -> None:
    engine = create_engine(postgres.new_schema())
    with engine.begin() as connection:
        business_table.create(connection)
    session = OwnSession(connect=engine.connect)
    session.execute(insert(business_table).values(key="lost"))
    with pytest.raises(exc.ProgrammingError):
        session.execute(text("SELECT * FROM nothing_of_the_kind"))
    told: list[Any] = []
    with pytest.raises(exc.InternalError, match="current transaction is aborted"):
        session.commit_all([], None, lambda: told.append("committed"))
    assert told == []
    assert stored(engine) == set()
    engine.dispose()
