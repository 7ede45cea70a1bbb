"""What the tasks do, the same in every system; and the user's own rows."""

import json
import sys
import threading
import time
from collections.abc import Sequence
from itertools import count

import anyio
from sqlalchemy import Engine, create_engine, event, func, select, update
from sqlmodel import Field, Session, SQLModel, col

KINDS = ("noop", "increment", "stamp", "hold")
"""Do nothing; add one to a row; tell when it began; wait until the measurement is done."""
KEYS = [f"k{number}" for number in range(1000)]


class Counter(SQLModel, table=True):
    """What the tasks count."""

    __tablename__ = "bench_counter"
    key: str = Field(primary_key=True)
    count: int = 0


class Click(SQLModel, table=True):
    """What the requests write."""

    __tablename__ = "bench_click"
    id: int | None = Field(default=None, primary_key=True)
    key: str


def keys(number: int) -> list[str]:
    """Give so many keys, each as often as the others."""
    return (KEYS * (number // len(KEYS) + 1))[:number]


def engine_of(url: str) -> Engine:
    """Make the engine of the user's own rows: the same for every system."""
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": 30})
        event.listen(engine, "connect", _durable)
        return engine
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"), pool_size=40, max_overflow=10)


def _durable(connection: object, _record: object) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")  # type: ignore[attr-defined]  # a connection of sqlite3


def make_tables(engine: Engine) -> None:
    """Make the user's tables, with all counters at zero."""
    tables = [SQLModel.metadata.tables[model.__tablename__] for model in (Counter, Click)]
    SQLModel.metadata.create_all(engine, tables=tables)
    with Session(engine) as session:
        session.add_all([Counter(key=key) for key in KEYS])
        session.commit()


def counted(engine: Engine) -> int:
    """How many increments there were."""
    with engine.connect() as connection:
        return int(connection.execute(select(func.sum(col(Counter.count)))).scalar_one() or 0)


def increment_in(session: Session, key: str) -> None:
    """Add one to a row, in the session's transaction."""
    session.execute(update(Counter).where(col(Counter.key) == key).values(count=Counter.count + 1))


def say(**what: object) -> None:
    """Tell whoever drives this process, by one line."""
    line = json.dumps(what) + "\n"
    with _LINE:
        sys.__stdout__.write(line)  # type: ignore[union-attr]  # it is there
        sys.__stdout__.flush()  # type: ignore[union-attr]  # it is there


_LINE = threading.Lock()


class Handlers:
    """What a process does for the tasks that it is given, and how many it was.

    Attributes:
        first_at: when the first one began; or when the first `warm` of them were done.
        last_at: when the last one ended.
        done: how many have.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._warm = 0
        self.first_at = 0.0
        self.last_at = 0.0
        self.done = 0
        self._numbers = count(1)  # its next() is atomic, whatever threads there are
        self._release: anyio.Event | None = None

    def note(self) -> None:
        """Count one task that is done."""
        self.last_at = time.monotonic()
        self.done = number = next(self._numbers)
        if number == self._warm:
            self.first_at = self.last_at

    def begin(self) -> None:
        """Note when the first one began."""
        if not self._warm:
            self.first_at = self.first_at or time.monotonic()

    def call(self, kind: str, key: str) -> None:
        """Do what a task of this kind does, where no transaction of the system's own is joined."""
        if kind == "stamp":
            say(stamp=[key, time.monotonic()])
            return
        self.begin()
        if kind == "increment":
            with Session(self.engine) as session:
                increment_in(session, key)
                session.commit()
        self.note()

    async def hold(self) -> None:
        """Wait until `release`."""
        self.begin()
        self.note()
        self._release = self._release or anyio.Event()
        await self._release.wait()

    def release(self) -> None:
        """Let all that hold end."""
        if self._release is not None:
            self._release.set()
            self._release = None

    def reset(self, warm: int = 0) -> None:
        """Count from zero."""
        self._warm = warm
        self._numbers, self.first_at, self.last_at, self.done = count(1), 0.0, 0.0, 0


def chunks(values: Sequence[str], size: int) -> list[Sequence[str]]:
    """Cut a list into pieces of at most this size."""
    return [values[start : start + size] for start in range(0, len(values), size)]
