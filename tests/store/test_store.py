"""What the SQL store does beside its contract: its tables, its failpoints, and its synchronous twin methods."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlmodel import Field, SQLModel

from hookware.core.lifecycle import Complete, State
from hookware.env import Env
from hookware.errors import ConfigurationError
from hookware.store.base import AddResult, Claim, Settlement
from hookware.store.sql.engines import own_engine
from hookware.store.sql.runner import ThreadRunner
from hookware.store.sql.schema import TABLES
from hookware.store.sql.settle import complete
from hookware.store.sql.store import SQLStore
from hookware.store.sql.tables import metadata
from tests.store.subject import LEASE_US, TOMBSTONE_US, ManualClock, Subject, new_task


class KilledError(Exception):
    """Raised at a failpoint."""


class KillingEnv(Env):
    """An Env that raises at chosen failpoints and notes those that it passed."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: list[str] = []
        self.killing = ""

    def fp(self, name: str) -> None:
        self.passed.append(name)
        if name == self.killing:
            raise KilledError(name)


def store_on(path: Path, env: Env | None = None) -> SQLStore:
    env = env or Env()
    runner = ThreadRunner(own_engine(create_engine(f"sqlite:///{path}")), env)
    return SQLStore(runner, ManualClock(), env=env, tombstone_us=TOMBSTONE_US)


def tables_in(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


class Bystander(SQLModel, table=True):
    """A table of the user's in the same metadata."""

    id: int = Field(primary_key=True)


async def test_prepare_makes_hookwares_tables_and_no_others(path: Path) -> None:
    assert "bystander" in metadata.tables
    store = store_on(path)
    await store.prepare(create_tables=True)
    await store.prepare(create_tables=True)
    store.prepare_blocking(create_tables=True)
    assert tables_in(path) == {table.name for table in TABLES}
    await store.prepare(create_tables=False)
    store.prepare_blocking(create_tables=False)
    await store.close()


async def test_missing_tables_are_said_with_what_to_do(path: Path) -> None:
    store = store_on(path)
    with pytest.raises(ConfigurationError, match=r"no table hookware_task, hookware_name.*: run SQLModel"):
        await store.prepare(create_tables=False)
    await store.prepare(create_tables=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE hookware_name")
    with pytest.raises(ConfigurationError, match=r"has no table hookware_name: .*create_tables=True"):
        store.prepare_blocking(create_tables=False)
    await store.close()


@pytest.mark.slow
def test_processes_that_start_at_once_do_not_collide(path: Path) -> None:
    errors: list[BaseException] = []
    together = threading.Barrier(6)

    def start() -> None:
        engine = own_engine(create_engine(f"sqlite:///{path}"))
        store = SQLStore(ThreadRunner(engine, Env()), ManualClock(), env=Env(), tombstone_us=0)
        together.wait()
        try:
            store.prepare_blocking(create_tables=True)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
            errors.append(error)
        engine.dispose()

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("place", ["before", "updated", "committed"])
async def test_a_failpoint_undoes_what_is_not_committed(path: Path, place: str) -> None:
    env = KillingEnv()
    store = store_on(path, env)
    await store.prepare(create_tables=True)
    await store.add([new_task(task_id=1)])
    wish = Claim(owner="me", limit=1, lease_us=LEASE_US)
    env.killing = f"claim.{place}"
    with pytest.raises(KilledError):
        await store.claim(wish)
    info = await store.get(1)
    assert info is not None
    assert info.state is (State.LEASED if place == "committed" else State.PENDING)
    env.killing = ""
    tasks = (await store.claim(wish)).tasks or await store.expired(1, ["me"])
    env.killing = f"settle.{place}"
    with pytest.raises(KilledError):
        await store.settle([Settlement(tasks[0].lease, Complete())])
    assert (await store.get(1) is None) is (place == "committed")
    await store.close()


async def test_the_failpoints_in_their_order(path: Path) -> None:
    env = KillingEnv()
    store = store_on(path, env)
    await store.prepare(create_tables=True)
    await store.add([new_task(), new_task()])
    first, second = (await store.claim(Claim(owner="me", limit=2, lease_us=LEASE_US))).tasks
    store.renew([first.lease], LEASE_US)
    await store.settle([Settlement(second.lease, Complete())])
    assert env.passed == [
        *("add.before", "add.committed"),
        *("claim.before", "claim.updated", "claim.committed"),
        *("renew.before", "renew.committed"),
        *("settle.before", "settle.updated", "settle.committed"),
    ]
    await store.close()


async def test_adding_in_a_thread_is_the_same(path: Path) -> None:
    store = store_on(path)
    store.prepare_blocking(create_tables=True)
    results = store.add_blocking([new_task(name="a"), new_task(name="a")])
    assert results == [AddResult.ADDED, AddResult.NAME_TAKEN]
    assert len(await store.list_tasks()) == 1
    await store.close()


async def test_complete_in_the_users_own_transaction(thread_subject: Subject, engine: Engine) -> None:
    subject = thread_subject
    await subject.add(new_task(task_id=1, name="a"))
    old = await subject.claim_one()
    subject.clock.advance(LEASE_US)

    def completed(fence: int, *, commit: bool) -> bool:
        with engine.connect() as connection:
            done = complete(
                connection, Settlement(old.lease._replace(fence=fence), Complete()), ManualClock(), TOMBSTONE_US
            )
            (connection.commit if commit else connection.rollback)()
            return done

    assert completed(old.fence + 1, commit=True) is False
    assert completed(old.fence, commit=False) is True
    assert completed(old.fence, commit=True) is True
    assert completed(old.fence, commit=True) is False
    assert await subject.store.get(1) is None
    assert await subject.store.add([new_task(name="a")]) == [AddResult.NAME_TOMBSTONED]


async def test_a_hundred_completions_are_one_statement(path: Path) -> None:
    engine = own_engine(create_engine(f"sqlite:///{path}"))
    store = SQLStore(ThreadRunner(engine, Env()), ManualClock(), env=Env(), tombstone_us=TOMBSTONE_US)
    await store.prepare(create_tables=True)
    await store.add([new_task() for _ in range(100)])
    tasks = (await store.claim(Claim(owner="me", limit=100, lease_us=LEASE_US))).tasks
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2].split()[0]))
    assert all(await store.settle([Settlement(task.lease, Complete()) for task in tasks]))
    assert statements == ["DELETE"]
    await store.close()
